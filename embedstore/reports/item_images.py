"""The image files of items, read for thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from embedstore.errors import ItemError
from embedstore.sources.locations import read_item
from embedstore.storage.queries import search as queries
from embedstore.storage.storage import Storage

ImageReader = Callable[[Sequence[int]], Iterator[bytes | None]]


def read_item_images(storage: Storage, items: Sequence[int]) -> Iterator[bytes | None]:
    """Yield the encoded image of each item, in order; None where it cannot be read.

    Args:
        storage: the store.
        items: ids of items.
    """
    with storage.catalog.read() as con:
        files = queries.item_files(con, items)
    yield from _read_files(files, items)


def image_reader_by_uri(uris: Mapping[int, str]) -> ImageReader:
    """Return a reader for items whose uris are known. It cannot read a file whose name is not UTF-8."""
    return partial(_read_files, {item: (uri, None) for item, uri in uris.items()})


def _read_files(files: Mapping[int, tuple[str, bytes | None]], items: Sequence[int]) -> Iterator[bytes | None]:
    """Yield the bytes of the file of each item; None where it cannot be read."""
    for item in items:
        try:
            yield read_item(*files[item]) if item in files else None
        except ItemError:
            yield None

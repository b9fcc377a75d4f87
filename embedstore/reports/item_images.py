"""The image files of items, read for thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from embedstore.errors import ImageError
from embedstore.media.image import decode
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
        paths = queries.item_paths(con, items)
    for item in items:
        try:
            yield decode.read_file(paths[item]) if item in paths else None
        except ImageError:
            yield None

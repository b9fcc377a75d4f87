"""Thumbnails and measures of images, read from the files of their items by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ImageError
from embedstore.media.image.gray_thumbnails import SIDE, gray_thumbnail
from embedstore.media.image.quality import PictureFacts, picture_facts
from embedstore.resources import available_cores
from embedstore.search.pixel_pairs import Thumbnails
from embedstore.search.space_rows import MatchingRows
from embedstore.sources.locations import read_item
from embedstore.storage.queries import search as queries
from embedstore.storage.storage import Storage

Value = TypeVar("Value")
_BATCH = 1000  # items whose files are looked up at once


def read_content_thumbnails(storage: Storage, matching: MatchingRows, contents: NDArray[np.int64]) -> Thumbnails:
    """Return the thumbnails of contents, and which could be read.

    Args:
        storage: the store.
        matching: the items of the contents.
        contents: int64 ``(N,)``, numbers of contents.
    """
    _, first = np.unique(matching.content, return_index=True)
    items = matching.items[first[contents]].tolist()
    thumbnails, is_read = np.zeros((len(items), SIDE, SIDE), np.uint8), np.zeros(len(items), np.bool_)
    for place, thumbnail in enumerate(read_thumbnails(storage, items)):
        if thumbnail is not None:
            thumbnails[place], is_read[place] = thumbnail, True
    return thumbnails, is_read


def read_thumbnails(storage: Storage, items: list[int]) -> Iterator[NDArray[np.uint8] | None]:
    """Yield the thumbnail of each item, in order; None where its image cannot be read."""
    return _map_images(storage, items, gray_thumbnail)


def measure_images(storage: Storage, items: list[int]) -> Iterator[PictureFacts | None]:
    """Yield the measures of the image of each item, in order; None where it cannot be read."""
    return _map_images(storage, items, picture_facts)


def _map_images(storage: Storage, items: list[int], use: Callable[[bytes], Value]) -> Iterator[Value | None]:
    """Yield what a function makes of the file of each item, in order; None where the image cannot be read."""
    with ThreadPoolExecutor(available_cores()) as pool:
        for begin in range(0, len(items), _BATCH):
            batch = items[begin : begin + _BATCH]
            with storage.catalog.read() as con:
                files = queries.item_files(con, batch)
            yield from pool.map(partial(_use_file, files, use), batch)


def _use_file(files: dict[int, tuple[str, bytes | None]], use: Callable[[bytes], Value], item: int) -> Value | None:
    """Return what a function makes of the file of one item, None if its image cannot be read."""
    try:
        return use(read_item(*files[item])) if item in files else None
    except ImageError:
        return None

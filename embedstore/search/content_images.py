"""Thumbnails of contents, read from the files of their items by several threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ImageError
from embedstore.media.image.gray_thumbnails import SIDE, gray_thumbnail
from embedstore.resources import available_cores
from embedstore.search.pixel_pairs import Thumbnails
from embedstore.search.space_rows import MatchingRows
from embedstore.sources.locations import read_item
from embedstore.storage.queries import search as queries
from embedstore.storage.storage import Storage

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
    with ThreadPoolExecutor(available_cores()) as pool:
        for begin in range(0, len(items), _BATCH):
            batch = items[begin : begin + _BATCH]
            with storage.catalog.read() as con:
                files = queries.item_files(con, batch)
            yield from pool.map(partial(_thumbnail, files), batch)


def _thumbnail(files: dict[int, tuple[str, bytes | None]], item: int) -> NDArray[np.uint8] | None:
    """Return the thumbnail of one item, None if its image cannot be read."""
    try:
        return gray_thumbnail(read_item(*files[item])) if item in files else None
    except ImageError:
        return None

"""Short rows of a whole space: unit rows in few dimensions (:mod:`embedstore.cosine_bounds`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from embedstore.cosine_bounds import SAMPLE_ROWS, main_directions, shorten
from embedstore.resources import memory_share
from embedstore.search.index.kmeans import UnitRowReader
from embedstore.temporary import temporary_folder

_MAX_BYTES = 2**29  # of the short rows in memory; more are in a temporary file
_BLOCK = 16384


@contextmanager
def short_rows(read_rows: UnitRowReader, count: int) -> Iterator[NDArray[np.float32]]:
    """Compute short rows, and remove their temporary file at the end, if there is one.

    Args:
        read_rows: reads unit rows.
        count: number of rows.

    Yields:
        float32 ``(count, W)``, rows of length 1 (a zero row has another length): the product of two is the cosine or
        an upper bound of it, right to ``ROUNDING``.
    """
    directions = main_directions(read_rows(np.sort(np.random.default_rng(0).permutation(count)[:SAMPLE_ROWS])))
    width = directions.shape[0] if len(directions) == directions.shape[1] else directions.shape[1] + 1
    with temporary_folder() as folder:
        shape = (count, width)
        if 4 * count * width <= memory_share(_MAX_BYTES, 8):
            short = np.empty(shape, np.float32)
        else:
            short = np.memmap(folder / "short-rows", np.float32, "w+", shape=shape)
        for begin in range(0, count, _BLOCK):
            end = min(count, begin + _BLOCK)
            short[begin:end] = shorten(read_rows(np.arange(begin, end)), directions)
        yield short

"""Unit rows in few dimensions, whose products are upper bounds of the cosines.

A unit row x is split into its part p in a subspace and the rest, of length r. By the inequality of Cauchy and Schwarz
the cosine of two rows is at most ``p·p' + r r'``, which is the product of the rows ``(p, r)`` and ``(p', r')``. So a
pair whose bound is below a threshold is below it, whatever the subspace; the main directions of the rows make the
bound tight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from embedstore.resources import memory_share
from embedstore.search.index.kmeans import UnitRowReader
from embedstore.temporary import temporary_folder

WIDTH = 64  # directions that are kept
ROUNDING = 1e-5  # float32 sums of so few products are right to this
_MIN_DIM = 2 * WIDTH  # rows of fewer dimensions are used whole
_SAMPLE_ROWS = 4096  # rows that give the main directions
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
    directions = _main_directions(read_rows, count)
    width = directions.shape[0] if len(directions) == directions.shape[1] else directions.shape[1] + 1
    with temporary_folder() as folder:
        shape = (count, width)
        if 4 * count * width <= memory_share(_MAX_BYTES, 8):
            short = np.empty(shape, np.float32)
        else:
            short = np.memmap(folder / "short-rows", np.float32, "w+", shape=shape)
        for begin in range(0, count, _BLOCK):
            end = min(count, begin + _BLOCK)
            short[begin:end] = _shorten(read_rows(np.arange(begin, end)), directions)
        yield short


def _main_directions(read_rows: UnitRowReader, count: int) -> NDArray[np.float32]:
    """Return the main directions of a sample of rows, float32 ``(D, W)``; the identity if there are few dimensions."""
    sample = read_rows(np.sort(np.random.default_rng(0).permutation(count)[:_SAMPLE_ROWS]))
    if sample.shape[1] <= _MIN_DIM:
        return np.eye(sample.shape[1], dtype=np.float32)
    _, directions = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    return np.ascontiguousarray(directions[:, : -WIDTH - 1 : -1], dtype=np.float32)


def _shorten(rows: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the parts of rows along the directions and the length of the rest; the rows themselves if none is cut."""
    if directions.shape[0] == directions.shape[1]:
        return rows
    part = rows @ directions
    rest = np.einsum("ij,ij->i", rows, rows) - np.einsum("ij,ij->i", part, part)
    return np.column_stack([part, np.sqrt(np.maximum(rest, 0))])

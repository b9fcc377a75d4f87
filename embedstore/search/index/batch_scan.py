"""The best rows of many queries at once: each row is read and converted once, and scored by matrix products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.search.index.scan import RowMask
from embedstore.search.index.top_k import ScoredRows
from embedstore.threads import map_parts

MAX_QUERIES = 1024  # at once
_BLOCK_ROWS = 8192  # rows in float32 of a thread: 16 MiB at 512 dimensions, and 32 MiB of scores of the most queries

_Block = tuple[NDArray[np.floating[Any]], NDArray[np.int64]]


def top_k_of_many(
    arrays: Iterable[NDArray[np.floating[Any]]],
    queries: NDArray[np.float32],
    k: int,
    *,
    unit: bool,
    mask: RowMask | None = None,
) -> list[ScoredRows]:
    """Return the k best rows of each query.

    Args:
        arrays: the rows of a space in order, ``(n, D)`` float16 or float32.
        queries: float32 ``(Q, D)``, each of length 1, at most ``MAX_QUERIES``.
        k: at least 1.
        unit: whether the rows have length 1; otherwise they are scaled.
        mask: bool ``(rows,)``: only these rows.

    Returns:
        For each query ``(scores float32 (k',), positions int64 (k',))``, best first. Scores are right to about 1e-6;
        rows whose scores differ by less may be in any order, and of those at the end some may be missing.
    """
    scores = np.empty((len(queries), 0), np.float32)
    positions = np.empty((len(queries), 0), np.int64)
    found = map_parts(lambda block: _best_of_block(block, queries, k, unit=unit), _blocks(arrays, mask))
    for block_scores, block_positions in found:
        scores = np.concatenate([scores, block_scores], axis=1)
        positions = np.concatenate([positions, block_positions], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, order, axis=1)
        positions = np.take_along_axis(positions, order, axis=1)
    return list(zip(scores, positions, strict=True))


def _best_of_block(
    block: _Block, queries: NDArray[np.float32], k: int, *, unit: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and positions ``(Q, k')`` of the best rows of a block for each query, in any order."""
    rows, positions = block
    scores = queries @ (rows.astype(np.float32) if unit else unit_rows(rows.astype(np.float32))).T
    if len(rows) <= k:
        return scores, np.broadcast_to(positions, scores.shape)
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    return np.take_along_axis(scores, best, axis=1), positions[best]


def _blocks(arrays: Iterable[NDArray[np.floating[Any]]], mask: RowMask | None) -> Iterator[_Block]:
    """Yield blocks of the rows of a mask as they are stored, and their positions."""
    start = 0
    for array in arrays:
        for begin in range(0, len(array), _BLOCK_ROWS):
            part = array[begin : begin + _BLOCK_ROWS]
            positions = np.arange(start + begin, start + begin + len(part))
            chosen = slice(None) if mask is None or mask[positions].all() else mask[positions]
            if len(positions[chosen]):
                yield part[chosen], positions[chosen]
        start += len(array)

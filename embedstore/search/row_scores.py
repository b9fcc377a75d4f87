"""Scores of rows that are read out of order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index.scan import PIECE_ROWS, Scanner
from embedstore.search.index.top_k import ScoredRows, merge_top_k, no_rows
from embedstore.storage.vectors import VectorReader

_EXACT_ROWS = 4096  # rows scored exactly at a time: 16 MiB of float64 at 512 dimensions
_GATHER_ROWS = 2 * PIECE_ROWS  # rows read out of order at a time: 128 MiB of float16 at 512 dimensions


def gather_top_k(
    vectors: VectorReader, positions: NDArray[np.int64], query: NDArray[np.float32], k: int, *, unit: bool
) -> ScoredRows:
    """Return the k best of the rows at some positions, scored as a scan scores them.

    Args:
        vectors: the rows.
        positions: int64 ``(n,)``, ascending.
        query: float32 ``(D,)`` of length 1.
        k: at least 1.
        unit: whether the stored rows have length 1.

    Returns:
        ``(scores float32 (k',), positions int64 (k',))``, best first.
    """
    best = no_rows()
    for begin in range(0, len(positions), _GATHER_ROWS):
        part = positions[begin : begin + _GATHER_ROWS]
        scores, places = Scanner([vectors.read_stored(part)], unit=unit).top_k(query, k)
        best = merge_top_k([best, (scores, part[places])], k)
    return best


def exact_scores(
    vectors: VectorReader, positions: NDArray[np.int64], query: NDArray[np.float32], *, unit: bool
) -> NDArray[np.float64]:
    """Return the cosine of the query with some rows: float64 ``(n,)``.

    The score of a row does not depend on the rows that are scored with it.

    Args:
        vectors: the rows.
        positions: int64 ``(n,)``.
        query: float32 ``(D,)`` of length 1.
        unit: whether the stored rows have length 1.
    """
    out = np.empty(len(positions), np.float64)
    q = query.astype(np.float64)
    for begin in range(0, len(positions), _EXACT_ROWS):
        part = slice(begin, begin + _EXACT_ROWS)
        rows = vectors.read_stored(positions[part]).astype(np.float64)
        out[part] = (rows * q).sum(axis=1)
        if not unit:
            out[part] /= np.sqrt((rows * rows).sum(axis=1))
    return out

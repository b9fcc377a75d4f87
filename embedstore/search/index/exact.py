"""Exact search by scanning every block once: the oracle, and the answer where no index pays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

ScoredRows = tuple[NDArray[np.float32], NDArray[np.int64]]


def top_k(
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]], query: NDArray[np.float32], k: int, *, unit: bool
) -> ScoredRows:
    """The k rows nearest to a query by cosine similarity.

    Args:
        blocks: ``(ids (n,), vectors float32 (n, D))``, all rows once; memory is one block's.
        query: float32 ``(D,)`` of length 1.
        k: at least 1.
        unit: the rows have length 1 already (up to their stored precision); otherwise they are scaled here.

    Returns:
        ``(scores float32 (k',), ids int64 (k',))``, best first, equal scores by ascending id; k' is k or the number
        of rows, whichever is smaller.
    """
    best: ScoredRows = (np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64))
    for ids, rows in blocks:
        scores = rows @ query
        if not unit:
            scores /= np.linalg.norm(rows, axis=1)
        best = select_top_k(np.concatenate([best[0], scores]), np.concatenate([best[1], ids]), k)
    return best


def select_top_k(scores: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> ScoredRows:
    """The k largest, by descending score, then ascending id."""
    if len(scores) > k:
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = np.flatnonzero(scores >= last)  # every tie of the last place, so that the sort decides
        scores, ids = scores[keep], ids[keep]
    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]

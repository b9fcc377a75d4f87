"""The best rows of many, in one order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ScoredRows = tuple[NDArray[np.float32], NDArray[np.int64]]


def no_rows() -> ScoredRows:
    """Return zero rows."""
    return np.empty(0, np.float32), np.empty(0, np.int64)


def select_top_k(scores: NDArray[np.float32], ids: NDArray[np.int64], k: int) -> ScoredRows:
    """Return the k largest scores with their ids, by descending score, then ascending id."""
    if len(scores) > k:
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = np.flatnonzero(scores >= last)  # every tie of the last place, so that the sort decides
        scores, ids = scores[keep], ids[keep]
    order = np.lexsort((ids, -scores))[:k]
    return scores[order], ids[order]


def merge_top_k(parts: list[ScoredRows], k: int) -> ScoredRows:
    """Return the k best rows of several lists."""
    scores, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    return select_top_k(scores, ids, k)

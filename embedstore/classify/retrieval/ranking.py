"""Rank a gallery for each query, and note where the relevant items are.

Cosines that agree to six decimals are a tie, and of a tie the items that are not relevant come first. So a figure is
never better than the vectors: equal vectors find nothing, in whatever order the items are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.heads.numerics import blocks

BoolArray = NDArray[np.bool_]
Judgment = tuple[BoolArray, BoolArray]
"""Which gallery items are relevant to each query of a block, and which are no candidates: bool ``(Q, N)`` each."""

_SCALE = 1_000_000  # cosines are compared as whole millionths
_NO_CANDIDATE = np.iinfo(np.int32).min + 1  # odd: not relevant
_BLOCK = 1 << 23  # cosines in memory at once


@dataclass(frozen=True)
class RankedRelevance:
    """Where the relevant items of each query are.

    Attributes:
        top: bool ``(Q, k)``, whether the item at each of the first k ranks is relevant.
        first_rank: int64 ``(Q,)``, the rank of the first relevant item from 1 on; 0 without one.
        n_relevant: int64 ``(Q,)``, relevant items among the candidates.
        n_candidates: int64 ``(Q,)``.
    """

    top: BoolArray
    first_rank: IntArray
    n_relevant: IntArray
    n_candidates: IntArray


def rank_relevance(
    queries: FloatArray, gallery: FloatArray, judge: Callable[[slice], Judgment], k: int
) -> RankedRelevance:
    """Rank the candidates of every query by cosine.

    Args:
        queries: float32 ``(Q, D)``, unit rows.
        gallery: float32 ``(N, D)``, unit rows.
        judge: returns the relevant items and those that are no candidates, for a block of queries.
        k: ranks to note; there may be fewer candidates.
    """
    top = np.zeros((len(queries), k), bool)
    first, relevant_counts, candidates = (np.zeros(len(queries), np.int64) for _ in range(3))
    for s in blocks(len(queries), max(1, _BLOCK // max(len(gallery), 1))):
        relevant, excluded = judge(s)
        keys = _sort_keys(queries[s] @ gallery.T, relevant, excluded)
        width = min(k, len(gallery))
        best = -np.sort(np.partition(-keys, width - 1, axis=1)[:, :width], axis=1)
        top[s, :width] = best % 2 == 0
        relevant_counts[s] = (relevant & ~excluded).sum(axis=1)
        candidates[s] = (~excluded).sum(axis=1)
        best_relevant = np.where(keys % 2 == 0, keys, _NO_CANDIDATE).max(axis=1, initial=_NO_CANDIDATE)
        first[s] = np.where(relevant_counts[s] > 0, (keys > best_relevant[:, None]).sum(axis=1) + 1, 0)
    return RankedRelevance(top, first, relevant_counts, candidates)


def _sort_keys(cosines: FloatArray, relevant: BoolArray, excluded: BoolArray) -> NDArray[np.int32]:
    """Return keys that sort by cosine and then put relevant items last: even for those, odd for all others."""
    keys = np.rint(cosines * _SCALE).astype(np.int32) * 2 + 1
    keys -= relevant.astype(np.int32)
    keys[excluded] = _NO_CANDIDATE
    return keys

"""Votes of nearest neighbors for several numbers of neighbors, from one search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.heads.numerics import blocks

DINO_KS = (10, 20, 100, 200)  # Caron et al. 2021, and the published code of DINOv2 and DINOv3
DINO_TEMPERATURE = 0.07
_BLOCK_VOTES = 1 << 22  # votes in memory at once: 32 MiB
_BLOCK_COSINES = 1 << 24
_DIGITS = 6  # as in WeightedKNN: closer cosines are a tie, which the row decides


def votes_by_k(
    scores: FloatArray, codes: IntArray, n_classes: int, ks: Sequence[int], temperature: float = DINO_TEMPERATURE
) -> Iterator[tuple[int, FloatArray]]:
    """Yield the votes of the first k neighbors of each query, for each k.

    A vote is the softmax of cosine / temperature over all neighbors that are given, as in the published code: the votes
    of the largest k sum to 1 and those of the others to less, which changes no ranking of classes.

    Args:
        scores: cosines ``(Q, max k)``, the nearest first; -inf for a neighbor that does not vote.
        codes: int64 ``(Q, max k)``, the class of each neighbor.
        n_classes: the number of classes.
        ks: numbers of neighbors, ascending.
        temperature: the temperature of the softmax.

    Yields:
        k, and the votes, float64 ``(Q, n_classes)``; the array is reused for the next k.
    """
    weights = np.exp((scores.astype(np.float64) - scores[:, :1]) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    votes, queries, counted = np.zeros((len(scores), n_classes)), np.arange(len(scores))[:, None], 0
    for k in ks:
        np.add.at(votes, (queries, codes[:, counted:k]), weights[:, counted:k])
        counted = k
        yield k, votes


def correct_by_k(
    scores: FloatArray, codes: IntArray, y: IntArray, n_classes: int, ks: Sequence[int]
) -> dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return by k whether the true class is the first, and whether it is among the first five, bool ``(Q,)`` each.

    Args:
        scores: cosines ``(Q, max k)``, the nearest first.
        codes: int64 ``(Q, max k)``, the class of each neighbor.
        y: int64 ``(Q,)``, the true classes; -1 for one that no neighbor has.
        n_classes: the number of classes.
        ks: numbers of neighbors, ascending.
    """
    first = {k: np.zeros(len(y), bool) for k in ks}
    among_five = {k: np.zeros(len(y), bool) for k in ks}
    for s in blocks(len(y), max(1, _BLOCK_VOTES // n_classes)):
        for k, votes in votes_by_k(scores[s], codes[s], n_classes, ks):
            ranked = np.argsort(-votes, axis=1, kind="stable")[:, :5]
            first[k][s] = ranked[:, 0] == y[s]
            among_five[k][s] = (ranked == y[s][:, None]).any(axis=1)
    return {k: (first[k], among_five[k]) for k in ks}


def neighbors_of_other_groups(
    vectors: FloatArray, groups: IntArray, rows: IntArray, k: int
) -> tuple[FloatArray, IntArray]:
    """Return cosines and rows of the k nearest rows of other groups, nearest first, two arrays ``(Q, k)``.

    Args:
        vectors: float32 ``(N, D)``, unit rows.
        groups: int64 ``(N,)``; rows of the query's own group are not its neighbors (their cosine is -inf).
        rows: int64 ``(Q,)``, the rows that are queries.
        k: at most N.
    """
    scores, found = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), np.int64)
    for s in blocks(len(rows), max(1, _BLOCK_COSINES // len(vectors))):
        cosines = vectors[rows[s]] @ vectors.T
        cosines[groups[rows[s]][:, None] == groups] = -np.inf
        order = np.argsort(-np.round(cosines, _DIGITS), axis=1, kind="stable")[:, :k]
        scores[s], found[s] = np.take_along_axis(cosines, order, axis=1), order
    return scores, found

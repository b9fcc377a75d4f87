"""How much each given label agrees with out-of-fold probabilities, and which labels are likely wrong.

Northcutt, Jiang, Chuang: Confident learning, JAIR 70 (2021). The scores are those of Kuan and Mueller: Model-agnostic
label quality scoring to detect real-world label errors, ICML DataPerf workshop (2022).
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-6  # the least probability that a score divides by

Columns = NDArray[np.integer]


class LabelScore(StrEnum):
    """The score that ranks labels, the lowest first."""

    SELF_CONFIDENCE = "self_confidence"  # the probability of the given label
    NORMALIZED_MARGIN = "normalized_margin"  # ... minus that of the most probable other label
    WEIGHTED_ENTROPY = "weighted_entropy"  # self-confidence and how sure the head is at all
    NEIGHBORS = "neighbors"  # self-confidence of the mean of the head's probabilities and the votes of 20 neighbors


class LabelFilter(StrEnum):
    """Which labels are flagged as wrong."""

    CONFIDENT_LEARNING = "confident_learning"  # another label is confident
    PRUNE_BY_CLASS = "prune_by_class"  # the least self-confident of each class, as many as the joint expects
    PRUNE_BY_NOISE_RATE = "prune_by_noise_rate"  # those of the largest margin for each pair of labels, as many as ...
    BOTH = "both"  # by class and by noise rate


def label_scores(given: Columns, proba: NDArray[np.floating], score: LabelScore) -> NDArray[np.float64]:
    """Return the quality of each given label in [0, 1], float64 ``(N,)``; lower is worse.

    Args:
        given: ``(N,)``, the columns of the given labels.
        proba: ``(N, K)`` out of fold.
        score: which score.
    """
    proba = proba.astype(np.float64)
    own = proba[np.arange(len(given)), given]
    match score:
        case LabelScore.SELF_CONFIDENCE | LabelScore.NEIGHBORS:
            return np.asarray(own, dtype=np.float64)
        case LabelScore.NORMALIZED_MARGIN:
            return np.asarray((own - other_labels(given, proba).max(axis=1) + 1) / 2)
        case LabelScore.WEIGHTED_ENTROPY:
            p = np.clip(proba, np.finfo(np.float64).tiny, None)
            entropy = -(p * np.log(p)).sum(axis=1) / np.log(proba.shape[1])
            ratio = entropy / np.maximum(own, _TINY)
            return np.asarray(np.log1p(ratio) / np.maximum(ratio, _TINY))


def other_labels(given: Columns, proba: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probabilities with that of the given label as -1, float64 ``(N, K)``."""
    out = proba.astype(np.float64)
    out[np.arange(len(given)), given] = -1
    return out


def confident_joint(given: Columns, proba: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count given labels against confident labels.

    A class is confident for a row when its probability is at least the mean probability that the class gets from the
    rows labeled so; of several confident classes the most probable counts.

    Args:
        given: ``(N,)``, the columns of the given labels.
        proba: ``(N, K)`` out of fold.

    Returns:
        The confident class where it differs from the given one, else -1, int64 ``(N,)``; and the counts
        ``[given, confident]``, int64 ``(K, K)``.
    """
    k = proba.shape[1]
    threshold = np.array([proba[given == c, c].mean() if (given == c).any() else np.inf for c in range(k)])
    is_confident = proba >= threshold
    best = np.where(is_confident, proba, -1).argmax(1)
    has_confident = is_confident.any(1)
    joint = np.zeros((k, k), dtype=np.int64)
    np.add.at(joint, (given[has_confident], best[has_confident]), 1)
    return np.where(has_confident & (best != given), best, -1), joint


def calibrated_joint(joint: NDArray[np.int64], given: Columns) -> NDArray[np.float64]:
    """Return the joint with each row scaled to the number of rows labeled so, ``(K, K)``."""
    totals = np.bincount(given, minlength=len(joint)).astype(np.float64)
    sums = joint.sum(1, keepdims=True)
    scaled = np.divide(joint, sums, out=np.eye(len(joint)), where=sums > 0)
    return np.asarray(scaled * totals[:, None])


def flag_labels(given: Columns, proba: NDArray[np.floating], by: LabelFilter) -> NDArray[np.bool_]:
    """Return which given labels are likely wrong, bool ``(N,)``.

    A label that is the most probable one is never flagged.

    Args:
        given: ``(N,)``, the columns of the given labels.
        proba: ``(N, K)`` out of fold.
        by: how.
    """
    confident, joint = confident_joint(given, proba)
    match by:
        case LabelFilter.CONFIDENT_LEARNING:
            flagged = confident >= 0
        case LabelFilter.PRUNE_BY_CLASS:
            flagged = _prune_by_class(given, proba, _error_counts(joint, given))
        case LabelFilter.PRUNE_BY_NOISE_RATE:
            flagged = _prune_by_noise_rate(given, proba, _error_counts(joint, given))
        case LabelFilter.BOTH:
            counts = _error_counts(joint, given)
            flagged = _prune_by_class(given, proba, counts) & _prune_by_noise_rate(given, proba, counts)
    return np.asarray(flagged & (proba.argmax(axis=1) != given))


def _error_counts(joint: NDArray[np.int64], given: Columns) -> NDArray[np.int64]:
    """Return how many rows of each given label have each other label, int64 ``(K, K)`` with a zero diagonal.

    At least one row of every class is taken to be right.
    """
    counts = calibrated_joint(joint, given)
    np.fill_diagonal(counts, 0)
    most = np.maximum(np.bincount(given, minlength=len(joint)) - 1, 0)
    excess = np.maximum(counts.sum(axis=1) / np.maximum(most, 1), 1)
    return np.asarray(np.rint(counts / excess[:, None]), dtype=np.int64)


def _prune_by_class(given: Columns, proba: NDArray[np.floating], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Flag the rows of each class with the lowest probability of their label."""
    flagged = np.zeros(len(given), dtype=bool)
    for k, count in enumerate(counts.sum(axis=1).tolist()):
        rows = np.flatnonzero(given == k)
        flagged[rows[np.argsort(proba[rows, k], kind="stable")[:count]]] = True
    return flagged


def _prune_by_noise_rate(given: Columns, proba: NDArray[np.floating], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Flag the rows of each pair of labels with the largest margin of the other over the given one."""
    flagged = np.zeros(len(given), dtype=bool)
    for k, other in zip(*np.nonzero(counts), strict=True):
        rows = np.flatnonzero(given == k)
        margin = proba[rows, other] - proba[rows, k]
        flagged[rows[np.argsort(-margin, kind="stable")[: counts[k, other]]]] = True
    return flagged

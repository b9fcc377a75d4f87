"""Ranking metrics: area under the ROC curve and average precision, one class against the rest.

There are two ways to their bootstrap intervals. :func:`macro_average` recomputes every replicate, at rows x classes x
replicates. :func:`ranking_metrics` sorts each class once and also returns the influence function of each metric (for
the ROC area this is DeLong, DeLong and Clarke-Pearson 1988): a replicate is then one inner product with the rows'
counts (the infinitesimal jackknife, Efron 1982), at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RankingMetrics:
    """Ranking metrics of all classes from one sort of each.

    Attributes:
        auroc: float64 ``(K,)``, NaN for a class without both kinds of rows.
        average_precision: float64 ``(K,)``, NaN for a class without positives.
        auroc_influence: float64 ``(N,)``, the derivative of the mean over classes by each row's weight.
        average_precision_influence: float64 ``(N,)``, likewise.
    """

    auroc: FloatArray
    average_precision: FloatArray
    auroc_influence: FloatArray
    average_precision_influence: FloatArray

    @property
    def macro_auroc(self) -> float:
        """The mean over the classes that have one; NaN if none has."""
        return _mean(self.auroc)

    @property
    def macro_average_precision(self) -> float:
        """The mean over the classes that have one; NaN if none has."""
        return _mean(self.average_precision)


def ranking_metrics(true: Bools, proba: FloatArray) -> RankingMetrics:
    """Compute both metrics and their influence functions.

    Args:
        true: bool ``(N, K)``, the labels of each row.
        proba: scores ``(N, K)``.
    """
    n, k = proba.shape
    auroc, precision = np.full(k, np.nan), np.full(k, np.nan)
    auroc_influence, precision_influence = np.zeros(n), np.zeros(n)
    for c in range(k):
        positives = int(true[:, c].sum())
        if positives == 0:
            continue
        place, pos, neg = _score_groups(true[:, c], proba[:, c])
        kind = true[:, c].astype(np.intp)
        precision[c], influence = _average_precision_influence(pos, neg)
        precision_influence += influence[kind, place]
        if positives < n:
            auroc[c], influence = _auroc_influence(pos, neg)
            auroc_influence += influence[kind, place]
    defined = [max(int(np.isfinite(values).sum()), 1) for values in (auroc, precision)]
    return RankingMetrics(auroc, precision, auroc_influence / defined[0], precision_influence / defined[1])


def _mean(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def macro_average(
    metric: Callable[[Bools, FloatArray, FloatArray], FloatArray], true: Bools, proba: FloatArray, weights: FloatArray
) -> FloatArray:
    """Return the mean of a class metric over the classes that have one, ``(B,)``; NaN if none has.

    Args:
        metric: :func:`class_auroc` or :func:`class_average_precision`.
        true: bool ``(N, K)``, the labels of each row.
        proba: scores ``(N, K)``.
        weights: the weights of the rows, ``(B, N)``.
    """
    stacked = np.stack([metric(t, s, weights) for t, s in zip(true.T, proba.T, strict=True)])
    defined = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, stacked, 0).sum(0) / defined.sum(0))


def class_auroc(true: Bools, score: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the area under the ROC curve of one class, ``(B,)``; a tie counts half."""
    pos, neg = _steps(true, score, weights)
    above = np.cumsum(pos, axis=1, dtype=np.float64) - pos / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((above * neg).sum(1) / (pos.sum(1, dtype=np.float64) * neg.sum(1, dtype=np.float64)))


def class_average_precision(true: Bools, score: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the average precision of one class as a step sum, ``(B,)``."""
    pos, neg = _steps(true, score, weights)
    positives = np.cumsum(pos, axis=1, dtype=np.float64)
    total = positives + np.cumsum(neg, axis=1, dtype=np.float64)
    precision = np.divide(positives, total, out=np.zeros_like(positives), where=total > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((precision * pos).sum(1) / pos.sum(1, dtype=np.float64))


def _steps(true: Bools, score: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the positive and negative weight at each distinct score, highest first, two arrays ``(B, S)``."""
    order = np.argsort(-score, kind="stable")
    edges = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    ordered, positive = weights[:, order], true[order]
    return np.add.reduceat(ordered * positive, edges, axis=1), np.add.reduceat(ordered * ~positive, edges, axis=1)


def _score_groups(true: Bools, score: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Return each row's place among the distinct scores, highest first, and the positives and negatives of each."""
    order = np.argsort(-score, kind="stable")
    place: npt.NDArray[np.int64] = np.empty(len(score), np.int64)
    place[order] = np.cumsum(np.r_[False, np.diff(score[order]) != 0])
    total = np.bincount(place).astype(np.float64)
    pos: FloatArray = np.bincount(place, true.astype(np.float64), len(total)).astype(np.float64)
    return place, pos, total - pos


def _auroc_influence(pos: FloatArray, neg: FloatArray) -> tuple[float, FloatArray]:
    """Return the area, and how one more negative (first row) or positive (second row) at each place changes it."""
    p, n = pos.sum(), neg.sum()
    above = np.cumsum(pos) - pos / 2
    below = n - (np.cumsum(neg) - neg / 2)
    area = float((above * neg).sum() / (p * n))
    return area, np.stack([(above / p - area) / n, (below / n - area) / p])


def _average_precision_influence(pos: FloatArray, neg: FloatArray) -> tuple[float, FloatArray]:
    """Return the same for average precision: a row changes the precision at every positive at or below its place."""
    p, total = pos.sum(), np.cumsum(pos + neg)
    precision = np.cumsum(pos) / total
    average = float((precision * pos).sum() / p)
    gain = np.cumsum((pos / total)[::-1])[::-1]
    loss = np.cumsum((pos * precision / total)[::-1])[::-1]
    return average, np.stack([-loss, precision - average + gain - loss]) / p

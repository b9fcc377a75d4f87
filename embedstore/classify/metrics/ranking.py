"""Figures of an order: area under the ROC curve and average precision, one class against the rest.

Two ways lead to their bootstrap intervals. :func:`macro` counts every replicate anew, at rows x classes x replicates.
:func:`ranked` sorts each class once and gives, beside the figures, how much each row moves them (their influence
function; for the ROC area this is DeLong, DeLong and Clarke-Pearson 1988); a replicate is then one inner product with
the rows' counts (the infinitesimal jackknife, Efron 1982), at any size.
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
    """Figures of all classes from one sort of each.

    Attributes:
        area, precision: float64 ``(K,)``, NaN for a class without both kinds of rows (without positives).
        area_moves, precision_moves: float64 ``(N,)``: the derivative of the mean over classes by the row's weight.
    """

    auroc: FloatArray
    average_precision: FloatArray
    auroc_influence: FloatArray
    average_precision_influence: FloatArray

    @property
    def macro_auroc(self) -> float:
        """Over the classes that have one; NaN when none has."""
        return _mean(self.auroc)

    @property
    def macro_average_precision(self) -> float:
        """Over the classes that have one; NaN when none has."""
        return _mean(self.average_precision)


def ranking_metrics(true: Bools, proba: FloatArray) -> RankingMetrics:
    """Both figures and their influence functions.

    Args:
        true: bool ``(N, K)``. proba: ``(N, K)``.
    """
    n, k = proba.shape
    area, precision = np.full(k, np.nan), np.full(k, np.nan)
    moves: dict[str, FloatArray] = {"area": np.zeros(n), "precision": np.zeros(n)}
    for c in range(k):
        positives = int(true[:, c].sum())
        if positives == 0:
            continue
        group, pos, neg = _groups(true[:, c], proba[:, c])
        precision[c], by_precision = _precision_moves(pos, neg)
        moves["precision"] += by_precision[true[:, c].astype(np.intp), group]
        if positives < n:
            area[c], by_area = _area_moves(pos, neg)
            moves["area"] += by_area[true[:, c].astype(np.intp), group]
    known = [max(int(np.isfinite(a).sum()), 1) for a in (area, precision)]
    return RankingMetrics(area, precision, moves["area"] / known[0], moves["precision"] / known[1])


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def macro_average(
    metric: Callable[[Bools, FloatArray, FloatArray], FloatArray], true: Bools, proba: FloatArray, weights: FloatArray
) -> FloatArray:
    """Mean of :func:`area` or :func:`precision` over the classes that have one, NaN when none has: ``(B,)``."""
    stacked = np.stack([metric(t, s, weights) for t, s in zip(true.T, proba.T, strict=True)])
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, stacked, 0).sum(0) / known.sum(0))


def class_auroc(true: Bools, score: FloatArray, weights: FloatArray) -> FloatArray:
    """Area under the ROC curve of one class, a tie counting half: ``(B,)``."""
    pos, neg = _steps(true, score, weights)
    above = np.cumsum(pos, axis=1, dtype=np.float64) - pos / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((above * neg).sum(1) / (pos.sum(1, dtype=np.float64) * neg.sum(1, dtype=np.float64)))


def class_average_precision(true: Bools, score: FloatArray, weights: FloatArray) -> FloatArray:
    """Average precision of one class, as a step sum: ``(B,)``."""
    pos, neg = _steps(true, score, weights)
    found = np.cumsum(pos, axis=1, dtype=np.float64)
    seen = found + np.cumsum(neg, axis=1, dtype=np.float64)
    share = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((share * pos).sum(1) / pos.sum(1, dtype=np.float64))


def _steps(true: Bools, score: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Positive and negative weight at each distinct score, highest first: two ``(B, S)``."""
    order = np.argsort(-score, kind="stable")
    edges = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    ordered, positive = weights[:, order], true[order]
    return np.add.reduceat(ordered * positive, edges, axis=1), np.add.reduceat(ordered * ~positive, edges, axis=1)


def _groups(true: Bools, score: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """The place of each row among the distinct scores, highest first ``(N,)``; positives and negatives there."""
    order = np.argsort(-score, kind="stable")
    place: npt.NDArray[np.int64] = np.empty(len(score), np.int64)
    place[order] = np.cumsum(np.r_[False, np.diff(score[order]) != 0])
    total = np.bincount(place).astype(np.float64)
    pos: FloatArray = np.bincount(place, true.astype(np.float64), len(total)).astype(np.float64)
    return place, pos, total - pos


def _area_moves(pos: FloatArray, neg: FloatArray) -> tuple[float, FloatArray]:
    """The area, and how much one more negative (first row) or positive (second row) at each place moves it."""
    p, n = pos.sum(), neg.sum()
    above = np.cumsum(pos) - pos / 2
    below = n - (np.cumsum(neg) - neg / 2)
    found = float((above * neg).sum() / (p * n))
    return found, np.stack([(above / p - found) / n, (below / n - found) / p])


def _precision_moves(pos: FloatArray, neg: FloatArray) -> tuple[float, FloatArray]:
    """Average precision likewise: a row changes the precision at every positive at or below its place."""
    p, seen = pos.sum(), np.cumsum(pos + neg)
    share = np.cumsum(pos) / seen
    found = float((share * pos).sum() / p)
    gain = np.cumsum((pos / seen)[::-1])[::-1]
    loss = np.cumsum((pos * share / seen)[::-1])[::-1]
    return found, np.stack([-loss, share - found + gain - loss]) / p

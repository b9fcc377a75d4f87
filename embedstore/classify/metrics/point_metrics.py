"""The figures, each one function of weighted rows: weights of ones give the value, counts give its replicates."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.metrics import ranking
from embedstore.errors import LabelError

WeightedMetric = Callable[[IntArray, FloatArray, FloatArray], FloatArray]
"""``(y, proba (N, K), weights (B, N)) -> (B,)``."""

ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2


class MetricName(StrEnum):
    """The names under which figures are reported."""

    ACCURACY = "accuracy"
    TOP5_ACCURACY = "top5_accuracy"
    MEAN_PER_CLASS_RECALL = "mean_per_class_recall"
    MACRO_F1 = "macro_f1"
    LOG_LOSS = "log_loss"
    EXPECTED_CALIBRATION_ERROR = "expected_calibration_error"
    AUROC = "auroc_ovr_macro"
    AVERAGE_PRECISION = "average_precision_macro"


def accuracy(y: IntArray, proba: FloatArray) -> float:
    """Share of rows whose highest score is the true class.

    Args:
        y: true columns, int ``(N,)``.
        proba: scores ``(N, K)``.
    """
    return compute_metric(MetricName.ACCURACY, y, proba)


def top5_accuracy(y: IntArray, proba: FloatArray) -> float:
    """Share of rows whose true class is among the five highest scores."""
    return compute_metric(MetricName.TOP5_ACCURACY, y, proba)


def mean_per_class_recall(y: IntArray, proba: FloatArray) -> float:
    """Recall averaged over the classes that occur in ``y``: every class counts the same (balanced accuracy)."""
    return compute_metric(MetricName.MEAN_PER_CLASS_RECALL, y, proba)


def macro_f1(y: IntArray, proba: FloatArray) -> float:
    """F1 averaged over the classes that occur in ``y`` or are predicted."""
    return compute_metric(MetricName.MACRO_F1, y, proba)


def log_loss(y: IntArray, proba: FloatArray) -> float:
    """Mean negative natural logarithm of the true class's probability."""
    return compute_metric(MetricName.LOG_LOSS, y, proba)


def expected_calibration_error(y: IntArray, proba: FloatArray) -> float:
    """Mean distance of confidence and accuracy over 15 equal bins of confidence (Guo et al. 2017)."""
    return compute_metric(MetricName.EXPECTED_CALIBRATION_ERROR, y, proba)


def auroc(y: IntArray, proba: FloatArray) -> float:
    """Area under the ROC curve, one class against the rest, averaged over the classes that have both kinds of rows.

    ``y`` may also be an indicator matrix ``(N, K)`` for multi-label rows.
    """
    return compute_metric(MetricName.AUROC, y, proba)


def average_precision(y: IntArray, proba: FloatArray) -> float:
    """Area under the precision-recall curve as a step sum, averaged over the classes that occur.

    ``y`` may also be an indicator matrix ``(N, K)`` for multi-label rows.
    """
    return compute_metric(MetricName.AVERAGE_PRECISION, y, proba)


def compute_metric(metric: MetricName | str, y: IntArray, proba: FloatArray) -> float:
    """One metric on all rows.

    Args:
        metric: which one, by member or name.
        y: true columns, int ``(N,)``.
        proba: probabilities ``(N, K)``; for binary tasks both columns.

    Raises:
        LabelError: no rows, or a column that ``proba`` does not have.
    """
    y, proba = check_scores(y, proba)
    return float(WEIGHTED_METRICS[MetricName(metric)](y, proba, np.ones((1, len(y)), np.float32))[0])


def recall_at_k(scores: FloatArray, relevant: npt.NDArray[Any], k: int) -> float:
    """Share of queries that have a relevant row among their k highest scores; equal scores count in row order.

    Args:
        scores: ``(Q, N)``, higher is nearer.
        relevant: bool ``(Q, N)``, or int ``(Q,)``, the one relevant row.
        k: how many are looked at; all when there are fewer.
    """
    scores = np.asarray(scores)
    if relevant.ndim == 1:
        relevant = np.arange(scores.shape[1]) == relevant[:, None]
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(relevant, top, axis=1).any(axis=1).mean())


def confusion_matrix(y: IntArray, predicted: IntArray, n_classes: int) -> IntArray:
    """Counts ``[true, predicted]``, int64 ``(K, K)``."""
    return np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def check_scores(y: IntArray, proba: FloatArray) -> tuple[IntArray, FloatArray]:
    """Both as arrays that fit each other.

    Raises:
        LabelError: no rows, another number of them, or a column that ``proba`` does not have.
    """
    y, proba = np.asarray(y), np.asarray(proba)
    if proba.ndim != 2 or len(y) != len(proba):
        raise LabelError(f"expected one row of scores a label, found {len(y)} labels and scores {proba.shape}")
    if len(y) == 0:
        raise LabelError("no labelled rows to judge")
    if y.ndim == 1 and (y.min() < 0 or y.max() >= proba.shape[1]):
        raise LabelError(f"labels name columns {y.min()} to {y.max()} of {proba.shape[1]}")
    return y, proba


def class_indicators(y: IntArray, n_classes: int) -> npt.NDArray[np.bool_]:
    """True columns as bool ``(N, K)``; what is that already stays."""
    return y.astype(bool) if y.ndim == 2 else y[:, None] == np.arange(n_classes)


def _mean(per_row: FloatArray, weights: FloatArray) -> FloatArray:
    return np.asarray((weights @ per_row.astype(np.float64)) / weights.sum(axis=1, dtype=np.float64))


def _grouped(weights: FloatArray, group: IntArray, n_groups: int) -> FloatArray:
    """Weights summed by group: float64 ``(B, n_groups)``."""
    out = np.zeros((len(weights), n_groups))
    order = np.argsort(group, kind="stable")
    present, starts = np.unique(group[order], return_index=True)
    out[:, present] = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    return out


def _accuracy(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    return _mean(proba.argmax(1) == y, weights)


def _top5(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    true = np.take_along_axis(proba, y[:, None], axis=1)
    rank = (proba > true).sum(1) + ((proba == true) & (np.arange(proba.shape[1]) < y[:, None])).sum(1)
    return _mean(rank < 5, weights)


def _recall(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    support, _, hits = _tallies(y, proba, weights)
    return _macro(hits, support)


def _f1(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    support, predicted, hits = _tallies(y, proba, weights)
    return _macro(2 * hits, support + predicted)


def _tallies(y: IntArray, proba: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted true, predicted and rightly predicted rows of each class: three ``(B, K)``."""
    best, k = proba.argmax(1), proba.shape[1]
    right = np.where(best == y, y, k)  # one group more than classes gathers the misses
    return _grouped(weights, y, k), _grouped(weights, best, k), _grouped(weights, right, k + 1)[:, :k]


def _macro(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """Mean over classes of a ratio, without the classes whose denominator is zero."""
    there = bottom > 0
    ratio = np.divide(top, bottom, out=np.zeros_like(bottom), where=there)
    return np.asarray(ratio.sum(1) / np.maximum(there.sum(1), 1))


def _log_loss(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    true = np.take_along_axis(proba, y[:, None], axis=1)[:, 0].astype(np.float64)
    return _mean(-np.log(np.maximum(true, np.finfo(proba.dtype).eps)), weights)  # sklearn.metrics.log_loss clips so


def _ece(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    confidence = proba.max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = (proba.argmax(1) == y) - confidence
    return np.asarray(np.abs(_grouped(weights * gap, bins, ECE_BINS)).sum(1) / weights.sum(1))


def _auroc(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    return ranking.macro_average(ranking.class_auroc, class_indicators(y, proba.shape[1]), proba, weights)


def _average_precision(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    return ranking.macro_average(ranking.class_average_precision, class_indicators(y, proba.shape[1]), proba, weights)


WEIGHTED_METRICS: dict[MetricName, WeightedMetric] = {
    MetricName.ACCURACY: _accuracy,
    MetricName.TOP5_ACCURACY: _top5,
    MetricName.MEAN_PER_CLASS_RECALL: _recall,
    MetricName.MACRO_F1: _f1,
    MetricName.LOG_LOSS: _log_loss,
    MetricName.EXPECTED_CALIBRATION_ERROR: _ece,
    MetricName.AUROC: _auroc,
    MetricName.AVERAGE_PRECISION: _average_precision,
}

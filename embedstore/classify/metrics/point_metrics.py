"""Metrics as functions of weighted rows: weights of ones give the value, bootstrap counts give its replicates."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.metrics import ranking
from embedstore.errors import LabelError

WeightedMetric = Callable[[IntArray, FloatArray, FloatArray], FloatArray]
"""``(y, proba (N, K), weights (B, N)) -> (B,)``."""

_ROUNDING = 1e-4  # of probabilities in half precision
ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2


class MetricName(StrEnum):
    """The names under which metrics are reported.

    AUROC and average precision compare one class with the rest; multilabel rows have them too.
    """

    ACCURACY = "accuracy"  # share of rows whose highest score is the true class
    TOP5_ACCURACY = "top5_accuracy"  # share of rows whose true class is among the five highest scores
    MEAN_PER_CLASS_RECALL = "mean_per_class_recall"  # mean over the classes of y (balanced accuracy)
    MACRO_F1 = "macro_f1"  # mean over the classes that are in y or are predicted
    LOG_LOSS = "log_loss"  # mean negative natural logarithm of the true class's probability
    BRIER_SCORE = "brier_score"  # mean squared distance of the probabilities from 0 and 1, summed over classes; 0 to 2
    EXPECTED_CALIBRATION_ERROR = "expected_calibration_error"  # over 15 bins of confidence (Guo et al. 2017)
    AUROC = "auroc_ovr_macro"  # area under the ROC curve, mean over the classes with both kinds of rows
    AVERAGE_PRECISION = "average_precision_macro"  # step sum, mean over the classes of y


def compute_metric(metric: MetricName | str, y: IntArray, proba: FloatArray) -> float:
    """Return one metric on all rows.

    Args:
        metric: a member or its value.
        y: int ``(N,)``, the true columns; for a ranking metric also bool ``(N, K)``, the labels of each row.
        proba: probabilities ``(N, K)``; for binary tasks both columns.

    Raises:
        LabelError: if there are no rows, another number of scores, a column that ``proba`` does not have, or a score
            that is no finite number (for log-loss, Brier score and calibration error: no probability).
        ValueError: if there is no such metric.
    """
    y, proba = check_scores(y, proba)
    if MetricName(metric) in PROBABILITY_METRICS:
        check_probabilities(proba)
    return float(WEIGHTED_METRICS[MetricName(metric)](y, proba, np.ones((1, len(y)), np.float32))[0])


def confusion_matrix(y: IntArray, predicted: IntArray, n_classes: int) -> IntArray:
    """Return counts ``[true, predicted]``, int64 ``(K, K)``."""
    return np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def check_scores(y: IntArray, proba: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return both as arrays of fitting shapes.

    Raises:
        LabelError: if there are no rows, another number of scores, a column that ``proba`` does not have, or a score
            that is no finite number.
    """
    y, proba = np.asarray(y), np.asarray(proba)
    if proba.ndim != 2 or len(y) != len(proba):
        raise LabelError(f"expected one row of scores per label, found {len(y)} labels and scores {proba.shape}")
    if len(y) == 0:
        raise LabelError("there are no labeled rows to evaluate")
    if not np.isfinite(proba).all():
        bad = int((~np.isfinite(proba)).any(1).sum())
        raise LabelError(
            f"{bad} of {len(proba)} rows have scores that are not finite numbers, which cannot be evaluated; look at "
            "the options of the head, e.g. a temperature near 0"
        )
    if y.ndim == 1 and (y.min() < 0 or y.max() >= proba.shape[1]):
        raise LabelError(f"labels name columns {y.min()} to {y.max()}, but there are {proba.shape[1]}")
    return y, proba


def check_probabilities(proba: FloatArray) -> None:
    """Refuse scores that are not probabilities.

    Raises:
        LabelError: if a score is below 0 or above 1.
    """
    low, high = float(proba.min()), float(proba.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise LabelError(
            f"expected probabilities in [0, 1], found scores from {low:.4g} to {high:.4g}; calibrate the head, or "
            "evaluate its accuracy only"
        )


def class_indicators(y: IntArray, n_classes: int) -> npt.NDArray[np.bool_]:
    """Return the labels of each row, bool ``(N, K)``, from true columns ``(N,)`` or from such a matrix."""
    return y.astype(bool) if y.ndim == 2 else y[:, None] == np.arange(n_classes)


def _mean(per_row: FloatArray, weights: FloatArray) -> FloatArray:
    return np.asarray((weights @ per_row.astype(np.float64)) / weights.sum(axis=1, dtype=np.float64))


def _sum_by_group(weights: FloatArray, group: IntArray, n_groups: int) -> FloatArray:
    """Return the weights summed by group, float64 ``(B, n_groups)``."""
    out = np.zeros((len(weights), n_groups))
    order = np.argsort(group, kind="stable")
    present, starts = np.unique(group[order], return_index=True)
    out[:, present] = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    return out


def _accuracy(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    return _mean(np.asarray(proba.argmax(1) == y, np.float64), weights)


def top_five(y: IntArray, proba: FloatArray) -> npt.NDArray[np.bool_]:
    """Return whether the true class is among the five highest scores, bool ``(N,)``; of a tie the first columns win."""
    true = np.take_along_axis(proba, y[:, None], axis=1)
    rank = (proba > true).sum(1) + ((proba == true) & (np.arange(proba.shape[1]) < y[:, None])).sum(1)
    return np.asarray(rank < 5)


def _top5(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    return _mean(top_five(y, proba).astype(np.float64), weights)


def _recall(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    support, _, hits = _tallies(y, proba, weights)
    return _macro(hits, support)


def _f1(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    support, predicted, hits = _tallies(y, proba, weights)
    return _macro(2 * hits, support + predicted)


def _tallies(y: IntArray, proba: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the weights of each class's true, predicted and correctly predicted rows, three arrays ``(B, K)``."""
    best, k = proba.argmax(1), proba.shape[1]
    correct = np.where(best == y, y, k)  # an extra group collects the wrong rows
    return _sum_by_group(weights, y, k), _sum_by_group(weights, best, k), _sum_by_group(weights, correct, k + 1)[:, :k]


def _macro(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return the mean over classes of a ratio, without the classes whose denominator is zero."""
    defined = denominator > 0
    ratio = np.divide(numerator, denominator, out=np.zeros_like(denominator), where=defined)
    return np.asarray(ratio.sum(1) / np.maximum(defined.sum(1), 1))


def log_losses(y: IntArray, proba: FloatArray) -> FloatArray:
    """Return the log-loss of each row, float64 ``(N,)``, clipped as ``sklearn.metrics.log_loss`` does."""
    true = np.take_along_axis(proba, y[:, None], axis=1)[:, 0].astype(np.float64)
    return np.asarray(-np.log(np.maximum(true, np.finfo(proba.dtype).eps)))


def brier_losses(y: IntArray, proba: FloatArray) -> FloatArray:
    """Return the squared distance of each row's probabilities from 0 and 1, float64 ``(N,)`` (Brier 1950)."""
    true = np.take_along_axis(proba, y[:, None], axis=1)[:, 0].astype(np.float64)
    return np.asarray((proba.astype(np.float64) ** 2).sum(1) - 2 * true + 1)


def _log_loss(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    return _mean(log_losses(y, proba), weights)


def _brier_score(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    return _mean(brier_losses(y, proba), weights)


def _ece(y: IntArray, proba: FloatArray, weights: FloatArray) -> FloatArray:
    confidence = proba.max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = (proba.argmax(1) == y) - confidence
    return np.asarray(np.abs(_sum_by_group(weights * gap, bins, ECE_BINS)).sum(1) / weights.sum(1))


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
    MetricName.BRIER_SCORE: _brier_score,
    MetricName.EXPECTED_CALIBRATION_ERROR: _ece,
    MetricName.AUROC: _auroc,
    MetricName.AVERAGE_PRECISION: _average_precision,
}

ROW_LOSSES: dict[MetricName, Callable[[IntArray, FloatArray], FloatArray]] = {
    MetricName.LOG_LOSS: log_losses,
    MetricName.BRIER_SCORE: brier_losses,
}
"""Metrics that are the mean of a loss of each row."""
WORST_LOSS = {MetricName.LOG_LOSS: -math.log(np.finfo(np.float32).eps), MetricName.BRIER_SCORE: 2.0}
PROBABILITY_METRICS = (*ROW_LOSSES, MetricName.EXPECTED_CALIBRATION_ERROR)
"""Metrics of probabilities: a ranking or a margin has none."""

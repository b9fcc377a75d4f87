"""Figures of the held-out rows that count each row as often as its weight says."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.evaluation import HeldOutPredictions
from embedstore.classify.evaluation.regression.predictions import NumericPredictions
from embedstore.classify.metrics import MetricEstimate
from embedstore.classify.metrics.intervals import ScoredRows, loss_interval
from embedstore.classify.metrics.point_metrics import ROW_LOSSES
from embedstore.classify.metrics.report import share_estimate
from embedstore.classify.metrics.resampling import studentized_interval
from embedstore.classify.metrics.shares import WeightedRows
from embedstore.errors import BadOption, LabelError

WEIGHTED_ACCURACY, WEIGHTED_RECALL = "weighted_accuracy", "weighted_mean_per_class_recall"
WEIGHTED_MAE, WEIGHTED_RMSE = "weighted_mae", "weighted_rmse"


def weighted_metrics(rows: HeldOutPredictions | NumericPredictions, data: Features) -> dict[str, MetricEstimate]:
    """Return the figures of held-out rows that are weighted, by name.

    These are accuracy, mean recall, log-loss and Brier score, or of numbers the mean absolute and the root mean squared
    error; of several labels per item the accuracy.

    Args:
        rows: the predictions.
        data: the rows that were split, with their weights.

    Raises:
        BadOption: if the rows have no weights.
        LabelError: if every held-out row has the weight 0.
    """
    if data.weights is None:
        raise BadOption("weighted_metrics weighs the held-out items, and there are no weights: give weight, a column")
    weights = data.weights[np.searchsorted(data.ids, rows.ids)]
    kept = np.flatnonzero(weights > 0)
    if not len(kept):
        raise LabelError("every held-out item has the weight 0; leave out weighted_metrics")
    if isinstance(rows, NumericPredictions):
        return _of_numbers(rows, kept, weights[kept])
    return _of_classes(rows, kept, weights[kept])


def _of_numbers(
    rows: NumericPredictions, kept: NDArray[np.int64], weights: NDArray[np.float64]
) -> dict[str, MetricEstimate]:
    """Return the errors of predicted numbers over weighted rows."""
    errors, groups = np.abs(rows.y - rows.predicted)[kept], rows.groups[kept]
    squared = _weighted_mean(errors**2, weights, groups)
    roots = (math.sqrt(v) for v in (squared.value, squared.low, squared.high))
    return {WEIGHTED_MAE: _weighted_mean(errors, weights, groups), WEIGHTED_RMSE: MetricEstimate(*roots)}


def _of_classes(
    rows: HeldOutPredictions, kept: NDArray[np.int64], weights: NDArray[np.float64]
) -> dict[str, MetricEstimate]:
    """Return the figures of classes over weighted rows; of several labels per item only the accuracy."""
    correct, groups = rows.correct[kept].astype(np.float64), rows.groups[kept]
    one = WeightedRows(correct, weights / weights.sum(), np.zeros(len(kept), np.int64), groups)
    out = {WEIGHTED_ACCURACY: share_estimate(one)}
    if rows.multilabel:
        return out
    strata = np.unique(rows.y[kept].astype(str), return_inverse=True)[1]
    totals = np.bincount(strata, weights)
    out[WEIGHTED_RECALL] = share_estimate(
        WeightedRows(correct, weights / (len(totals) * totals[strata]), strata, groups)
    )
    if rows.has_probabilities:
        column = {name: k for k, name in enumerate(rows.classes)}
        codes = np.array([column[str(v)] for v in rows.y[kept].tolist()], dtype=np.int64)
        out |= _weighted_losses(ScoredRows(codes, rows.proba[kept], groups), weights)
    return out


def _weighted_losses(rows: ScoredRows, weights: NDArray[np.float64]) -> dict[str, MetricEstimate]:
    """Return log-loss and Brier score over weighted rows."""
    out = {}
    for metric, row_losses in ROW_LOSSES.items():
        losses = row_losses(rows.y, rows.proba)
        interval = loss_interval(metric, losses, rows, weights=weights)
        out[f"weighted_{metric.value}"] = MetricEstimate(float(np.average(losses, weights=weights)), *interval)
    return out


def _weighted_mean(
    errors: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.int64]
) -> MetricEstimate:
    """Return a weighted mean with its bootstrap-t interval over groups."""
    value = float(weights @ errors / weights.sum())
    return MetricEstimate(value, *studentized_interval(errors, groups, weights=weights))

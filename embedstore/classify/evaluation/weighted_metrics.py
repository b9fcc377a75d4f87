"""Figures of the held-out rows that count each row as often as its weight says."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.regression.evaluation import RegressionEvaluation
from embedstore.classify.metrics import MetricEstimate
from embedstore.classify.metrics.resampling import studentized_interval
from embedstore.classify.metrics.shares import WeightedRows, share_interval
from embedstore.errors import BadOption, LabelError

WEIGHTED_ACCURACY, WEIGHTED_MAE = "weighted_accuracy", "weighted_mae"
Result = TypeVar("Result", Evaluation, RegressionEvaluation)


def add_weighted_metrics(result: Result, data: Features) -> Result:
    """Return the evaluation with its accuracy (of numbers the mean absolute error) over weighted held-out rows.

    Args:
        result: the evaluation.
        data: the rows that were split, with their weights.

    Raises:
        BadOption: if the rows have no weights.
        LabelError: if every held-out row has the weight 0.
    """
    if data.weights is None:
        raise BadOption("weighted_metrics weighs the held-out items, and there are no weights: give weight, a column")
    held_out = result.held_out_predictions
    weights = data.weights[np.searchsorted(data.ids, held_out.ids)]
    kept = weights > 0
    if not kept.any():
        raise LabelError("every held-out item has the weight 0; leave out weighted_metrics")
    if isinstance(result, RegressionEvaluation):
        errors = np.abs(result.held_out_predictions.y - result.held_out_predictions.predicted)
        own = {WEIGHTED_MAE: _weighted_mean(errors[kept], weights[kept], held_out.groups[kept])}
    else:
        correct = result.held_out_predictions.correct
        own = {WEIGHTED_ACCURACY: _weighted_share(correct[kept], weights[kept], held_out.groups[kept])}
    return replace(result, report=replace(result.report, scores=result.report.scores | own))


def _weighted_share(
    correct: NDArray[np.bool_], weights: NDArray[np.float64], groups: NDArray[np.int64]
) -> MetricEstimate:
    """Return a weighted share with the interval of the independent draws that the weights leave (Kish 1965)."""
    shares = weights / weights.sum()
    rows = WeightedRows(correct.astype(np.float64), shares, np.zeros(len(shares), np.int64), groups)
    return MetricEstimate(min(1.0, float(shares @ correct)), *share_interval(rows))


def _weighted_mean(
    errors: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.int64]
) -> MetricEstimate:
    """Return a weighted mean with its bootstrap-t interval over groups."""
    value = float(weights @ errors / weights.sum())
    return MetricEstimate(value, *studentized_interval(errors, groups, weights=weights))

"""The result of evaluating a head that predicts numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embedstore.classify.data.split_leaks import SplitNearDuplicates
from embedstore.classify.data.task import Task
from embedstore.classify.evaluation.leaks import LeakedScore, leaked_score
from embedstore.classify.evaluation.regression.predictions import NumericError, NumericPredictions
from embedstore.classify.evaluation.regression.slice_report import NumericSliceReport
from embedstore.classify.metrics import MetricEstimate
from embedstore.classify.metrics.regression import NumericMetric, NumericReport
from embedstore.tables import Record, Table


@dataclass(frozen=True)
class IntervalReport:
    """What the prediction intervals promise, and what they did on the held-out rows.

    Attributes:
        target_coverage: the share of new numbers that an interval holds.
        coverage: the share of the held-out numbers in their interval, with its 95% interval.
        mean_width: the mean length of the intervals; None where they are unbounded.
        method: ``split`` (val rows), ``cv+`` (heads of folds of the training rows) or ``folds`` (one head for all).
        rows: rows that calibrated the intervals.
        groups: groups of these rows.
        groups_needed: groups that bounded intervals need.
    """

    target_coverage: float
    coverage: MetricEstimate
    mean_width: float | None
    method: str
    rows: int
    groups: int
    groups_needed: int


@dataclass(frozen=True)
class RegressionEvaluation(Table):
    """One head that predicts numbers, evaluated on one split; as a table, its metrics.

    Attributes:
        head: name of the head.
        label: the column that it predicts.
        space: name of the space.
        task: ``regression`` or ``ordinal``.
        split: the held-out side, as in :class:`embedstore.Evaluation`.
        n_train: training rows; with folds all rows.
        n_leaks: training rows left out because their content or group is held out.
        n_unlabeled: items left out because they have no label.
        n_unused_validation: items of the split ``val`` that were used for nothing.
        n_train_without_split: training items without a split of their own, where the held-out items have one.
        label_notes: what a person should know about the labels, one sentence each.
        split_notes: what a person should know about items on one side of the split, one sentence each.
        seed: the random seed of splits, folds and heads.
        estimator: the fitted regressor with its prediction intervals; after folds one more, fitted on all rows.
        held_out_predictions: true and predicted numbers of the held-out rows.
        report: metrics with 95% intervals, and the errors of the mean of the training rows.
        interval: the prediction intervals.
        hyperparameters: selected without the held-out rows, e.g. ``{"alpha": 0.1}``.
        grid_edges: those of them that are the first or the last value tried.
        near_duplicates: across the split; None where nothing was searched for.
        fold_errors: mean absolute error of each fold.
        seconds: the duration of fitting and evaluating.
        slices: the errors by the values of a column; None where none was given.
    """

    head: str
    label: str
    space: str
    task: Task
    split: str
    n_train: int
    n_leaks: int
    n_unlabeled: int
    n_unused_validation: int
    n_train_without_split: int
    label_notes: tuple[str, ...]
    split_notes: tuple[str, ...]
    seed: int
    estimator: Any = field(repr=False)
    held_out_predictions: NumericPredictions = field(repr=False)
    report: NumericReport
    interval: IntervalReport
    hyperparameters: dict[str, Any]
    grid_edges: dict[str, float]
    near_duplicates: SplitNearDuplicates | None
    fold_errors: tuple[float, ...]
    seconds: float
    slices: NumericSliceReport | None = None

    @property
    def n_held_out(self) -> int:
        """Return the number of held-out rows; with folds all rows."""
        return len(self.held_out_predictions)

    @property
    def main_metric(self) -> NumericMetric:
        """Return R squared, or quadratic kappa of an ordinal task."""
        return NumericMetric.QUADRATIC_KAPPA if self.task is Task.ORDINAL else NumericMetric.R2

    @property
    def scores(self) -> dict[str, MetricEstimate]:
        """Return every metric with its 95% interval, by metric name."""
        return self.report.scores

    @property
    def leak(self) -> LeakedScore | None:
        """Return the mean absolute error on held-out items with and without a near-duplicate in training, if any."""
        rows = self.held_out_predictions
        return leaked_score(self.near_duplicates, rows.ids, np.abs(rows.y - rows.predicted), NumericMetric.MAE.value)

    @property
    def largest_errors(self) -> list[NumericError]:
        """Return the largest errors first, at most 60."""
        return self.held_out_predictions.largest_errors

    def records(self) -> list[Record]:
        """Return one mapping per metric, with its 95% interval and the figure of the baseline."""
        return [
            {
                "metric": name,
                "value": s.value,
                "low": s.low,
                "high": s.high,
                "mean_baseline": self.report.baseline.get(name),
            }
            for name, s in self.scores.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table; main metric and hyper-parameters are on top."""
        report, leak = self.report.to_json(), self.leak
        return {
            "head": self.head,
            "label": self.label,
            "space": self.space,
            "leak": leak and leak.to_json(),
            "task": self.task.value,
            self.main_metric.value: report["scores"][self.main_metric.value]["value"],
            **self.hyperparameters,
            "grid_edges": self.grid_edges,
            "split": self.split,
            "train": self.n_train,
            "held_out": self.n_held_out,
            "seed": self.seed,
            "leaks_removed": self.n_leaks,
            "near_duplicates": self.near_duplicates and self.near_duplicates.to_json(),
            "unlabelled": self.n_unlabeled,
            "unused_validation": self.n_unused_validation,
            "train_without_split": self.n_train_without_split,
            "label_notes": list(self.label_notes),
            "split_notes": list(self.split_notes),
            "seconds": round(self.seconds, 3),
            "metrics": report["scores"],
            "mean_baseline": report["baseline"],
            "prediction_interval": _plain(asdict(self.interval)),
            "fold_mae": [round(error, 6) for error in self.fold_errors],
            **({"slices": self.slices.to_json()} if self.slices else {}),
            "largest_errors": [_plain(asdict(error)) for error in self.largest_errors],
        }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with None for numbers that are not finite."""
    return {
        name: _plain(v) if isinstance(v, dict) else None if isinstance(v, float) and not math.isfinite(v) else v
        for name, v in values.items()
    }

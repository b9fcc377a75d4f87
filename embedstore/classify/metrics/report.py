"""Every metric of a classifier on one set of rows, with intervals, confusion matrix and per-class table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.data.labels import encode_labels
from embedstore.classify.metrics.calibration_error import (
    CALIBRATION_ERROR,
    CalibrationError,
    ReliabilityBin,
    calibration_error,
)
from embedstore.classify.metrics.intervals import MIN_POSITIVES, NO_INTERVAL, ScoredRows, metric_intervals
from embedstore.classify.metrics.point_metrics import (
    PROBABILITY_METRICS,
    MetricName,
    check_probabilities,
    check_scores,
    class_indicators,
    compute_metric,
    confusion_matrix,
)
from embedstore.classify.metrics.ranking import RankingMetrics, ranking_metrics
from embedstore.classify.metrics.resampling import DEFAULT_REPLICATES
from embedstore.classify.metrics.shares import WeightedRows, accuracy_rows, share_interval

MIN_ECE_ROWS = 1000
"""Rows from which the expected calibration error is reported: with fewer its noise is as large as what it measures."""


@dataclass(frozen=True, slots=True)
class MetricEstimate:
    """A metric with its 95% interval.

    Attributes:
        value: the metric on all rows.
        low: lower end of the interval; NaN where no interval holds its level.
        high: upper end of the interval; NaN where no interval holds its level.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class of the per-class table.

    Attributes:
        name: the class.
        support: its true rows.
        predicted: its predicted rows.
        precision: share of the predicted rows that are true.
        recall: share of the true rows that are predicted.
        recall_low: lower end of the 95% interval of the recall.
        recall_high: upper end of the 95% interval of the recall.
        f1: harmonic mean of precision and recall.
        auroc: area under the ROC curve against the other classes.
        average_precision: average precision against the other classes.
    """

    name: str
    support: int
    predicted: int
    precision: float
    recall: float
    recall_low: float
    recall_high: float
    f1: float
    auroc: float
    average_precision: float


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """The metrics of a classifier on one set of rows.

    Attributes:
        rows: the number of rows.
        classes: the classes in the order of the columns.
        scores: the metrics by name.
        confusion: counts ``[true][predicted]``.
        per_class: the metrics of each class.
        reliability: accuracy by confidence; empty where the scores are no probabilities.
    """

    rows: int
    classes: tuple[str, ...]
    scores: dict[str, MetricEstimate]
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassMetrics, ...]
    reliability: tuple[ReliabilityBin, ...] = ()

    @property
    def rare_classes(self) -> tuple[str, ...]:
        """Return the classes on fewer than ten rows: their average precision and AUROC are little more than chance."""
        return tuple(c.name for c in self.per_class if 0 < c.support < MIN_POSITIVES)

    def __getitem__(self, name: str) -> float:
        """Return the value of a metric by its name."""
        return self.scores[str(name)].value

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; an undefined metric (NaN) is None."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


def classification_report(
    y_true: Sequence[Any] | npt.NDArray[Any],
    proba: FloatArray,
    classes: Sequence[Any] | npt.NDArray[Any],
    *,
    groups: IntArray | None = None,
    has_probabilities: bool = True,
    n_replicates: int = DEFAULT_REPLICATES,
) -> ClassificationReport:
    """Compute every metric with its interval, the confusion matrix and the per-class table.

    Args:
        y_true: labels ``(N,)``.
        proba: probabilities ``(N, K)``.
        classes: the K labels in the order of the columns.
        groups: int ``(N,)``; rows of one group are one draw. By default every row is one group.
        has_probabilities: False for scores that only rank: log-loss, Brier score and calibration error are left out.
        n_replicates: the number of replicates of the bootstrap.

    Raises:
        LabelError: if there are no rows, a label is not among the classes, or a score is not a finite number (with
            ``has_probabilities``: no probability).
    """
    y, proba = check_scores(encode_labels(y_true, classes), proba)
    rows = ScoredRows(y, proba, np.arange(len(y)) if groups is None else np.asarray(groups))
    names = tuple(str(c) for c in classes)
    confusion = confusion_matrix(y, proba.argmax(1), len(names))
    ranks = ranking_metrics(class_indicators(y, len(names)), proba)
    scores, reliability = _scores(rows, has_probabilities, n_replicates), None
    if has_probabilities:
        check_probabilities(proba)
        reliability = calibration_error(proba.max(1), rows.correct, rows.groups)
        scores[CALIBRATION_ERROR] = calibration_estimate(reliability)
    return ClassificationReport(
        rows=len(y),
        classes=names,
        scores=scores,
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        per_class=per_class_metrics(ranks, names, confusion, recall_intervals(rows)),
        reliability=reliability.bins if reliability else (),
    )


def share_estimate(rows: WeightedRows) -> MetricEstimate:
    """Return a weighted share with the interval of the independent draws that the weights leave (Kish 1965)."""
    return MetricEstimate(min(1.0, float(rows.weights @ rows.correct)), *share_interval(rows))


def accuracy_estimate(correct: npt.NDArray[np.bool_], groups: IntArray) -> MetricEstimate:
    """Return the share of correct rows, whose groups are one draw each, with its interval."""
    return MetricEstimate(float(correct.mean()), *share_interval(accuracy_rows(correct, groups)))


def calibration_estimate(error: CalibrationError) -> MetricEstimate:
    """Return the calibration error as a metric with its interval."""
    return MetricEstimate(error.value, error.low, error.high)


def recall_intervals(rows: ScoredRows) -> list[tuple[float, float]]:
    """Return the 95% interval of the recall of each class; NaN for a class without rows."""
    of_class = (np.flatnonzero(rows.y == k) for k in range(rows.proba.shape[1]))
    return [share_interval(accuracy_rows(rows.correct[i], rows.groups[i])) if len(i) else NO_INTERVAL for i in of_class]


def _scores(rows: ScoredRows, has_probabilities: bool, n_replicates: int) -> dict[str, MetricEstimate]:
    """Return the metrics that these scores have, with their intervals."""
    metrics = [m for m in MetricName if has_probabilities or m not in PROBABILITY_METRICS]
    if len(rows.y) < MIN_ECE_ROWS:
        metrics = [m for m in metrics if m is not MetricName.EXPECTED_CALIBRATION_ERROR]
    intervals = metric_intervals(metrics, rows, n_replicates=n_replicates)
    return {m.value: MetricEstimate(compute_metric(m, rows.y, rows.proba), *intervals[m]) for m in metrics}


def per_class_metrics(
    ranks: RankingMetrics, names: Sequence[str], confusion: IntArray, recalls: Sequence[tuple[float, float]]
) -> tuple[ClassMetrics, ...]:
    """Return the metrics of every class.

    Args:
        ranks: ranking metrics of all classes.
        names: the K classes.
        confusion: counts ``[true, predicted]``.
        recalls: the interval of each class's recall.
    """
    hits, support, predicted = np.diag(confusion).tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()
    return tuple(
        class_metrics(
            name,
            (hits[k], support[k], predicted[k]),
            recalls[k],
            auroc=float(ranks.auroc[k]),
            average_precision=float(ranks.average_precision[k]),
        )
        for k, name in enumerate(names)
    )


def class_metrics(
    name: str,
    counts: tuple[int, int, int],
    recall_interval: tuple[float, float],
    *,
    auroc: float,
    average_precision: float,
) -> ClassMetrics:
    """Return the metrics of one class.

    Args:
        name: the class.
        counts: its correctly predicted, true and predicted rows.
        recall_interval: the 95% interval of its recall.
        auroc: area under the ROC curve.
        average_precision: average precision.
    """
    hits, support, predicted = counts
    precision, recall, f1 = _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted)
    return ClassMetrics(name, support, predicted, precision, recall, *recall_interval, f1, auroc, average_precision)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _plain(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

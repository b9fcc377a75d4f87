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
from embedstore.classify.metrics.intervals import (
    BOOTSTRAP_BIASED,
    DEFAULT_REPLICATES,
    bootstrap_replicates,
    percentile_interval,
)
from embedstore.classify.metrics.point_metrics import (
    MetricName,
    check_scores,
    class_indicators,
    compute_metric,
    confusion_matrix,
)
from embedstore.classify.metrics.ranking import RankingMetrics, ranking_metrics


@dataclass(frozen=True, slots=True)
class MetricEstimate:
    """A metric with its 95% interval.

    Attributes:
        value: the metric on all rows.
        low: 2.5% quantile of the bootstrap replicates.
        high: 97.5% quantile of the bootstrap replicates.
        replicates: the number of replicates.
    """

    value: float
    low: float
    high: float
    replicates: int


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class of the per-class table. ``support`` counts its true rows, ``predicted`` its predicted ones."""

    name: str
    support: int
    predicted: int
    precision: float
    recall: float
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
    """

    rows: int
    classes: tuple[str, ...]
    scores: dict[str, MetricEstimate]
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassMetrics, ...]

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
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
) -> ClassificationReport:
    """Compute every metric with its interval, the confusion matrix and the per-class table.

    Args:
        y_true: labels ``(N,)``.
        proba: probabilities ``(N, K)``.
        classes: the K labels in the order of the columns.
        n_replicates: of the bootstrap.
        seed: random seed of the bootstrap.

    Raises:
        LabelError: if there are no rows, or a label is not among the classes.
    """
    y, proba = check_scores(encode_labels(y_true, classes), proba)
    names = tuple(str(c) for c in classes)
    confusion = confusion_matrix(y, proba.argmax(1), len(names))
    ranks = ranking_metrics(class_indicators(y, len(names)), proba)
    replicates = bootstrap_replicates(
        list(MetricName), y, [proba], n_replicates=n_replicates, seed=seed, rankings=[ranks]
    )
    values = {MetricName.AUROC: ranks.macro_auroc, MetricName.AVERAGE_PRECISION: ranks.macro_average_precision}
    values |= {m: compute_metric(m, y, proba) for m in MetricName if m not in values}
    return ClassificationReport(
        rows=len(y),
        classes=names,
        scores={m.value: _estimate(m, values[m], replicates[m][0]) for m in MetricName},
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        per_class=per_class_metrics(ranks, names, confusion),
    )


def _estimate(metric: MetricName, value: float, replicates: FloatArray) -> MetricEstimate:
    center = value if metric in BOOTSTRAP_BIASED and math.isfinite(value) else None
    return MetricEstimate(value, *percentile_interval(replicates, center=center), len(replicates))


def per_class_metrics(ranks: RankingMetrics, names: Sequence[str], confusion: IntArray) -> tuple[ClassMetrics, ...]:
    """Return the metrics of every class.

    Args:
        ranks: ranking metrics of all classes.
        names: the K classes.
        confusion: counts ``[true, predicted]``.
    """
    hits, support, predicted = np.diag(confusion).tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()
    return tuple(
        class_metrics(
            name, (hits[k], support[k], predicted[k]), float(ranks.auroc[k]), float(ranks.average_precision[k])
        )
        for k, name in enumerate(names)
    )


def class_metrics(name: str, counts: tuple[int, int, int], auroc: float, average_precision: float) -> ClassMetrics:
    """Return the metrics of one class.

    Args:
        name: the class.
        counts: its correctly predicted, true and predicted rows.
        auroc: area under the ROC curve.
        average_precision: average precision.
    """
    hits, support, predicted = counts
    precision, recall, f1 = _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted)
    return ClassMetrics(name, support, predicted, precision, recall, f1, auroc, average_precision)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _plain(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

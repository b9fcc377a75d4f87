"""Every figure of a classifier on one set of rows, with intervals, confusion matrix and per-class table."""

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
    """One figure with its 95% interval.

    Attributes:
        value: on all rows. low, high: 2.5% and 97.5% of the bootstrap replicates. replicates: how many there were.
    """

    value: float
    low: float
    high: float
    replicates: int


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class of the per-class table. ``support`` and ``predicted`` count rows."""

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
    """What is known of a classifier on one set of rows.

    Attributes:
        rows: how many were judged. classes: in the order of the columns.
        scores: by metric name. confusion: ``[true][predicted]`` counts. per_class: one row a class.
    """

    rows: int
    classes: tuple[str, ...]
    scores: dict[str, MetricEstimate]
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassMetrics, ...]

    def __getitem__(self, name: str) -> float:
        """The value of one metric by its name."""
        return self.scores[str(name)].value

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; a figure that does not exist (NaN) is None."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


def classification_report(
    y_true: Sequence[Any] | npt.NDArray[Any],
    proba: FloatArray,
    classes: Sequence[Any] | npt.NDArray[Any],
    *,
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
) -> ClassificationReport:
    """Every metric with its interval, the confusion matrix and the per-class table.

    Args:
        y_true: labels ``(N,)``.
        proba: probabilities ``(N, K)``.
        classes: the K labels in the order of the columns.
        n, seed: of the bootstrap.

    Raises:
        LabelError: no rows, or a label that is not among the classes.
    """
    y, proba = check_scores(encode_labels(y_true, classes), proba)
    names = tuple(str(c) for c in classes)
    confusion = confusion_matrix(y, proba.argmax(1), len(names))
    ranks = ranking_metrics(class_indicators(y, len(names)), proba)
    drawn = bootstrap_replicates(list(MetricName), y, [proba], n_replicates=n_replicates, seed=seed, rankings=[ranks])
    values = {MetricName.AUROC: ranks.macro_auroc, MetricName.AVERAGE_PRECISION: ranks.macro_average_precision}
    values |= {m: compute_metric(m, y, proba) for m in MetricName if m not in values}
    return ClassificationReport(
        rows=len(y),
        classes=names,
        scores={m.value: _score(m, values[m], drawn[m][0]) for m in MetricName},
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        per_class=per_class_metrics(ranks, names, confusion),
    )


def _score(metric: MetricName, value: float, drawn: FloatArray) -> MetricEstimate:
    centre = value if metric in BOOTSTRAP_BIASED and math.isfinite(value) else None
    return MetricEstimate(value, *percentile_interval(drawn, center=centre), len(drawn))


def per_class_metrics(ranks: RankingMetrics, names: Sequence[str], confusion: IntArray) -> tuple[ClassMetrics, ...]:
    """One row a class.

    Args:
        ranks: of all classes. names: ``(K,)``. confusion: counts ``[true, predicted]``.
    """
    hits, support, given = np.diag(confusion).tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()
    return tuple(
        class_metrics(name, (hits[k], support[k], given[k]), float(ranks.auroc[k]), float(ranks.average_precision[k]))
        for k, name in enumerate(names)
    )


def class_metrics(name: str, counts: tuple[int, int, int], auroc: float, average_precision: float) -> ClassMetrics:
    """A row from its hits, its true and its predicted rows."""
    hits, support, given = counts
    f1 = _ratio(2 * hits, support + given)
    return ClassMetrics(name, support, given, _ratio(hits, given), _ratio(hits, support), f1, auroc, average_precision)


def _ratio(top: int, bottom: int) -> float:
    return top / bottom if bottom else math.nan


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _plain(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

"""Every figure of a classifier on one set of rows, with intervals, confusion matrix and per-class table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.classify.data.labels import codes
from embedstore.classify.metrics.figures import Floats, Ints, Metric, checked, confusion_matrix, indicator, value
from embedstore.classify.metrics.intervals import REPLICATES, TOO_HIGH, interval, replicates
from embedstore.classify.metrics.ranking import Ranked, ranked


@dataclass(frozen=True, slots=True)
class Score:
    """One figure with its 95% interval.

    Attributes:
        value: on all rows. low, high: 2.5% and 97.5% of the bootstrap replicates. replicates: how many there were.
    """

    value: float
    low: float
    high: float
    replicates: int


@dataclass(frozen=True, slots=True)
class ClassRow:
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
class Report:
    """What is known of a classifier on one set of rows.

    Attributes:
        rows: how many were judged. classes: in the order of the columns.
        scores: by metric name. confusion: ``[true][predicted]`` counts. per_class: one row a class.
    """

    rows: int
    classes: tuple[str, ...]
    scores: dict[str, Score]
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassRow, ...]

    def __getitem__(self, name: str) -> float:
        """The value of one metric by its name."""
        return self.scores[str(name)].value

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; a figure that does not exist (NaN) is None."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


def report(
    y_true: Sequence[Any] | npt.NDArray[Any],
    proba: Floats,
    classes: Sequence[Any] | npt.NDArray[Any],
    *,
    n: int = REPLICATES,
    seed: int = 0,
) -> Report:
    """Every metric with its interval, the confusion matrix and the per-class table.

    Args:
        y_true: labels ``(N,)``.
        proba: probabilities ``(N, K)``.
        classes: the K labels in the order of the columns.
        n, seed: of the bootstrap.

    Raises:
        LabelError: no rows, or a label that is not among the classes.
    """
    y, proba = checked(codes(y_true, classes), proba)
    names = tuple(str(c) for c in classes)
    confusion = confusion_matrix(y, proba.argmax(1), len(names))
    ranks = ranked(indicator(y, len(names)), proba)
    drawn = replicates(list(Metric), y, [proba], n=n, seed=seed, ranks=[ranks])
    values = {Metric.AUROC: ranks.mean_area, Metric.AVERAGE_PRECISION: ranks.mean_precision}
    values |= {m: value(m, y, proba) for m in Metric if m not in values}
    return Report(
        rows=len(y),
        classes=names,
        scores={m.value: _score(m, values[m], drawn[m][0]) for m in Metric},
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        per_class=class_table(ranks, names, confusion),
    )


def _score(metric: Metric, value: float, drawn: Floats) -> Score:
    centre = value if metric in TOO_HIGH and math.isfinite(value) else None
    return Score(value, *interval(drawn, centre=centre), len(drawn))


def class_table(ranks: Ranked, names: Sequence[str], confusion: Ints) -> tuple[ClassRow, ...]:
    """One row a class.

    Args:
        ranks: of all classes. names: ``(K,)``. confusion: counts ``[true, predicted]``.
    """
    hits, support, given = np.diag(confusion).tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist()
    return tuple(
        class_row(name, (hits[k], support[k], given[k]), float(ranks.area[k]), float(ranks.precision[k]))
        for k, name in enumerate(names)
    )


def class_row(name: str, counted: tuple[int, int, int], area: float, precision: float) -> ClassRow:
    """A row from its hits, its true and its predicted rows."""
    hits, support, given = counted
    f1 = _ratio(2 * hits, support + given)
    return ClassRow(name, support, given, _ratio(hits, given), _ratio(hits, support), f1, area, precision)


def _ratio(top: int, bottom: int) -> float:
    return top / bottom if bottom else math.nan


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _plain(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

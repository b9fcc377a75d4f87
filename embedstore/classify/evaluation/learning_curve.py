"""How many labels are needed: accuracy over the number of labelled items a class."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data import splits
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation import fit, multilabel
from embedstore.classify.evaluation.holdout import EvaluationSettings, evaluation_splits
from embedstore.classify.evaluation.text_classifiers import sample_per_class
from embedstore.classify.metrics import MetricName
from embedstore.errors import BadHead, LabelError

DEFAULT_LABELS_PER_CLASS = (
    1,
    2,
    4,
    8,
    16,
)  # labels a class; "all" is always the last point. The field's few-shot protocol
DEFAULT_REPEATS = 5
SINGLE_EXAMPLE_C = 1.0  # with one example of a class nothing can choose C


@dataclass(frozen=True, slots=True)
class LearningCurvePoint:
    """One budget.

    Attributes:
        shots: labels a class, None for all. train: rows trained on. values: the curve's metric, one a seed.
        mean, spread: of them; the spread is the standard deviation, 0 for a single seed.
    """

    labels_per_class: int | None
    n_train: int
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        """Standard deviation over the seeds."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class LearningCurve:
    """A head's learning curve, judged on the same held-out rows throughout.

    Attributes:
        points: by budget; the last is all labels. skipped: budgets that the head cannot learn from, and why.
        metric: of the points: accuracy, or of several labels an item the mean average precision over the labels.
    """

    head: str
    label: str
    split: str
    n_held_out: int
    points: tuple[LearningCurvePoint, ...]
    seconds: float
    space: str = ""
    skipped_budgets: tuple[tuple[int, str], ...] = ()
    metric: str = MetricName.ACCURACY.value

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "head": self.head,
            "label": self.label,
            "space": self.space,
            "split": self.split,
            "held_out": self.n_held_out,
            "seconds": round(self.seconds, 3),
            "metric": self.metric,
            "skipped": [{"shots": shots, "reason": why} for shots, why in self.skipped_budgets],
            "points": [
                {
                    "shots": p.labels_per_class,
                    "train": p.n_train,
                    self.metric: p.mean,
                    "spread": p.std,
                    "values": list(p.values),
                }
                for p in self.points
            ],
        }


def learning_curve(
    head: str,
    data: Features,
    label: str,
    *,
    labels_per_class: Sequence[int] = DEFAULT_LABELS_PER_CLASS,
    repeats: int = DEFAULT_REPEATS,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> LearningCurve:
    """Fit on a few labels a class, drawn with several seeds, then on all of them.

    Args:
        head: by name. data: labelled rows. label: for the report.
        budgets: labels a class; those that no class can fill are left out.
        seeds: draws a budget. seed: of the split and of the first draw. options: of the head.

    Raises:
        LabelError: the labels cannot support it.
    """

    def one(rows: NDArray[np.int64], held: Features, draw: int) -> float:
        return _fitted_value(head, data.take(rows), held, draw, options)

    return learning_curve_from(one, head, data, label, labels_per_class=labels_per_class, repeats=repeats, seed=seed)


def learning_curve_from(
    score_rows: Callable[[NDArray[np.int64], Features, int], float],
    head: str,
    data: Features,
    label: str,
    *,
    labels_per_class: Sequence[int],
    repeats: int,
    seed: int,
) -> LearningCurve:
    """The same for anything that learns: ``judge_rows(training rows, held-out features, seed)`` is its figure."""
    begin = time.perf_counter()
    part = evaluation_splits(data, EvaluationSettings(seed=seed))[0]
    held = data.take(part.held_out)
    largest = _largest(data.y[part.train], multi=data.multilabel)
    wanted = sorted(set(labels_per_class))
    if wanted and wanted[0] < 1:
        raise LabelError(f"a budget is a number of labels a class, at least 1, not {wanted[0]}")
    points, skipped = [], [(b, f"no class has more than {largest} training items") for b in wanted if b >= largest]
    for shots in [b for b in wanted if b < largest]:
        draws = [sample_per_class(data, part.train, shots, seed + s) for s in range(repeats)]
        try:
            found = tuple(score_rows(rows, held, seed + s) for s, rows in enumerate(draws))
        except (LabelError, BadHead) as e:
            skipped.append((shots, str(e)))
            continue
        points.append(LearningCurvePoint(shots, len(draws[0]), found))
    points.append(LearningCurvePoint(None, len(part.train), (score_rows(part.train, held, seed),)))
    took = time.perf_counter() - begin
    metric = multilabel.LEARNING_CURVE_METRIC if data.multilabel else MetricName.ACCURACY
    return LearningCurve(
        head, label, part.name, len(held), tuple(points), took, skipped_budgets=tuple(skipped), metric=metric.value
    )


def _largest(y: NDArray[np.object_], *, multi: bool) -> int:
    """Rows of the class that has the most."""
    names = [label for row in y.tolist() for label in row] if multi else [str(label) for label in y.tolist()]
    return max(Counter(names).values(), default=0)


def _fitted_value(head: str, train: Features, held: Features, seed: int, options: dict[str, Any] | None) -> float:
    """How good a head is that was fitted on some rows; C is 1 where a class has one example only."""
    options = dict(options or {})
    if head == "logistic" and not train.multilabel and has_single_group_class(train):
        options["Cs"] = [SINGLE_EXAMPLE_C]
    estimator = fit.fit_head(head, train, seed=seed, options=options)
    proba = np.asarray(heads.probabilities(estimator, held.X))
    if train.multilabel:
        return _precision(proba, [str(c) for c in estimator.classes_], held)
    said = np.asarray(estimator.classes_)[proba.argmax(1)]
    return float((said == held.y).mean())


def _precision(proba: NDArray[np.float32], known: list[str], held: Features) -> float:
    """Mean average precision over all labels that are held out; one that was not drawn has probability 0."""
    names = sorted({*known, *(label for row in held.y.tolist() for label in row)})
    return multilabel.macro_average_precision(
        held.y, fit.align_columns(proba, np.array(known, dtype=object), names), names
    )


def has_single_group_class(train: Features) -> bool:
    """Some class lives in one group only."""
    return bool(splits.groups_per_class(train.y, train.groups)[1].min() < 2)

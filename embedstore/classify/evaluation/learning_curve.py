"""How many labels a head needs: its accuracy over the number of labels per class."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.data.sampling import first_of_each_picture, sample_per_class
from embedstore.classify.data.split_leaks import SplitNearDuplicates, split_near_duplicates
from embedstore.classify.data.splits import train_test_split
from embedstore.classify.evaluation import multilabel
from embedstore.classify.evaluation.curve_interval import HeldOutScore, bootstrap_error, mean_interval
from embedstore.classify.evaluation.fit import align_columns, fit_head
from embedstore.classify.evaluation.leaks import LeakedScore, leaked_score
from embedstore.classify.evaluation.rounds import predict_held_out
from embedstore.classify.evaluation.settings import check_seed
from embedstore.classify.metrics import MetricName
from embedstore.errors import BadHead, LabelError
from embedstore.tables import Record, Table
from embedstore.wording import counted

DEFAULT_LABELS_PER_CLASS = (1, 2, 4, 8, 16)  # the few-shot protocol of CoOp (Zhou et al. 2022)
DEFAULT_REPEATS = 5
_MAX_REPEATS = 1000
_MAX_BUDGETS = 100

ScoreRows = Callable[[Features, Features, int], HeldOutScore]
"""Fit on the training rows, whose groups hold near-duplicates together, with a seed; score the held-out rows."""


@dataclass(frozen=True)
class LearningCurveSettings:
    """Which label budgets a learning curve has.

    Attributes:
        labels_per_class: the budgets; all labels are always the last point.
        repeats: draws per budget, each with its own seed.
        seed: the random seed of the split and of the first draw.
        near_duplicates: how they are found; they count as one label, and stay on one side of every split.
    """

    labels_per_class: Sequence[int] = DEFAULT_LABELS_PER_CLASS
    repeats: int = DEFAULT_REPEATS
    seed: int = 0
    near_duplicates: NearDuplicateOptions = field(default_factory=NearDuplicateOptions)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if isinstance(self.repeats, bool) or not isinstance(self.repeats, int) or not 1 <= self.repeats <= _MAX_REPEATS:
            raise LabelError(f"repeats must be a whole number from 1 to {_MAX_REPEATS:,}, not {self.repeats!r}")
        if len(self.labels_per_class) > _MAX_BUDGETS:
            raise LabelError(
                f"a curve has at most {_MAX_BUDGETS} label budgets, not {len(self.labels_per_class)}; give fewer"
            )
        if self.labels_per_class and min(self.labels_per_class) < 1:
            raise LabelError(
                f"a label budget is a number of labels per class, at least 1, not {min(self.labels_per_class)}"
            )


@dataclass(frozen=True, slots=True)
class LearningCurvePoint:
    """The scores at one label budget.

    Attributes:
        labels_per_class: the budget; None for all labels.
        n_train: rows trained on.
        values: the curve's metric, one per draw.
        low: lower end of the 95% interval of the mean, over draws and held-out rows.
        high: upper end.
    """

    labels_per_class: int | None
    n_train: int
    values: tuple[float, ...]
    low: float
    high: float

    @property
    def mean(self) -> float:
        """Return the mean over the draws."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        """Return the standard deviation over the draws, 0 for a single draw."""
        return float(statistics.stdev(self.values)) if len(self.values) > 1 else 0.0  # exact: 0 for equal values


@dataclass(frozen=True)
class LearningCurve(Table):
    """A head's learning curve; all points are evaluated on the same held-out rows.

    Attributes:
        head: name of the head.
        label: the column that it predicts.
        space: name of the space.
        split: the held-out side, as in :class:`embedstore.classify.evaluation.Evaluation`.
        n_held_out: held-out rows.
        points: by budget; the last has all labels.
        seconds: the duration of all fits.
        skipped_budgets: budgets that the head cannot learn from, and why.
        notes: what was left out, and what a person should know about the labels, one sentence each.
        metric: accuracy, or with several labels per item the mean average precision over the labels.
        leak: the score with all labels, with and without the held-out rows that have a near-duplicate in training;
            None where none has one, or the labels are several per item.
    """

    head: str
    label: str
    space: str
    split: str
    n_held_out: int
    points: tuple[LearningCurvePoint, ...]
    seconds: float
    skipped_budgets: tuple[tuple[int, str], ...]
    notes: tuple[str, ...]
    metric: str
    leak: LeakedScore | None = None

    def records(self) -> list[Record]:
        """Return one mapping per label budget; ``labels_per_class`` is None for all labels."""
        return [
            {
                "labels_per_class": p.labels_per_class,
                "n_train": p.n_train,
                self.metric: p.mean,
                "low": p.low,
                "high": p.high,
                "std": p.std,
                "draws": len(p.values),
            }
            for p in self.points
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "head": self.head,
            "label": self.label,
            "space": self.space,
            "split": self.split,
            "held_out": self.n_held_out,
            "seconds": round(self.seconds, 3),
            "metric": self.metric,
            "leak": self.leak and self.leak.to_json(),
            "notes": list(self.notes),
            "skipped": [{"shots": budget, "reason": reason} for budget, reason in self.skipped_budgets],
            "points": [
                {
                    "shots": p.labels_per_class,
                    "train": p.n_train,
                    self.metric: p.mean,
                    "low": p.low,
                    "high": p.high,
                    "spread": p.std,
                    "values": list(p.values),
                }
                for p in self.points
            ],
        }


def learning_curve(
    head: str, data: Features, settings: LearningCurveSettings | None = None, **options: Any
) -> LearningCurve:
    """Fit a head on a few labels per class, drawn several times, then on all labels.

    Args:
        head: name of the head.
        data: labeled rows.
        settings: label budgets, draws and seed; budgets that no class can fill are skipped.
        options: the options of the head's constructor.

    Raises:
        LabelError: when the labels do not support the split or the head.
        UnknownHead: when no head has this name.
        BadHead: when an option is wrong.
    """

    def score(train: Features, held_out: Features, seed: int) -> HeldOutScore:
        return score_fitted(fit_head(head, train, seed=seed, options=options), held_out)

    return score_label_budgets(score, head, data, settings or LearningCurveSettings())


def score_label_budgets(
    score_rows: ScoreRows,
    head: str,
    data: Features,
    settings: LearningCurveSettings,
    *,
    classes: Sequence[str] | None = None,
) -> LearningCurve:
    """Build the learning curve of anything that learns from training rows.

    Args:
        score_rows: fits on training rows and scores the held-out features.
        head: name, for the report.
        data: labeled rows.
        settings: label budgets, draws and seed.
        classes: the labels that rows are drawn from; by default all.

    Raises:
        LabelError: when the labels do not support the split, or the fit on all labels.
    """
    start = time.perf_counter()
    data = settings.near_duplicates.join(data)
    split = train_test_split(data, seed=settings.seed)
    train, near = split_near_duplicates(data, split, drop=settings.near_duplicates.drops)
    split = replace(split, train=train)
    if classes is not None:
        split = replace(split, train=split.train[np.isin(data.y[split.train].astype(str), classes)])
    held_out, largest = data.take(split.held_out), _largest_class(data, split.train)
    points: list[LearningCurvePoint] = []
    budgets = sorted(set(settings.labels_per_class))
    skipped = [(b, f"no class has more than {counted(largest, 'training item')}") for b in budgets if b >= largest]
    seeds = range(settings.seed, settings.seed + settings.repeats)
    for budget in [b for b in budgets if b < largest]:
        draws = [sample_per_class(data, split.train, budget, seed) for seed in seeds]
        try:
            scores = [score_rows(data.take(rows), held_out, seed) for seed, rows in zip(seeds, draws, strict=True)]
        except (LabelError, BadHead) as e:
            skipped.append((budget, str(e)))
            continue
        points.append(_point(budget, len(draws[0]), scores, held_out))
    last = score_rows(data.take(split.train), held_out, settings.seed)
    points.append(_point(None, len(split.train), [last], held_out))
    return LearningCurve(
        head=head,
        label=data.label,
        space=data.space,
        split=split.name,
        n_held_out=len(held_out),
        points=tuple(points),
        seconds=time.perf_counter() - start,
        skipped_budgets=tuple(skipped),
        notes=data.notes,
        leak=_leak(near, held_out, last),
        metric=(multilabel.LEARNING_CURVE_METRIC if data.multilabel else MetricName.ACCURACY).value,
    )


def _leak(near: SplitNearDuplicates | None, held_out: Features, score: HeldOutScore) -> LeakedScore | None:
    """Return the accuracy with and without the held-out rows that have a near-duplicate in training."""
    if score.correct is None:
        return None
    return leaked_score(near, held_out.ids, score.correct, MetricName.ACCURACY.value)


def _point(budget: int | None, n_train: int, scores: list[HeldOutScore], held_out: Features) -> LearningCurvePoint:
    """Return the point of one label budget."""
    low, high = mean_interval(scores, held_out.groups)
    return LearningCurvePoint(budget, n_train, tuple(s.value for s in scores), low, high)


def score_fitted(estimator: Any, held_out: Features) -> HeldOutScore:
    """Return the accuracy of a fitted head; with several labels per item the mean average precision."""
    predictions = predict_held_out(estimator, held_out)
    if not held_out.multilabel:
        return HeldOutScore(float(predictions.correct.mean()), predictions.correct)
    names = sorted({*predictions.classes, *(label for row in held_out.y.tolist() for label in row)})
    proba = align_columns(predictions.proba, predictions.classes, names)

    def score(rows: NDArray[np.int64]) -> float:
        return multilabel.macro_average_precision(held_out.y[rows], proba[rows], names)

    return HeldOutScore(score(np.arange(len(proba))), standard_error=bootstrap_error(score, held_out.groups))


def _largest_class(data: Features, train: NDArray[np.int64]) -> int:
    """Return the number of training pictures of the largest class; copies count once."""
    pictures = data.y[train[first_of_each_picture(data, train)]].tolist()
    labels = [label for row in pictures for label in (row if data.multilabel else (row,))]
    return max(Counter(labels).values(), default=0)

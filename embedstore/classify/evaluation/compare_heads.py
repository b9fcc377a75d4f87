"""Compare spaces and heads on one split, with the significance of every difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import select_shared_items
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.few_shot_curve import few_shot_curve
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.learning_curve import LearningCurve, LearningCurveSettings, learning_curve
from embedstore.classify.evaluation.paired_comparison import ComparisonPower, pairwise_differences
from embedstore.classify.evaluation.settings import ChoiceRows, EvaluationSettings
from embedstore.classify.evaluation.text_classifiers import TEXT_HEADS, ZERO_SHOT, TextClasses, evaluate_text_head
from embedstore.classify.metrics import MetricDifference, MetricName
from embedstore.classify.metrics.simultaneous import PairwiseDifferences
from embedstore.errors import UnknownHead
from embedstore.tables import Record, Table

DEFAULT_HEADS = ("logistic", "knn", "prototype")
_HEADS_WITH_A_LIMIT = frozenset({"kernel", "tabpfn", "tabicl"})  # of rows: they refuse more, before they are fitted


@dataclass(frozen=True)
class SpaceCost:
    """What a space costs.

    Attributes:
        dim: the length of its vectors.
        bytes_per_item: the size in bytes of a vector on disk.
        images_per_second: the speed of the run that embedded the most images into it; None where none is known.
    """

    dim: int
    bytes_per_item: int
    images_per_second: float | None


@dataclass(frozen=True)
class ComparedHead:
    """One head in one space.

    Attributes:
        evaluation: its figures.
        cost: the cost of the space.
        learning_curve: over labels per class, where it was requested.
        accuracy_gap: accuracy of the best minus its own, with a 95% interval that holds for all pairs together; None
            for the best.
        p_value: the p-value of an exact test against the best, two-sided, with Holm's correction over all pairs.
        items_needed: held-out items that would show this gap in four of five cases; None for no gap.
    """

    evaluation: Evaluation
    cost: SpaceCost
    learning_curve: LearningCurve | None
    accuracy_gap: MetricDifference | None
    p_value: float | None
    items_needed: int | None

    def to_record(self) -> Record:
        """Return one flat row, without the metrics other than accuracy."""
        accuracy = self.evaluation.scores[MetricName.ACCURACY]
        return {
            "space": self.evaluation.space,
            "head": self.evaluation.head,
            "accuracy": accuracy.value,
            "low": accuracy.low,
            "high": accuracy.high,
            "accuracy_gap": self.accuracy_gap and self.accuracy_gap.value,
            "p_value": self.p_value,
            "items_needed": self.items_needed,
            "seconds": self.evaluation.seconds,
            **asdict(self.cost),
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        e, gap, leak = self.evaluation, self.accuracy_gap, self.evaluation.leak
        return {
            "space": e.space,
            "head": e.head,
            "accuracy": e.accuracy,
            **e.hyperparameters,
            "behind": gap and [gap.value, gap.low, gap.high],
            "p_value": self.p_value,
            "items_needed": self.items_needed,
            "seconds": round(e.seconds, 3),
            "dim": self.cost.dim,
            "bytes_per_item": self.cost.bytes_per_item,
            "images_per_second": self.cost.images_per_second,
            "near_duplicates": e.near_duplicates and e.near_duplicates.count,
            "leak": leak and leak.to_json(),
            "metrics": e.report.to_json()["scores"],
            "curve": self.learning_curve and self.learning_curve.to_json()["points"],
        }


@dataclass(frozen=True)
class HeadComparison(Table):
    """Heads in spaces, the best first, all evaluated on the same split.

    Attributes:
        label: the column.
        split: the held-out side, as in :class:`embedstore.classify.evaluation.Evaluation`.
        n_train: training rows.
        n_held_out: held-out rows.
        n_without_shared_vector: labeled items without a vector in one of the spaces, which are left out.
        results: one per space and head.
        power: what these held-out items can show; None for a single contestant.
    """

    label: str
    split: str
    n_train: int
    n_held_out: int
    n_without_shared_vector: int
    results: tuple[ComparedHead, ...]
    power: ComparisonPower | None

    def records(self) -> list[Record]:
        """Return one mapping per space and head, the best first."""
        return [r.to_record() for r in self.results]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "label": self.label,
            "split": self.split,
            "train": self.n_train,
            "held_out": self.n_held_out,
            "left_out": self.n_without_shared_vector,
            "power": self.power and self.power.to_json(),
            "contestants": [r.to_json() for r in self.results],
        }


def compare_heads(
    spaces: Sequence[tuple[Features, SpaceCost]],
    *,
    heads: Sequence[str] = DEFAULT_HEADS,
    settings: EvaluationSettings | None = None,
    labels_per_class: Sequence[int] = (),
    text_classes: Sequence[TextClasses] = (),
) -> HeadComparison:
    """Evaluate every head in every space on the items that all spaces share, on one split.

    Args:
        spaces: the features of each space, and its cost.
        heads: names of heads; also ``zero-shot`` and few-shot heads, which learn from all training items.
        settings: folds, seed, near-duplicates, calibration.
        labels_per_class: label budgets; with some, each head gets a learning curve, always on the train-test split.
        text_classes: the classes in words of each space, for zero-shot and few-shot heads.

    Raises:
        LabelError: when no item has a vector in all spaces, or the labels do not support the split.
        UnknownHead: when no head or no space is given, or a head has an unknown name.
        BadHead: when there are more rows than a head reads; no other head has been fitted then.
    """
    settings = settings or EvaluationSettings()
    if not heads or not spaces:
        raise UnknownHead("nothing to compare: name at least one head and one space that has vectors")
    shared = settings.near_duplicate_options.join_shared(select_shared_items([data for data, _ in spaces]))
    budgets = LearningCurveSettings(
        labels_per_class, seed=settings.seed, near_duplicates=settings.near_duplicate_options
    )
    words: list[TextClasses | None] = [*text_classes] or [None] * len(spaces)
    cells = [
        (_evaluate(head, data, settings, text), cost, _curve(head, data, budgets, text))
        for data, (_, cost), text in zip(shared, spaces, words, strict=True)
        for head in sorted(heads, key=lambda name: name not in _HEADS_WITH_A_LIMIT)
    ]
    cells.sort(key=lambda cell: _rank(cell[0]))
    evaluations = [e for e, _, _ in cells]
    best, pairs = evaluations[0], pairwise_differences(evaluations)
    return HeadComparison(
        label=best.label,
        split=best.split,
        n_train=best.n_train,
        n_held_out=best.n_held_out,
        n_without_shared_vector=len(np.unique(np.concatenate([data.ids for data, _ in spaces]))) - len(shared[0]),
        results=tuple(
            ComparedHead(evaluation, cost, curve, *_gap_to_best(pairs, place))
            for place, (evaluation, cost, curve) in enumerate(cells)
        ),
        power=ComparisonPower.of(pairs) if len(cells) > 1 else None,
    )


def _evaluate(head: str, data: Features, settings: EvaluationSettings, text: TextClasses | None) -> Evaluation:
    """Evaluate a head; one that is made from text needs the classes in words."""
    if head != "logistic":
        settings = replace(settings, choose_on=ChoiceRows.FOLDS.value)  # nothing but C is selected by it
    if head not in TEXT_HEADS:
        return evaluate_head(head, data, settings)
    if text is None:
        raise UnknownHead(f"{head} needs the classes in words; it is compared by Store.compare_heads")
    return evaluate_text_head(head, data, text, settings)


def _curve(head: str, data: Features, budgets: LearningCurveSettings, text: TextClasses | None) -> LearningCurve | None:
    """Return the learning curve of a head where budgets are given; zero-shot has none."""
    if not budgets.labels_per_class or head == ZERO_SHOT:
        return None
    if head in TEXT_HEADS and text is not None:
        return few_shot_curve(data, text, head=head, settings=budgets)
    return learning_curve(head, data, budgets)


def _rank(e: Evaluation) -> tuple[float, float]:
    """Rank by the highest accuracy, then by the lowest log-loss."""
    log_loss = e.scores.get(MetricName.LOG_LOSS)
    return -e.accuracy, log_loss.value if log_loss else 0.0


def _gap_to_best(pairs: PairwiseDifferences, place: int) -> tuple[MetricDifference | None, float | None, int | None]:
    """Return the accuracy gap to the first, its p-value, and how many items would show it; None each for the first."""
    if place == 0:
        return None, None, None
    gap = pairs.interval(0, place)
    return gap, float(pairs.p_values[0, place]), pairs.rows_needed(gap.value)

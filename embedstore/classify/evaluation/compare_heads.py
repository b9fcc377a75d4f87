"""Compare spaces and heads on one split, with the significance of every difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import select_shared_items
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.learning_curve import LearningCurve, LearningCurveSettings, learning_curve
from embedstore.classify.evaluation.paired_comparison import accuracy_difference
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.metrics import MetricDifference, MetricName
from embedstore.errors import UnknownHead
from embedstore.tables import Record, Table

DEFAULT_HEADS = ("logistic", "knn", "prototype")


@dataclass(frozen=True)
class SpaceCost:
    """What a space costs.

    Attributes:
        dim: of its vectors.
        bytes_per_item: of a vector on disk.
        images_per_second: of the run that embedded the most images into it; None where none is known.
    """

    dim: int
    bytes_per_item: int
    images_per_second: float | None


@dataclass(frozen=True)
class ComparedHead:
    """One head in one space.

    Attributes:
        evaluation: its figures.
        cost: of the space.
        learning_curve: over labels per class, where it was requested.
        accuracy_gap: accuracy of the best minus its own, with the paired bootstrap's 95% interval; None for the best.
        p_value: McNemar's exact test against the best, two-sided, Holm-corrected for the number of compared heads.
    """

    evaluation: Evaluation
    cost: SpaceCost
    learning_curve: LearningCurve | None
    accuracy_gap: MetricDifference | None
    p_value: float | None

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
            "seconds": self.evaluation.seconds,
            **asdict(self.cost),
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        e, gap = self.evaluation, self.accuracy_gap
        return {
            "space": e.space,
            "head": e.head,
            "accuracy": e.accuracy,
            **e.hyperparameters,
            "behind": gap and [gap.value, gap.low, gap.high],
            "p_value": self.p_value,
            "seconds": round(e.seconds, 3),
            "dim": self.cost.dim,
            "bytes_per_item": self.cost.bytes_per_item,
            "images_per_second": self.cost.images_per_second,
            "near_duplicates": e.near_duplicates and e.near_duplicates.count,
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
    """

    label: str
    split: str
    n_train: int
    n_held_out: int
    n_without_shared_vector: int
    results: tuple[ComparedHead, ...]

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
            "contestants": [r.to_json() for r in self.results],
        }


def compare_heads(
    spaces: Sequence[tuple[Features, SpaceCost]],
    *,
    heads: Sequence[str] = DEFAULT_HEADS,
    settings: EvaluationSettings | None = None,
    labels_per_class: Sequence[int] = (),
) -> HeadComparison:
    """Evaluate every head in every space on the items that all spaces share, on one split.

    Args:
        spaces: the features of each space, and its cost.
        heads: names of heads.
        settings: folds, seed, near-duplicates, calibration.
        labels_per_class: label budgets; with some, each head gets a learning curve, always on the train-test split.

    Raises:
        LabelError: when no item has a vector in all spaces, or the labels do not support the split.
        UnknownHead: when no head or no space is given, or a head has an unknown name.
    """
    settings = settings or EvaluationSettings()
    if not heads or not spaces:
        raise UnknownHead("nothing to compare: name at least one head and one space that has vectors")
    shared = settings.near_duplicate_options.join_shared(select_shared_items([data for data, _ in spaces]))
    budgets = LearningCurveSettings(labels_per_class, seed=settings.seed)
    cells = [
        (evaluate_head(head, data, settings), cost, learning_curve(head, data, budgets) if labels_per_class else None)
        for data, (_, cost) in zip(shared, spaces, strict=True)
        for head in heads
    ]
    cells.sort(key=lambda cell: _rank(cell[0]))
    evaluations = [e for e, _, _ in cells]
    best = evaluations[0]
    return HeadComparison(
        label=best.label,
        split=best.split,
        n_train=best.n_train,
        n_held_out=best.n_held_out,
        n_without_shared_vector=max(len(data) for data, _ in spaces) - len(shared[0]),
        results=tuple(
            ComparedHead(evaluation, cost, curve, gap, p_value)
            for (evaluation, cost, curve), (gap, p_value) in zip(cells, _gaps_to_best(evaluations), strict=True)
        ),
    )


def _rank(e: Evaluation) -> tuple[float, float]:
    """Rank by the highest accuracy, then by the lowest log-loss."""
    log_loss = e.scores.get(MetricName.LOG_LOSS)
    return -e.accuracy, log_loss.value if log_loss else 0.0


def _gaps_to_best(evaluations: list[Evaluation]) -> list[tuple[MetricDifference | None, float | None]]:
    """Return the accuracy gap to the first evaluation and its corrected p-value; nothing for the first itself."""
    best, *others = evaluations
    tests = [accuracy_difference(other, best) for other in others]
    p_values = holm_correction([mcnemar.p_value for _, mcnemar in tests])
    return [(None, None), *((gap, p) for (gap, _), p in zip(tests, p_values, strict=True))]


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that they hold for all tests together (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    out, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        out[i] = highest
    return out

"""Compare spaces and heads that predict numbers on the same held-out items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import select_shared_items
from embedstore.classify.evaluation.compare_heads import SpaceCost
from embedstore.classify.evaluation.regression.evaluation import RegressionEvaluation
from embedstore.classify.evaluation.regression.holdout import evaluate_numeric_head
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.metrics import MetricDifference
from embedstore.classify.metrics.error_gaps import paired_error_gaps
from embedstore.classify.metrics.regression import NumericMetric
from embedstore.errors import UnknownHead
from embedstore.tables import Record, Table

DEFAULT_HEADS = ("ridge", "knn")


@dataclass(frozen=True)
class ComparedRegression:
    """One head in one space.

    Attributes:
        evaluation: its figures.
        cost: the cost of the space.
        error_gap: its mean absolute error minus that of the best, with a 95% interval that holds for all pairs
            together; None for the best.
    """

    evaluation: RegressionEvaluation
    cost: SpaceCost
    error_gap: MetricDifference | None

    def to_record(self) -> Record:
        """Return one flat row."""
        e = self.evaluation
        mae, main = e.scores[NumericMetric.MAE], e.scores[e.main_metric]
        return {
            "space": e.space,
            "head": e.head,
            "mae": mae.value,
            "mae_low": mae.low,
            "mae_high": mae.high,
            e.main_metric.value: main.value,
            "error_gap": self.error_gap and self.error_gap.value,
            "gap_low": self.error_gap and self.error_gap.low,
            "gap_high": self.error_gap and self.error_gap.high,
            "seconds": e.seconds,
            **asdict(self.cost),
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        e, gap, leak = self.evaluation, self.error_gap, self.evaluation.leak
        return {
            "space": e.space,
            "head": e.head,
            "leak": leak and leak.to_json(),
            **e.hyperparameters,
            "metrics": e.report.to_json()["scores"],
            "mean_baseline": e.report.baseline,
            "behind": gap and [gap.value, gap.low, gap.high],
            "seconds": round(e.seconds, 3),
            "dim": self.cost.dim,
            "bytes_per_item": self.cost.bytes_per_item,
            "images_per_second": self.cost.images_per_second,
        }


@dataclass(frozen=True)
class RegressionComparison(Table):
    """Heads that predict numbers in spaces, the smallest error first, all evaluated on the same split.

    Attributes:
        label: the column.
        task: ``regression`` or ``ordinal``.
        split: the held-out side, as in :class:`embedstore.Evaluation`.
        n_train: training rows.
        n_held_out: held-out rows.
        n_without_shared_vector: labeled items without a vector in one of the spaces, which are left out.
        results: one per space and head.
    """

    label: str
    task: str
    split: str
    n_train: int
    n_held_out: int
    n_without_shared_vector: int
    results: tuple[ComparedRegression, ...]

    def records(self) -> list[Record]:
        """Return one mapping per space and head, the best first."""
        return [r.to_record() for r in self.results]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "label": self.label,
            "task": self.task,
            "split": self.split,
            "train": self.n_train,
            "held_out": self.n_held_out,
            "left_out": self.n_without_shared_vector,
            "contestants": [r.to_json() for r in self.results],
        }


def compare_numeric_heads(
    spaces: Sequence[tuple[Features, SpaceCost]], *, heads: Sequence[str], settings: EvaluationSettings
) -> RegressionComparison:
    """Evaluate every head in every space on the items that all spaces share, on one split.

    Args:
        spaces: the features of each space with their numbers, and its cost.
        heads: names of regressors.
        settings: folds, seed, near-duplicates.

    Raises:
        LabelError: when no item has a vector in all spaces, or the labels do not support the split.
        UnknownHead: when no head or no space is given, or a head predicts no numbers.
    """
    if not heads or not spaces:
        raise UnknownHead("nothing to compare: name at least one head and one space that has vectors")
    shared = settings.near_duplicate_options.join_shared(select_shared_items([data for data, _ in spaces]))
    cells = [
        (evaluate_numeric_head(head, data, settings), cost)
        for data, (_, cost) in zip(shared, spaces, strict=True)
        for head in heads
    ]
    cells.sort(key=lambda cell: cell[0].report[NumericMetric.MAE])
    rows = [e.held_out_predictions for e, _ in cells]
    gaps = paired_error_gaps(np.stack([np.abs(r.y - r.predicted) for r in rows]), rows[0].groups)
    best = cells[0][0]
    return RegressionComparison(
        label=best.label,
        task=best.task.value,
        split=best.split,
        n_train=best.n_train,
        n_held_out=best.n_held_out,
        n_without_shared_vector=len(np.unique(np.concatenate([data.ids for data, _ in spaces]))) - len(shared[0]),
        results=tuple(ComparedRegression(e, cost, gaps.get(place)) for place, (e, cost) in enumerate(cells)),
    )

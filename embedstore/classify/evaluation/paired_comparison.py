"""Compare classifiers on the same held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.metrics import McNemarResult, MetricDifference
from embedstore.classify.metrics.simultaneous import PairwiseDifferences, compare_all
from embedstore.errors import LabelError
from embedstore.tables import to_json_value
from embedstore.wording import counted


@dataclass(frozen=True, slots=True)
class ComparisonPower:
    """Which differences of accuracy the held-out items can show, at 5% for all pairs together and a power of 80%.

    Attributes:
        detectable_difference: the smallest true difference that is found in four of five cases.
        items_for_one_point: held-out items that would find a difference of one percentage point.
    """

    detectable_difference: float
    items_for_one_point: int

    @classmethod
    def of(cls, pairs: PairwiseDifferences) -> ComparisonPower:
        """Return the power of a comparison."""
        return cls(pairs.detectable_difference, pairs.rows_needed(0.01) or pairs.rows)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; the difference is None where a single item or group can show none."""
        return {name: to_json_value(value) for name, value in asdict(self).items()}


def pairwise_differences(evaluations: Sequence[Evaluation]) -> PairwiseDifferences:
    """Return the accuracy differences among all classifiers, which hold for all pairs together.

    Raises:
        LabelError: when two of them were evaluated on different items.
    """
    rows = [np.argsort(e.held_out_predictions.ids, kind="stable") for e in evaluations]
    ids = [e.held_out_predictions.ids[order] for e, order in zip(evaluations, rows, strict=True)]
    for e, items in zip(evaluations, ids, strict=True):
        if not np.array_equal(items, ids[0]):
            _refuse(evaluations[0], e)
    correct = [e.held_out_predictions.correct[order] for e, order in zip(evaluations, rows, strict=True)]
    return compare_all(correct, evaluations[0].held_out_predictions.groups[rows[0]])


def accuracy_difference(
    first: Evaluation, second: Evaluation
) -> tuple[MetricDifference, McNemarResult, ComparisonPower]:
    """Return the accuracy of the second minus the first, with significance.

    Args:
        first: a classifier, evaluated.
        second: another one, evaluated on the same items.

    Returns:
        The difference with its 95% interval, the exact test of the errors, and what the items can show. Items of one
        group are one draw.

    Raises:
        LabelError: when the two were evaluated on different items.
    """
    differences = pairwise_differences([first, second])
    correct, groups = zip(*(_correct_by_item(e) for e in (first, second)), strict=True)
    truth = np.ones(len(groups[0]), dtype=np.int64)
    test = metrics.mcnemar(truth, *(c.astype(np.int64) for c in correct), groups=groups[0])
    return differences.interval(1, 0), test, ComparisonPower.of(differences)


def _correct_by_item(e: Evaluation) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return whether each held-out item is predicted correctly, and its group, in ascending order of the items."""
    order = np.argsort(e.held_out_predictions.ids, kind="stable")
    return e.held_out_predictions.correct[order], e.held_out_predictions.groups[order]


def _refuse(first: Evaluation, second: Evaluation) -> None:
    raise LabelError(
        f"{first.head} in space {first.space} was evaluated on {counted(first.n_held_out, 'item')} and {second.head} "
        "in space "
        f"{second.space} on {counted(second.n_held_out, 'other item')}; embed the same items in both spaces"
    )

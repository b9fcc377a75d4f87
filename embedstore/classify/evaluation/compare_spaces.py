"""One space against another on the same held-out items: is the new one better, and is that luck?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.classify import metrics
from embedstore.classify.data import labels
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation import fit
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import EvaluationSettings, evaluate_head
from embedstore.classify.metrics import McNemarResult, MetricDifference, MetricName
from embedstore.errors import LabelError

DEFAULT_HEADS = ("logistic", "knn")


@dataclass(frozen=True)
class PairedEvaluation:
    """One way of classifying, in both spaces, on the same rows.

    Attributes:
        what: the head. old, new: how it did. gain: accuracy of the new minus the old, with the paired bootstrap's
            95% interval. test: McNemar's exact test.
    """

    name: str
    baseline: Evaluation
    candidate: Evaluation
    accuracy_gain: MetricDifference
    mcnemar: McNemarResult

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "what": self.name,
            "old": self.baseline.accuracy,
            "new": self.candidate.accuracy,
            "gain": self.accuracy_gain.value,
            "low": self.accuracy_gain.low,
            "high": self.accuracy_gain.high,
            "only_old_right": self.mcnemar.only_first_correct,
            "only_new_right": self.mcnemar.only_second_correct,
            "p_value": self.mcnemar.p_value,
            "old_metrics": self.baseline.report.to_json()["scores"],
            "new_metrics": self.candidate.report.to_json()["scores"],
            "seconds": [round(self.baseline.seconds, 3), round(self.candidate.seconds, 3)],
        }


@dataclass(frozen=True)
class SpaceComparison:
    """Two spaces side by side.

    Attributes:
        label: the column. old, new: names of the spaces. split, train, held: as in :class:`Evaluation`.
        pairs: one a way of classifying; the first is the probe.
        same: the new space gives the same vectors as the old one by its facts: the weights were not changed.
        cost: seconds and speeds, by name.
    """

    label: str
    baseline: str
    space: str
    split: str
    n_train: int
    n_held_out: int
    evaluations: tuple[PairedEvaluation, ...]
    has_same_vectors: bool
    cost: dict[str, float | None]

    @property
    def per_class(self) -> list[tuple[str, int, float, float]]:
        """``(class, held-out items, recall of the old probe, of the new)``, the largest change first."""
        new = {row.name: row.recall for row in self.evaluations[0].candidate.report.per_class}
        rows = [(r.name, r.support, r.recall, new[r.name]) for r in self.evaluations[0].baseline.report.per_class]
        return sorted(rows, key=lambda r: -abs(r[3] - r[2]) if r[1] else 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "label": self.label,
            "old": self.baseline,
            "new": self.space,
            "same_vectors": self.has_same_vectors,
            "split": self.split,
            "train": self.n_train,
            "held_out": self.n_held_out,
            "comparisons": [p.to_json() for p in self.evaluations],
            "per_class": [{"label": c, "items": n, "old": a, "new": b} for c, n, a, b in self.per_class],
            "cost": self.cost,
        }


def select_shared_items(baseline: Features, candidate: Features) -> tuple[Features, Features]:
    """The items that have a vector in both spaces.

    Raises:
        LabelError: there are none.
    """
    ids = np.intersect1d(baseline.ids, candidate.ids)
    if not len(ids):
        raise LabelError("no labelled item has a vector in both spaces; `embedstore reembed STORE` fills the new one")
    return baseline.take(np.flatnonzero(np.isin(baseline.ids, ids))), candidate.take(
        np.flatnonzero(np.isin(candidate.ids, ids))
    )


def evaluate_in_both_spaces(
    baseline: Features, candidate: Features, label: str, *, heads: tuple[str, ...] = DEFAULT_HEADS, seed: int = 0
) -> list[PairedEvaluation]:
    """The same heads fitted in either space, on one split of the same items.

    Args:
        old, new: of the same items, see :func:`shared`. label: the column. heads: by name. seed: of the split.
    """
    how = EvaluationSettings(seed=seed)
    return [
        pair_evaluations(head, evaluate_head(head, baseline, label, how), evaluate_head(head, candidate, label, how))
        for head in heads
    ]


def pair_evaluations(name: str, baseline: Evaluation, candidate: Evaluation) -> PairedEvaluation:
    """Two classifiers on the same rows.

    Raises:
        LabelError: the rows are not the same.
    """
    assert baseline.held_out_predictions is not None and candidate.held_out_predictions is not None  # noqa: S101, PT018 - judge keeps them
    if not np.array_equal(baseline.held_out_predictions.ids, candidate.held_out_predictions.ids):
        raise LabelError(f"{name} was judged on other items in one of the spaces")
    names = sorted({*baseline.held_out_predictions.classes, *candidate.held_out_predictions.classes})
    y = labels.encode_labels(baseline.held_out_predictions.y, names)
    before, after = (
        fit.align_columns(r.proba, np.array(r.classes, dtype=object), names)
        for r in (baseline.held_out_predictions, candidate.held_out_predictions)
    )
    gain = metrics.paired_bootstrap(MetricName.ACCURACY, y, before, after)
    return PairedEvaluation(name, baseline, candidate, gain, metrics.mcnemar(y, before.argmax(1), after.argmax(1)))

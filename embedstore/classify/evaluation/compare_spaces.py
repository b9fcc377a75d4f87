"""Compare two spaces on the same held-out items: the accuracy gain of the new one and its significance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from embedstore.classify.data.features import Features
from embedstore.classify.data.label_text import unlabeled_notes
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.paired_comparison import ComparisonPower, accuracy_difference
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.metrics import McNemarResult, MetricDifference
from embedstore.tables import Record, Table, to_json_value

DEFAULT_HEADS = ("logistic", "knn")


@dataclass(frozen=True)
class PairedEvaluation:
    """One classifier in both spaces, evaluated on the same rows.

    Attributes:
        name: the name of the classifier.
        baseline: its evaluation in the old space.
        candidate: its evaluation in the new space.
        accuracy_gain: accuracy of the candidate minus the baseline, with its 95% interval.
        mcnemar: an exact test whether both err equally often; without groups McNemar's.
        power: what the held-out items can show.
    """

    name: str
    baseline: Evaluation
    candidate: Evaluation
    accuracy_gain: MetricDifference
    mcnemar: McNemarResult
    power: ComparisonPower

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
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
            "power": self.power.to_json(),
            "old_metrics": self.baseline.report.to_json()["scores"],
            "new_metrics": self.candidate.report.to_json()["scores"],
            "seconds": [round(self.baseline.seconds, 3), round(self.candidate.seconds, 3)],
        }


@dataclass(frozen=True)
class SpaceComparisonCost:
    """What training took, and how fast both spaces embed; None where it is not recorded.

    Attributes:
        training_seconds: the duration of the training of the new space.
        old_images_per_second: the speed of embedding into the old space.
        new_images_per_second: the speed of embedding into the new space.
    """

    training_seconds: float | None
    old_images_per_second: float | None
    new_images_per_second: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class SpaceComparison(Table):
    """A space and a baseline space, evaluated on the same items.

    Attributes:
        label: the column.
        baseline: name of the old space.
        space: name of the new space.
        split: the held-out side, as in :class:`embedstore.classify.evaluation.Evaluation`.
        n_train: training rows.
        n_held_out: held-out rows.
        evaluations: one per classifier; the first is the probe.
        has_same_vectors: the spaces describe the same vectors, because no weight was changed.
        cost: what training took, and how fast both spaces embed.
    """

    label: str
    baseline: str
    space: str
    split: str
    n_train: int
    n_held_out: int
    evaluations: tuple[PairedEvaluation, ...]
    has_same_vectors: bool
    cost: SpaceComparisonCost

    @classmethod
    def from_evaluations(
        cls, evaluations: Sequence[PairedEvaluation], *, has_same_vectors: bool, cost: SpaceComparisonCost
    ) -> SpaceComparison:
        """Build the comparison of two spaces; the first evaluation gives label, spaces and split."""
        probe = evaluations[0]
        return cls(
            label=probe.baseline.label,
            baseline=probe.baseline.space,
            space=probe.candidate.space,
            split=probe.baseline.split,
            n_train=probe.baseline.n_train,
            n_held_out=probe.baseline.n_held_out,
            evaluations=tuple(evaluations),
            has_same_vectors=has_same_vectors,
            cost=cost,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was left out, and what a person should know about labels and split, one sentence each."""
        probes = self.evaluations[0].baseline, self.evaluations[0].candidate
        notes = ((*unlabeled_notes(e.n_unlabeled, e.label), *e.label_notes, *e.split_notes) for e in probes)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(notes)))

    @property
    def per_class(self) -> list[tuple[str, int, float, float]]:
        """Return ``(class, held-out items, recall of the old probe, of the new)``, the largest change first."""
        probe = self.evaluations[0]
        new = {c.name: c.recall for c in probe.candidate.report.per_class}
        rows = [(c.name, c.support, c.recall, new[c.name]) for c in probe.baseline.report.per_class]
        return sorted(rows, key=lambda r: -abs(r[3] - r[2]) if r[1] else 0.0)

    def records(self) -> list[Record]:
        """Return one mapping per classifier."""
        return [
            {
                "classifier": e.name,
                "baseline": e.baseline.accuracy,
                "candidate": e.candidate.accuracy,
                "accuracy_gain": e.accuracy_gain.value,
                "low": e.accuracy_gain.low,
                "high": e.accuracy_gain.high,
                "p_value": e.mcnemar.p_value,
            }
            for e in self.evaluations
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "label": self.label,
            "old": self.baseline,
            "new": self.space,
            "same_vectors": self.has_same_vectors,
            "split": self.split,
            "train": self.n_train,
            "held_out": self.n_held_out,
            "comparisons": [p.to_json() for p in self.evaluations],
            "per_class": [
                {"label": c, "items": n, "old": to_json_value(a), "new": to_json_value(b)}
                for c, n, a, b in self.per_class
            ],
            "cost": self.cost.to_json(),
            "notes": list(self.notes),
        }


def evaluate_in_both_spaces(
    baseline: Features, candidate: Features, *, heads: Sequence[str] = DEFAULT_HEADS, seed: int = 0
) -> list[PairedEvaluation]:
    """Evaluate heads in both spaces, on one split of the same items; near-duplicates in either are joined in both.

    Args:
        baseline: features of the shared items in the old space, see
            :func:`embedstore.classify.data.sampling.select_shared_items`.
        candidate: features of the same items in the new space.
        heads: names of heads.
        seed: the random seed of the split.

    Raises:
        LabelError: when the labels do not support the split or a head.
        UnknownHead: when a head has an unknown name.
    """
    settings = EvaluationSettings(seed=seed)
    baseline, candidate = settings.near_duplicate_options.join_shared([baseline, candidate])
    return [
        pair_evaluations(head, evaluate_head(head, baseline, settings), evaluate_head(head, candidate, settings))
        for head in heads
    ]


def pair_evaluations(name: str, baseline: Evaluation, candidate: Evaluation) -> PairedEvaluation:
    """Pair the evaluations of a classifier in both spaces.

    Raises:
        LabelError: when the two were evaluated on different items.
    """
    return PairedEvaluation(name, baseline, candidate, *accuracy_difference(baseline, candidate))

"""Which backbone, which head: all of them on one split, with the chance that a difference is luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import EvaluationSettings, evaluate_head
from embedstore.classify.evaluation.learning_curve import LearningCurve, learning_curve
from embedstore.classify.evaluation.multilabel import exact_match
from embedstore.classify.metrics import MetricDifference, MetricName
from embedstore.errors import LabelError, UnknownHead

DEFAULT_HEADS = ("logistic", "knn", "prototype")


@dataclass(frozen=True)
class ComparedHead:
    """One head in one space.

    Attributes:
        evaluation: how it did. dim: of its vectors. bytes_per_item: of a vector on disk.
        images_per_second: of the run that embedded the most images into its space; None where none is known.
        behind: accuracy of the best minus its own, with the paired bootstrap's 95% interval; None for the best.
        p_value: McNemar's exact test against the best, two-sided, Holm-corrected for the number of contestants.
        curve: over labels a class, where it was asked for.
    """

    evaluation: Evaluation
    dim: int
    bytes_per_item: int
    images_per_second: float | None
    accuracy_gap: MetricDifference | None = None
    p_value: float | None = None
    learning_curve: LearningCurve | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        e = self.evaluation
        return {
            "space": e.space,
            "head": e.head,
            "accuracy": e.accuracy,
            **e.hyperparameters,
            "behind": None
            if self.accuracy_gap is None
            else [self.accuracy_gap.value, self.accuracy_gap.low, self.accuracy_gap.high],
            "p_value": self.p_value,
            "seconds": round(e.seconds, 3),
            "dim": self.dim,
            "bytes_per_item": self.bytes_per_item,
            "images_per_second": self.images_per_second,
            "near_duplicates": e.near_duplicates and e.near_duplicates.count,
            "metrics": e.report.to_json()["scores"],
            "curve": self.learning_curve and self.learning_curve.to_json()["points"],
        }


@dataclass(frozen=True)
class HeadComparison:
    """Contestants, best first.

    Attributes:
        label: the column. split, train, held: as in :class:`Evaluation`, the same for all.
        left_out: labelled items without a vector in one of the spaces.
    """

    label: str
    split: str
    n_train: int
    n_held_out: int
    n_without_shared_vector: int
    results: tuple[ComparedHead, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "label": self.label,
            "split": self.split,
            "train": self.n_train,
            "held_out": self.n_held_out,
            "left_out": self.n_without_shared_vector,
            "contestants": [c.to_json() for c in self.results],
        }


@dataclass(frozen=True)
class SpaceCost:
    """What a space costs: bytes of a vector on disk, and how fast images were embedded into it."""

    bytes_per_item: int
    images_per_second: float | None


def compare_heads(
    spaces: Mapping[str, tuple[Features, SpaceCost]],
    label: str,
    *,
    heads: Sequence[str] = DEFAULT_HEADS,
    settings: EvaluationSettings | None = None,
    labels_per_class: Sequence[int] = (),
) -> HeadComparison:
    """Judge every head in every space on the items that all spaces hold, on one and the same split.

    Args:
        spaces: features and cost by name. label: the column. heads: by name. how: folds, seed, leaks.
        budgets: labels a class; with some, each contestant's learning curve too, on the split whatever ``how`` says.

    Raises:
        LabelError: no item is in all of them, or the labels cannot support it. UnknownHead: no heads, or another name.
    """
    settings = settings or EvaluationSettings()
    if not heads or not spaces:
        raise UnknownHead("nothing to compare: name at least one head and one space that has vectors")
    ids = sorted(set.intersection(*(set(data.ids.tolist()) for data, _ in spaces.values())))
    if not ids:
        raise LabelError(f"no labelled item has a vector in all of {', '.join(spaces)}; name fewer with --spaces")
    judged: list[ComparedHead] = []
    for name, (data, cost) in spaces.items():
        shared = data.take(np.flatnonzero(np.isin(data.ids, ids)))
        for head in heads:
            found = replace(evaluate_head(head, shared, label, settings), space=name)
            drawn = (
                learning_curve(head, shared, label, labels_per_class=labels_per_class, seed=settings.seed)
                if labels_per_class
                else None
            )
            judged.append(
                ComparedHead(
                    found, shared.X.shape[1], cost.bytes_per_item, cost.images_per_second, learning_curve=drawn
                )
            )
    ranked = sorted(judged, key=_rank)
    first = ranked[0].evaluation
    return HeadComparison(
        label=label,
        split=first.split,
        n_train=first.n_train,
        n_held_out=first.n_held_out,
        n_without_shared_vector=max(len(data) for data, _ in spaces.values()) - len(ids),
        results=_against_best(ranked),
    )


def _rank(c: ComparedHead) -> tuple[float, float]:
    """The highest accuracy first, then the lowest log-loss."""
    loss = c.evaluation.scores.get(MetricName.LOG_LOSS)
    return -c.evaluation.accuracy, loss.value if loss else 0.0


def _against_best(ranked: list[ComparedHead]) -> tuple[ComparedHead, ...]:
    """Differences to the first, on the same rows."""
    if len(ranked) < 2:
        return tuple(ranked)
    best = _right(ranked[0].evaluation)
    one = np.ones(len(best), dtype=np.int64)
    found: list[tuple[MetricDifference, float]] = []
    for c in ranked[1:]:
        own = _right(c.evaluation)
        p = metrics.mcnemar(one, best, own).p_value
        found.append((metrics.paired_bootstrap(MetricName.ACCURACY, one, _sides(own), _sides(best)), p))
    corrected = holm_correction([p for _, p in found])
    rest = [
        replace(c, accuracy_gap=difference, p_value=p)
        for c, (difference, _), p in zip(ranked[1:], found, corrected, strict=True)
    ]
    return (ranked[0], *rest)


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """P-values that hold for all of them together (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    out, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        out[i] = highest
    return out


def _right(e: Evaluation) -> NDArray[np.int64]:
    """1 for each held-out item that is right, else 0, in the order of the items, so that contestants line up."""
    assert e.held_out_predictions is not None  # noqa: S101 - judge keeps them
    if e.multilabel:
        right = exact_match(e.held_out_predictions.y, e.held_out_predictions.proba, e.held_out_predictions.classes)
    else:
        right = (
            np.array(e.held_out_predictions.classes, dtype=object)[e.held_out_predictions.proba.argmax(1)]
            == e.held_out_predictions.y
        )
    return right[np.argsort(e.held_out_predictions.ids)].astype(np.int64)


def _sides(right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores of "wrong" and "right": ``(M, 2)``."""
    return np.stack([1 - right, right], axis=1).astype(np.float64)

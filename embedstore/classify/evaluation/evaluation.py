"""The result of evaluating one head on one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.labels import LABEL_THRESHOLD, label_indicators
from embedstore.classify.data.split_leaks import SplitNearDuplicates
from embedstore.classify.evaluation.leaks import LeakedScore, leaked_score
from embedstore.classify.evaluation.multilabel import exact_match
from embedstore.classify.evaluation.protocol_report import ProtocolReport
from embedstore.classify.evaluation.slice_report import SliceReport
from embedstore.classify.evaluation.uncertainty import AbstentionEffect, CalibrationEffect, ConformalEffect
from embedstore.classify.metrics import ClassificationReport, MetricEstimate, MetricName
from embedstore.tables import Record, Table

MAX_MISTAKES = 60  # listed in a report


@dataclass(frozen=True, slots=True)
class Mistake:
    """A held-out item with a wrong prediction; ``score`` is the probability of the predicted label."""

    item: int
    true_label: str
    predicted_label: str
    score: float


@dataclass(frozen=True)
class HeldOutPredictions:
    """The predictions for all held-out rows, for comparisons and reports.

    Attributes:
        ids: int64 ``(M,)`` items.
        y: ``(M,)`` true labels; tuples of labels where ``multilabel``.
        proba: float32 ``(M, K)`` in the order of ``classes``.
        classes: the K labels.
        groups: int64 ``(M,)``; items of one group share a content or a declared group, and are one draw.
        multilabel: an item may have any number of labels.
        has_probabilities: False where ``proba`` only ranks the classes: votes, or margins that nothing calibrated.
    """

    ids: NDArray[np.int64]
    y: NDArray[np.object_]
    proba: NDArray[np.float32]
    classes: tuple[str, ...]
    groups: NDArray[np.int64]
    multilabel: bool = False
    has_probabilities: bool = True

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Return whether each row is predicted correctly, bool ``(M,)``; with several labels all must be."""
        return correct_rows(self.y, self.proba, self.classes, multilabel=self.multilabel)

    @property
    def most_confident_mistakes(self) -> list[Mistake]:
        """Return the most confident mistakes first, at most 60; of several labels the surest wrong one counts."""
        names, wrong = np.array(self.classes, dtype=object), np.flatnonzero(~self.correct)
        proba = self.proba[wrong]
        if self.multilabel:
            positive = proba >= LABEL_THRESHOLD
            is_wrong = positive != label_indicators(self.y[wrong], self.classes)
            score = np.where(is_wrong, np.maximum(proba, 1 - proba), 0).max(1, initial=0)
            predicted = [tuple(names[p]) for p in positive]
        else:
            score, predicted = proba.max(1, initial=0), names[proba.argmax(1)].tolist()
        order = np.lexsort((self.ids[wrong], -score))[:MAX_MISTAKES]
        return [
            Mistake(int(self.ids[wrong[i]]), _text(self.y[wrong[i]]), _text(predicted[i]), float(score[i]))
            for i in order.tolist()
        ]


@dataclass(frozen=True)
class Evaluation(Table):
    """One head, evaluated on one split; as a table, its metrics.

    Attributes:
        head: name of the head.
        label: the column that it predicts.
        space: name of the space.
        split: the held-out side: ``test``, ``val``, ``hash`` (a deterministic fifth), ``all`` (nothing was fitted) or
            ``5 folds`` (every item is held out once).
        n_train: training rows; with folds all rows.
        n_leaks: training rows left out because their content or group is held out.
        n_unlabeled: items left out because they have no label.
        n_unused_validation: items of the split ``val`` that were used for nothing, because ``test`` evaluates.
        n_train_without_split: training items without a split of their own, where the held-out items have one.
        label_notes: what a person should know about the labels, one sentence each.
        split_notes: what a person should know about items on one side of the split, one sentence each.
        seed: the random seed of splits, folds and heads.
        unlearned_classes: classes that only the held-out side has, or that have too few examples to learn from; their
            rows count as wrong.
        estimator: the fitted scikit-learn classifier; after folds one more, fitted on all rows.
        predictions: the predictions of the held-out rows.
        report: metrics with 95% intervals, confusion matrix and per-class table.
        hyperparameters: selected without the held-out rows, e.g. ``{"C": 0.1}``.
        grid_edges: those of them that are the first or the last value tried.
        c_path: ``(C, log-loss, accuracy)`` out of fold, for each C tried inside the training rows.
        near_duplicates: across the split; None where nothing was searched for.
        fold_accuracy: accuracy of each fold.
        calibration: the calibration method and its effect on the held-out rows.
        abstain: the threshold below which the head abstains, and its precision and coverage on the held-out rows.
        conformal: the threshold of the sets of classes, their coverage and size on the held-out rows.
        seconds: the duration of fitting and evaluating.
        slices: the figures by the values of a column; None where none was given.
        protocol: what the protocol of that name tried and selected; None where none was given.
    """

    head: str
    label: str
    space: str
    split: str
    n_train: int
    n_leaks: int
    n_unlabeled: int
    n_unused_validation: int
    n_train_without_split: int
    label_notes: tuple[str, ...]
    split_notes: tuple[str, ...]
    seed: int
    unlearned_classes: tuple[str, ...]
    estimator: Any = field(repr=False)
    held_out_predictions: HeldOutPredictions = field(repr=False)
    report: ClassificationReport
    hyperparameters: dict[str, Any]
    grid_edges: dict[str, float]
    c_path: tuple[tuple[float, float, float], ...]
    near_duplicates: SplitNearDuplicates | None
    fold_accuracy: tuple[float, ...]
    calibration: CalibrationEffect | None
    abstain: AbstentionEffect | None
    conformal: ConformalEffect | None
    seconds: float
    slices: SliceReport | None = None
    protocol: ProtocolReport | None = None

    @property
    def n_held_out(self) -> int:
        """Return the number of held-out rows; with folds all rows."""
        return len(self.held_out_predictions.ids)

    @property
    def multilabel(self) -> bool:
        """Return whether an item may have any number of labels."""
        return self.held_out_predictions.multilabel

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes that the head has learned."""
        return tuple(str(c) for c in self.estimator.classes_)

    @property
    def accuracy(self) -> float:
        """Return top-1 accuracy on the held-out rows; with several labels the share of rows whose labels all match."""
        return self.report["accuracy"]

    @property
    def scores(self) -> dict[str, MetricEstimate]:
        """Return every metric with its 95% interval, by metric name."""
        return self.report.scores

    @property
    def leak(self) -> LeakedScore | None:
        """Return the accuracy on held-out items with and without a near-duplicate in training, if any has one."""
        rows = self.held_out_predictions
        return leaked_score(self.near_duplicates, rows.ids, rows.correct, MetricName.ACCURACY.value)

    @property
    def label_thresholds(self) -> dict[str, float] | None:
        """Return the chosen threshold of each label, on the scale of its probability; None where all are one half."""
        thresholds = getattr(self.estimator, "thresholds_", None)
        if thresholds is None:
            return None
        return {name: round(float(t), 6) for name, t in zip(self.classes, thresholds, strict=True)}

    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Return the counts ``[true][predicted]`` in the order of ``report.classes``; empty for multilabel data."""
        return self.report.confusion

    @property
    def mistakes(self) -> list[Mistake]:
        """Return the most confident mistakes first, at most 60."""
        return self.held_out_predictions.most_confident_mistakes

    def records(self) -> list[Record]:
        """Return one mapping per metric, with its 95% interval."""
        return [
            {"metric": name, "value": s.value, "low": s.low, "high": s.high} for name, s in self.report.scores.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table; ``accuracy`` and the hyper-parameters are on top."""
        report, leak = self.report.to_json(), self.leak
        return {
            "head": self.head,
            "label": self.label,
            "space": self.space,
            "leak": leak and leak.to_json(),
            "accuracy": self.accuracy,
            **self.hyperparameters,
            "grid_edges": self.grid_edges,
            "split": self.split,
            "train": self.n_train,
            "held_out": self.n_held_out,
            "seed": self.seed,
            "multi_label": self.multilabel,
            "classes": list(self.classes),
            "unseen": list(self.unlearned_classes),
            "leaks_removed": self.n_leaks,
            "near_duplicates": self.near_duplicates and self.near_duplicates.to_json(),
            "unlabelled": self.n_unlabeled,
            "unused_validation": self.n_unused_validation,
            "train_without_split": self.n_train_without_split,
            "label_notes": list(self.label_notes),
            "split_notes": list(self.split_notes),
            "seconds": round(self.seconds, 3),
            "metrics": report["scores"],
            "fold_accuracy": [round(a, 6) for a in self.fold_accuracy],
            "calibration": self.calibration and self.calibration.to_json(),
            "abstain": self.abstain and self.abstain.to_json(),
            "conformal": self.conformal and self.conformal.to_json(),
            "label_thresholds": self.label_thresholds,
            "c_path": [{"C": c, "log_loss": loss, "accuracy": accuracy} for c, loss, accuracy in self.c_path],
            "confusion": report["confusion"],
            "per_class": report["per_class"],
            **({"slices": self.slices.to_json()} if self.slices else {}),
            **({"protocol": self.protocol.to_json()} if self.protocol else {}),
            "rare_classes": list(self.report.rare_classes),
            "reliability": report["reliability"],
            "mistakes": [
                {"item": m.item, "true": m.true_label, "predicted": m.predicted_label, "score": round(m.score, 6)}
                for m in self.mistakes
            ],
        }


def correct_rows(
    y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str], *, multilabel: bool = False
) -> NDArray[np.bool_]:
    """Return whether the most probable class, or with several labels the set of labels, is the true one.

    Args:
        y: ``(M,)`` true labels.
        proba: ``(M, K)`` probabilities.
        names: the K labels.
        multilabel: labels are tuples.

    Returns:
        bool ``(M,)``.
    """
    if multilabel:
        return exact_match(y, proba, names)
    predicted = np.array(names, dtype=object)[proba.argmax(1)]
    return np.asarray(predicted == y, dtype=bool)


def _text(label: str | tuple[str, ...]) -> str:
    """Return a label, or several labels joined by commas."""
    return (", ".join(label) or "no label") if isinstance(label, tuple) else str(label)

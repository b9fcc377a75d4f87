"""What is known of one head on one split."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.labels import LABEL_THRESHOLD, label_indicators
from embedstore.classify.data.near_duplicates import SplitNearDuplicates
from embedstore.classify.evaluation.multilabel import exact_match
from embedstore.classify.metrics import ClassificationReport, MetricEstimate, MetricName

MAX_CLASSES_WITHOUT_TOP5 = 5  # classes up to which top-5 accuracy is 1 by construction, and not shown
MAX_MISTAKES = 60  # in a report


@dataclass(frozen=True, slots=True)
class Mistake:
    """A held-out item that the head calls something else: ``score`` is what it gives to its own answer."""

    item: int
    true_label: str
    predicted_label: str
    score: float


@dataclass(frozen=True)
class HeldOutPredictions:
    """The judged rows, for comparisons and reports.

    Attributes:
        ids: int64 ``(M,)`` items. y: ``(M,)`` labels. proba: float32 ``(M, K)`` in the order of ``classes``.
    """

    ids: NDArray[np.int64]
    y: NDArray[np.object_]
    proba: NDArray[np.float32]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """One head on one split.

    Attributes:
        head, label: what was fitted, and on which column.
        split: the held-out side: ``test``, ``val``, ``hash`` (a deterministic fifth), ``all`` (nothing was fitted) or
            ``5 folds`` (every item is held out once).
        train, held: rows (with folds: of all). classes: of the training side. unseen: classes that only the held-out
            side has, or that have too few examples to learn from; their rows count as wrong.
        leaks: training rows left out because their content or group is held out.
        unlabelled: items left out for want of a label.
        report: metrics with 95% intervals, confusion matrix, per-class table.
        chosen: what was selected without the held-out rows, e.g. ``{"C": 0.1}``.
        seconds: fitting and judging. estimator: the fitted scikit-learn classifier; after folds one more, fitted on
            every row.
        near: near-duplicates across the split. fold_accuracy: of each fold.
        path: ``(C, log-loss, accuracy)`` out of fold, for each C tried inside the training rows.
        calibration, abstain, conformal: what was asked for and what came of it on the held-out rows.
        rows: the judged rows. space: the name of the space. seed: of splits, folds and heads.
    """

    head: str
    label: str
    split: str
    n_train: int
    n_held_out: int
    classes: tuple[str, ...]
    unlearned_classes: tuple[str, ...]
    n_leaks: int
    n_unlabeled: int
    report: ClassificationReport
    hyperparameters: dict[str, Any]
    seconds: float
    estimator: Any = field(repr=False)
    near_duplicates: SplitNearDuplicates | None = None
    fold_accuracy: tuple[float, ...] = ()
    c_path: tuple[tuple[float, float, float], ...] = ()
    calibration: dict[str, Any] | None = None
    abstain: dict[str, Any] | None = None
    conformal: dict[str, Any] | None = None
    held_out_predictions: HeldOutPredictions | None = field(default=None, repr=False)
    space: str = ""
    seed: int = 0
    multilabel: bool = False

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy on the held-out rows; with several labels an item, the share whose labels are all right."""
        return self.report["accuracy"]

    @property
    def scores(self) -> dict[str, MetricEstimate]:
        """Return every metric with its 95% interval, by metric name."""
        return self.report.scores

    @property
    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Return the counts ``[true][predicted]`` in the order of ``report.classes``; empty for multilabel data."""
        return self.report.confusion

    @property
    def mistakes(self) -> list[Mistake]:
        """The most confident mistakes first, at most 60.

        Of several labels an item: those with a label too many or too few, by how sure the head was of the worst one.
        """
        if self.held_out_predictions is None:
            return []
        wrong, said, score = (
            _several(self.held_out_predictions) if self.multilabel else _single(self.held_out_predictions)
        )
        order = wrong[np.lexsort((self.held_out_predictions.ids[wrong], -score[wrong]))][:MAX_MISTAKES]
        return [
            Mistake(
                int(self.held_out_predictions.ids[i]),
                _named(self.held_out_predictions.y[i]),
                _named(said[i]),
                float(score[i]),
            )
            for i in order.tolist()
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``accuracy`` stands at the top, everything else by name."""
        report = self.report.to_json()
        return {
            "head": self.head,
            "label": self.label,
            "space": self.space,
            "accuracy": self.accuracy,
            **self.hyperparameters,
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
            "seconds": round(self.seconds, 3),
            "metrics": report["scores"],
            "fold_accuracy": [round(a, 6) for a in self.fold_accuracy],
            "calibration": self.calibration,
            "abstain": self.abstain,
            "conformal": self.conformal,
            "c_path": [{"C": c, "log_loss": loss, "accuracy": right} for c, loss, right in self.c_path],
            "confusion": report["confusion"],
            "per_class": report["per_class"],
            "mistakes": [
                {"item": m.item, "true": m.true_label, "predicted": m.predicted_label, "score": round(m.score, 6)}
                for m in self.mistakes
            ],
        }


def _single(rows: HeldOutPredictions) -> tuple[NDArray[np.int64], NDArray[np.object_], NDArray[np.float32]]:
    """Which rows are wrong, what the head says of every row, and its probability."""
    best = rows.proba.argmax(1)
    said = np.array(rows.classes, dtype=object)[best]
    return np.flatnonzero(said != rows.y), said, rows.proba[np.arange(len(best)), best]


def _several(rows: HeldOutPredictions) -> tuple[NDArray[np.int64], list[tuple[str, ...]], NDArray[np.float32]]:
    """The same for several labels an item; the score is that of the surest wrong decision."""
    given, true = rows.proba >= LABEL_THRESHOLD, label_indicators(rows.y, rows.classes)
    names = np.array(rows.classes, dtype=object)
    sure = np.where(given != true, np.maximum(rows.proba, 1 - rows.proba), 0)
    wrong = np.flatnonzero(~exact_match(rows.y, rows.proba, rows.classes))
    return wrong, [tuple(names[g]) for g in given], sure.max(1)


def _named(label: Any) -> str:
    """A label, or several."""
    return (", ".join(label) or "no label") if isinstance(label, tuple) else str(label)


def drop_trivial_top5(report: ClassificationReport) -> ClassificationReport:
    """Without top-5 accuracy where it says nothing."""
    if len(report.classes) > MAX_CLASSES_WITHOUT_TOP5:
        return report
    return replace(report, scores={name: s for name, s in report.scores.items() if name != MetricName.TOP5_ACCURACY})

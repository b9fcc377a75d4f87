"""Fit a head on one side of a leak-proof split, judge it on the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore import heads, metrics, splits
from embedstore.errors import LabelError
from embedstore.features import Features
from embedstore.metrics import Report


@dataclass(frozen=True)
class Evaluation:
    """One head on one split.

    Attributes:
        head, label: what was fitted, and on which column.
        split: the held-out side: ``test``, ``val``, ``hash`` (a deterministic fifth) or ``all`` (nothing was fitted).
        train, held: rows. classes: of the training side. unseen: classes that only the held-out side has; their
            rows count as wrong.
        leaks: training rows left out because their content or group is held out.
        unlabelled: items left out for want of a label.
        report: metrics with 95% intervals, confusion matrix, per-class table.
        chosen: what was selected without the held-out rows, e.g. ``{"C": 0.1}``.
        seconds: fitting and judging. estimator: the fitted scikit-learn classifier.
    """

    head: str
    label: str
    split: str
    train: int
    held: int
    classes: tuple[str, ...]
    unseen: tuple[str, ...]
    leaks: int
    unlabelled: int
    report: Report
    chosen: dict[str, Any]
    seconds: float
    estimator: Any = field(repr=False)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy on the held-out rows."""
        return self.report["accuracy"]

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``accuracy`` stands at the top, everything else by name."""
        report = self.report.to_json()
        return {
            "head": self.head,
            "label": self.label,
            "accuracy": self.accuracy,
            **self.chosen,
            "split": self.split,
            "train": self.train,
            "held_out": self.held,
            "classes": list(self.classes),
            "unseen": list(self.unseen),
            "leaks_removed": self.leaks,
            "unlabelled": self.unlabelled,
            "seconds": round(self.seconds, 3),
            "metrics": report["scores"],
            "confusion": report["confusion"],
            "per_class": report["per_class"],
        }


def judge(head: str, data: Features, label: str, **options: Any) -> Evaluation:
    """Fit a head by name and judge it on the held-out side.

    Args:
        head: ``logistic``, ``knn`` or another of :data:`embedstore.heads.NAMES`.
        data: labelled rows. label: the column, for the report.
        options: of the head.

    Raises:
        LabelError: the labels cannot support it.
    """
    begin = time.perf_counter()
    parts = splits.divide(data.y, data.groups, data.splits)
    train, held = data.take(parts.train), data.take(parts.held)
    estimator = _fit(head, train, options)
    report, unseen = _report(estimator, held)
    return Evaluation(
        head=head,
        label=label,
        split=parts.name,
        train=len(train),
        held=len(held),
        classes=tuple(str(c) for c in estimator.classes_),
        unseen=unseen,
        leaks=parts.leaks,
        unlabelled=data.unlabelled,
        report=report,
        chosen=_chosen(estimator),
        seconds=time.perf_counter() - begin,
        estimator=estimator,
    )


def judge_zero_shot(estimator: Any, data: Features, label: str) -> Evaluation:
    """Judge a classifier made of words on the held-out side of the items' own split, or on all rows."""
    begin = time.perf_counter()
    own = set(data.splits.tolist()) & {"test", "val"}
    name = "test" if "test" in own else "val" if own else "all"
    held = data if name == "all" else data.take(np.flatnonzero(data.splits == name))
    report, unseen = _report(estimator, held)
    return Evaluation(
        head="zero_shot",
        label=label,
        split=name,
        train=0,
        held=len(held),
        classes=tuple(str(c) for c in estimator.classes_),
        unseen=unseen,
        leaks=0,
        unlabelled=data.unlabelled,
        report=report,
        chosen={},
        seconds=time.perf_counter() - begin,
        estimator=estimator,
    )


def zero_shot_head(
    encode_texts: Callable[[list[str]], NDArray[np.float32]],
    classes: Sequence[str] | Mapping[str, str | Sequence[str]],
    *,
    logit_scale: float | None,
    templates: str = "photo",
) -> Any:
    """A zero-shot classifier: names put into a template set, or prompts by class.

    Raises:
        LabelError: fewer than two classes, or one twice.
    """
    if isinstance(classes, Mapping):
        prompts = {c: [p] if isinstance(p, str) else list(p) for c, p in classes.items()}
    else:
        names = [str(c) for c in classes]
        if len(set(names)) != len(names):
            raise LabelError("a class is named twice")
        prompts = heads.prompts_for(names, templates)
    if len(prompts) < 2:
        raise LabelError("zero-shot needs at least two classes, e.g. --classes cat,dog")
    vectors = heads.class_vectors(encode_texts, prompts)
    return heads.make("zero_shot", class_vectors=vectors, classes=list(prompts), logit_scale=logit_scale or 100.0)


def _fit(head: str, train: Features, options: dict[str, Any]) -> Any:
    """A fitted head; cross-validation inside it keeps groups together."""
    if head == "logistic":
        cv = splits.folds_for(train.y, train.groups)
        return heads.make(head, **{"cv": cv, **options}).fit(train.X, train.y, groups=train.groups)
    return heads.make(head, **options).fit(train.X, train.y)


def _report(estimator: Any, held: Features) -> tuple[Report, tuple[str, ...]]:
    """Metrics over the head's classes and any that only the held-out rows have (probability 0)."""
    proba = np.asarray(heads.probabilities(estimator, held.X))
    known = [str(c) for c in estimator.classes_]
    unseen = tuple(sorted(set(held.y.tolist()) - set(known)))
    if unseen:
        proba = np.hstack([proba, np.zeros((len(proba), len(unseen)), dtype=proba.dtype)])
    return metrics.report(held.y, proba, [*known, *unseen]), unseen


def _chosen(estimator: Any) -> dict[str, Any]:
    """What the head selected for itself."""
    out: dict[str, Any] = {}
    if hasattr(estimator, "C_"):
        out["C"] = float(np.ravel(estimator.C_)[0])
    if hasattr(estimator, "k"):
        out["k"] = int(estimator.k)
    return out

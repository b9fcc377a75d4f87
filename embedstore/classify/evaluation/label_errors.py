"""Find labels that are likely wrong: confident learning on out-of-fold probabilities.

Northcutt, Jiang, Chuang: Confident learning, JAIR 70 (2021).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data import splits
from embedstore.classify.data.features import Features
from embedstore.classify.data.labels import label_indicators
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation.fit import out_of_fold_probabilities
from embedstore.tables import Record, Table


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """An item whose label is doubtful.

    Attributes:
        item: id of the item.
        given_label: its label; None where one of several labels is missing.
        suggested_label: the label that the other items suggest; None where one of several labels is one too many.
        margin: probability of the suggested answer minus that of the given one; higher is more certain.
    """

    item: int
    given_label: str | None
    suggested_label: str | None
    margin: float

    @property
    def description(self) -> str:
        """Return the question for the person who reviews the item."""
        if self.suggested_label is None:
            return f"{self.given_label}?"
        if self.given_label is None:
            return f"{self.suggested_label} too?"
        return f"{self.given_label}, not {self.suggested_label}?"


@dataclass(frozen=True)
class LabelErrorReport(Table):
    """Doubtful labels, the most certain first.

    Attributes:
        issues: one per doubtful label.
        n_labels: labels that were checked; with several labels per item, yes-or-no answers.
        error_rate: the share of wrong labels among them, estimated from the confident joint.
        skipped_labels: labels that cannot be checked, because they occur in one group only, or in all but one.
        label: the column.
        head: name of the head that predicted the labels.
        folds: number of folds requested.
        seconds: of the check.
    """

    issues: tuple[LabelIssue, ...]
    n_labels: int
    error_rate: float
    skipped_labels: tuple[str, ...]
    label: str
    head: str
    folds: int
    seconds: float

    def records(self) -> list[Record]:
        """Return one mapping per issue."""
        return [asdict(i) for i in self.issues]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "label": self.label,
            "head": self.head,
            "rows": self.n_labels,
            "folds": self.folds,
            "error_rate": round(self.error_rate, 6),
            "unjudged": list(self.skipped_labels),
            "seconds": round(self.seconds, 3),
            "suspects": [
                {
                    "item": i.item,
                    "given": i.given_label,
                    "suggested": i.suggested_label,
                    "margin": round(i.margin, 6),
                }
                for i in self.issues
            ],
        }


@dataclass(frozen=True)
class _Check:
    """The issues among ``n_labels`` labels, of which about ``n_wrong`` are wrong."""

    issues: list[LabelIssue]
    n_labels: int
    n_wrong: float
    skipped_labels: tuple[str, ...] = ()


def label_errors(
    data: Features,
    *,
    head: str = "logistic",
    n_folds: int = 5,
    seed: int = 0,
    near_duplicates: NearDuplicateOptions = NearDuplicateOptions(),
) -> LabelErrorReport:
    """Find items whose label the other items contradict with confidence.

    Args:
        data: labeled rows.
        head: name of the head whose out-of-fold probabilities count.
        n_folds: number of folds; a small class lowers it.
        seed: of the folds and of the head.
        near_duplicates: how they are found; no item is judged by a head that was fitted on its copies.

    Raises:
        LabelError: when a class has too few items.
        UnknownHead: when no head has this name.
    """
    start = time.perf_counter()
    data = near_duplicates.join(data)
    names = sorted({name for row in data.y.tolist() for name in (row if data.multilabel else (row,))})
    possible = n_folds if data.multilabel else splits.max_folds(data.y, data.groups, limit=n_folds)
    proba = out_of_fold_probabilities(data, names, head=head, n_folds=possible, seed=seed)
    check = (_check_labels_one_by_one if data.multilabel else _check_classes)(data, names, proba)
    return LabelErrorReport(
        issues=tuple(sorted(check.issues, key=lambda i: (-i.margin, i.item))),
        n_labels=check.n_labels,
        error_rate=check.n_wrong / max(check.n_labels, 1),
        skipped_labels=check.skipped_labels,
        label=data.label,
        head=head,
        folds=n_folds,
        seconds=time.perf_counter() - start,
    )


def _check_classes(data: Features, names: list[str], proba: NDArray[np.float32]) -> _Check:
    """Check the one label of every item."""
    given = np.searchsorted(np.array(names), data.y.astype(str))
    other, joint = confident_joint(given, proba)
    issues = [
        LabelIssue(int(data.ids[i]), names[given[i]], names[other[i]], float(proba[i, other[i]] - proba[i, given[i]]))
        for i in np.flatnonzero(other >= 0).tolist()
    ]
    return _Check(issues, len(data), _error_rate(joint, given) * len(data))


def _check_labels_one_by_one(data: Features, names: list[str], proba: NDArray[np.float32]) -> _Check:
    """Check every label of every item as a yes-or-no answer."""
    indicators = label_indicators(data.y, names)
    issues: list[LabelIssue] = []
    skipped, n_wrong = [], 0.0
    for name, positive, p in zip(names, indicators.T, proba.T, strict=True):
        if splits.smaller_side(positive, data.groups) < 2:
            skipped.append(name)
            continue
        given, answers = positive.astype(np.int64), np.stack([1 - p, p], axis=1)
        other, joint = confident_joint(given, answers)
        n_wrong += _error_rate(joint, given) * len(data)
        issues += [
            LabelIssue(
                int(data.ids[i]),
                given_label=name if given[i] else None,
                suggested_label=None if given[i] else name,
                margin=float(answers[i, other[i]] - answers[i, given[i]]),
            )
            for i in np.flatnonzero(other >= 0).tolist()
        ]
    return _Check(issues, len(data) * (len(names) - len(skipped)), n_wrong, tuple(skipped))


def confident_joint(
    given_columns: NDArray[np.int64], proba: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count given labels against confident labels.

    A class is confident for a row when its probability is at least the mean probability that the class gets from the
    rows labeled so; of several confident classes the most probable counts.

    Args:
        given_columns: int64 ``(N,)`` columns of the given labels.
        proba: float32 ``(N, K)`` out of fold.

    Returns:
        The confident class where it differs from the given one, else -1, int64 ``(N,)``; and the counts
        ``[given, confident]``, int64 ``(K, K)``.
    """
    k = proba.shape[1]
    threshold = np.array(
        [proba[given_columns == c, c].mean() if (given_columns == c).any() else np.inf for c in range(k)]
    )
    is_confident = proba >= threshold
    best = np.where(is_confident, proba, -1).argmax(1)
    has_confident = is_confident.any(1)
    joint = np.zeros((k, k), dtype=np.int64)
    np.add.at(joint, (given_columns[has_confident], best[has_confident]), 1)
    return np.where(has_confident & (best != given_columns), best, -1), joint


def _error_rate(joint: NDArray[np.int64], given: NDArray[np.int64]) -> float:
    """Return the joint's share off the diagonal, after each row is scaled to the number of rows labeled so."""
    totals = np.bincount(given, minlength=len(joint)).astype(float)
    sums = joint.sum(1)
    diagonal = np.divide(np.diag(joint), sums, out=np.ones(len(joint)), where=sums > 0)
    return float(1 - (diagonal * totals).sum() / totals.sum())

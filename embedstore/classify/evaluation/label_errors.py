"""Labels that are likely wrong: confident learning on out-of-fold scores (Northcutt, Jiang, Chuang 2021, JAIR 70)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data import splits
from embedstore.classify.data.features import Features
from embedstore.classify.data.labels import label_indicators
from embedstore.classify.evaluation import fit


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """An item whose label is doubted.

    Attributes:
        given, suggested: its label, and the one that the other items speak for. Of several labels an item one is None:
            a label is given and should not be, or it is suggested and lacks.
        margin: probability of the suggested minus that of the given answer; the higher the surer.
    """

    item: int
    given_label: str | None
    suggested_label: str | None
    margin: float

    @property
    def description(self) -> str:
        """What to ask someone who looks at it."""
        if self.suggested_label is None:
            return f"{self.given_label}?"
        return (
            f"{self.suggested_label} too?"
            if self.given_label is None
            else f"{self.given_label}, not {self.suggested_label}?"
        )


@dataclass(frozen=True)
class LabelErrorReport:
    """Doubted labels, the surest first.

    Attributes:
        rows: labels looked at; of several an item, yes-or-no answers. error_rate: the share of wrong ones among them
            that the confident joint estimates.
        head, label, folds: how. unjudged: labels that lie in one group only, or in all: nothing can doubt them.
    """

    issues: tuple[LabelIssue, ...]
    n_labels: int
    error_rate: float
    head: str
    label: str
    folds: int
    seconds: float
    skipped_labels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "label": self.label,
            "head": self.head,
            "rows": self.n_labels,
            "folds": self.folds,
            "error_rate": round(self.error_rate, 6),
            "unjudged": list(self.skipped_labels),
            "seconds": round(self.seconds, 3),
            "suspects": [
                {"item": s.item, "given": s.given_label, "suggested": s.suggested_label, "margin": round(s.margin, 6)}
                for s in self.issues
            ],
        }


def label_errors(
    data: Features, label: str, *, head: str = "logistic", n_folds: int = 5, seed: int = 0
) -> LabelErrorReport:
    """Items whose label the other items contradict with confidence.

    Args:
        data: labelled rows. label: the column. head: whose out-of-fold probabilities count. folds, seed: of them.

    Raises:
        LabelError: too few items a class.
    """
    begin = time.perf_counter()
    names = sorted({name for row in data.y.tolist() for name in (row if data.multilabel else (row,))})
    found = _of_several if data.multilabel else _of_one
    doubted, rows, wrong, unjudged = found(data, names, head, n_folds, seed)
    order = sorted(doubted, key=lambda s: (-s.margin, s.item))
    seconds = time.perf_counter() - begin
    return LabelErrorReport(tuple(order), rows, wrong / max(rows, 1), head, label, n_folds, seconds, unjudged)


_Found = tuple[list[LabelIssue], int, float, tuple[str, ...]]  # doubted, rows, how many are wrong, labels left out


def _of_one(data: Features, names: list[str], head: str, folds: int, seed: int) -> _Found:
    """One label an item."""
    folds = splits.max_folds(data.y, data.groups, limit=folds)
    proba = fit.out_of_fold_probabilities(data, names, head=head, n_folds=folds, seed=seed)
    given = np.searchsorted(np.array(names), data.y.astype(str))
    places, other, margin, joint = _doubted(given, proba)
    doubted = [
        LabelIssue(int(data.ids[i]), names[given[i]], names[o], m)
        for i, o, m in zip(places.tolist(), other.tolist(), margin.tolist(), strict=True)
    ]
    return doubted, len(data), _error_rate(joint, given) * len(data), ()


def _of_several(data: Features, names: list[str], head: str, folds: int, seed: int) -> _Found:
    """Several labels an item: every label is a question of its own, answered by yes or no."""
    yes = label_indicators(data.y, names)
    proba = fit.out_of_fold_probabilities(data, names, head=head, n_folds=folds, seed=seed)
    doubted: list[LabelIssue] = []
    unjudged, wrong = [], 0.0
    for k, name in enumerate(names):
        if min(len(np.unique(data.groups[yes[:, k] == side])) for side in (True, False)) < 2:
            unjudged.append(name)
            continue
        given = yes[:, k].astype(np.int64)
        places, other, margin, joint = _doubted(given, np.stack([1 - proba[:, k], proba[:, k]], axis=1))
        wrong += _error_rate(joint, given) * len(data)
        doubted += [
            LabelIssue(int(data.ids[i]), None if o else name, name if o else None, m)
            for i, o, m in zip(places.tolist(), other.tolist(), margin.tolist(), strict=True)
        ]
    return doubted, len(data) * (len(names) - len(unjudged)), wrong, tuple(unjudged)


def _doubted(
    given: NDArray[np.int64], proba: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Rows whose answer is doubted, the other answer, by how much, and the confident joint."""
    other, joint = confident_joint(given, proba)
    places = np.flatnonzero(other >= 0)
    return places, other[places], proba[places, other[places]] - proba[places, given[places]], joint


def confident_joint(
    given_columns: NDArray[np.int64], proba: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The confident joint.

    A class counts for a row when its probability is at least the mean probability that the class gets from the rows
    labelled so; of several the most probable.

    Args:
        given: columns ``(N,)``. proba: out of fold ``(N, K)``.

    Returns:
        Another class than the given one that counts, else -1: int64 ``(N,)``; counts ``[given, confident]`` ``(K, K)``.
    """
    k = proba.shape[1]
    threshold = np.array(
        [proba[given_columns == c, c].mean() if (given_columns == c).any() else np.inf for c in range(k)]
    )
    counts = proba >= threshold
    best = np.where(counts, proba, -1).argmax(1)
    sure = counts.any(1)
    joint = np.zeros((k, k), dtype=np.int64)
    np.add.at(joint, (given_columns[sure], best[sure]), 1)
    return np.where(sure & (best != given_columns), best, -1), joint


def _error_rate(joint: NDArray[np.int64], given: NDArray[np.int64]) -> float:
    """The joint's share off the diagonal, after each row is scaled to the number of rows labelled so."""
    totals = np.bincount(given, minlength=len(joint)).astype(float)
    sums = joint.sum(1)
    right = np.divide(np.diag(joint), sums, out=np.ones(len(joint)), where=sums > 0)
    return float(1 - (right * totals).sum() / totals.sum())

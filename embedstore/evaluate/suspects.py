"""Labels that are likely wrong: confident learning on out-of-fold scores (Northcutt, Jiang, Chuang 2021, JAIR 70)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore import splits
from embedstore.errors import LabelError
from embedstore.evaluate import fitting
from embedstore.features import Features


@dataclass(frozen=True, slots=True)
class Suspect:
    """An item whose label is doubted.

    Attributes:
        given, suggested: its label, and the one that the other items speak for.
        margin: probability of the suggested minus that of the given label; the higher the surer.
    """

    item: int
    given: str
    suggested: str
    margin: float


@dataclass(frozen=True)
class Suspects:
    """Doubted labels, the surest first.

    Attributes:
        rows: labels looked at. error_rate: the share of wrong labels that the confident joint estimates.
        head, label, folds: how.
    """

    suspects: tuple[Suspect, ...]
    rows: int
    error_rate: float
    head: str
    label: str
    folds: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "label": self.label,
            "head": self.head,
            "rows": self.rows,
            "folds": self.folds,
            "error_rate": round(self.error_rate, 6),
            "seconds": round(self.seconds, 3),
            "suspects": [
                {"item": s.item, "given": s.given, "suggested": s.suggested, "margin": round(s.margin, 6)}
                for s in self.suspects
            ],
        }


def suspects(data: Features, label: str, *, head: str = "logistic", folds: int = 5, seed: int = 0) -> Suspects:
    """Items whose label the other items contradict with confidence.

    Args:
        data: labelled rows. label: the column. head: whose out-of-fold probabilities count. folds, seed: of them.

    Raises:
        LabelError: several labels an item, or too few items a class.
    """
    begin = time.perf_counter()
    if data.multi:
        raise LabelError("suspects want one label an item; cut the column into one column a label")
    names = sorted(set(data.y.tolist()))
    folds = splits.folds_for(data.y, data.groups, wanted=folds)
    proba = fitting.out_of_fold(data, names, head=head, folds=folds, seed=seed)
    given = np.searchsorted(np.array(names), data.y.astype(str))
    suggested, joint = confident(given, proba)
    doubted = np.flatnonzero(suggested >= 0)
    margin = proba[doubted, suggested[doubted]] - proba[doubted, given[doubted]]
    order = np.lexsort((data.ids[doubted], -margin))
    found = [
        Suspect(int(data.ids[doubted[i]]), names[given[doubted[i]]], names[suggested[doubted[i]]], float(margin[i]))
        for i in order.tolist()
    ]
    return Suspects(tuple(found), len(data), _error_rate(joint, given), head, label, folds, time.perf_counter() - begin)


def confident(given: NDArray[np.int64], proba: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The confident joint.

    A class counts for a row when its probability is at least the mean probability that the class gets from the rows
    labelled so; of several the most probable.

    Args:
        given: columns ``(N,)``. proba: out of fold ``(N, K)``.

    Returns:
        Another class than the given one that counts, else -1: int64 ``(N,)``; counts ``[given, confident]`` ``(K, K)``.
    """
    k = proba.shape[1]
    threshold = np.array([proba[given == c, c].mean() if (given == c).any() else np.inf for c in range(k)])
    counts = proba >= threshold
    best = np.where(counts, proba, -1).argmax(1)
    sure = counts.any(1)
    joint = np.zeros((k, k), dtype=np.int64)
    np.add.at(joint, (given[sure], best[sure]), 1)
    return np.where(sure & (best != given), best, -1), joint


def _error_rate(joint: NDArray[np.int64], given: NDArray[np.int64]) -> float:
    """The joint's share off the diagonal, after each row is scaled to the number of rows labelled so."""
    totals = np.bincount(given, minlength=len(joint)).astype(float)
    sums = joint.sum(1)
    right = np.divide(np.diag(joint), sums, out=np.ones(len(joint)), where=sums > 0)
    return float(1 - (right * totals).sum() / totals.sum())

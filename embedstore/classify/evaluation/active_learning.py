"""Suggest what to label next: first typical items, then items that the head is unsure of and that differ.

With fewer than two labels per class a head does not know what it is unsure of, and margins lose to random choice.
Until then the items are typical of regions without a label (see
:mod:`embedstore.classify.evaluation.typical_rows`).

From then on they are uncertain: by the margin between the two most probable classes (Scheffer et al. 2001), or with
several labels per item by that of the least certain label ("binary minimum", Brinker 2006). Twenty times as many of
the most uncertain items as are requested are clustered, weighted by their uncertainty, and the item nearest to each
center is chosen (Zhdanov 2019, "Diverse mini-batch active learning").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify import heads
from embedstore.classify.evaluation.row_clusters import centers_of, nearest_rows
from embedstore.classify.evaluation.typical_rows import typical_rows
from embedstore.tables import Record, Table

CANDIDATES_PER_SUGGESTION = 20  # most uncertain items kept for each item that is suggested
LEAST_UNCERTAINTY = 0.5  # of a candidate, as a share of that of the k-th most uncertain one
COPY_COSINE = 0.999  # from which a candidate is a copy of another one
_MAX_COPY_SEARCH = 5_000  # candidates that are compared with each other
LABELS_PER_CLASS = 2  # labeled items per class from which on the head is asked
TYPICAL_POOL = 10_000  # unlabeled contents that are clustered, a random sample
UNCERTAIN_POOL = 100_000  # unlabeled contents that a head is asked about, a random sample


_LEAST_WEIGHT = 1e-3  # of an item that the head is certain of


class UnlabeledPool(Protocol):
    """The unlabeled contents."""

    def sample(self, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the items and float32 vectors of a random sample, at most ``count``."""

    def sample_blocks(self, count: int, seed: int) -> Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield such a sample in blocks."""


class Strategy(StrEnum):
    """How items are chosen."""

    TYPICAL = "typical"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class LabelSuggestion:
    """An item worth labeling.

    Attributes:
        item: id of the item.
        predicted: the most probable class; with several labels per item the least certain label. None as long as fewer
            than two classes have a label.
        confidence: its probability, or None.
        margin: its probability minus that of the second class, near 0 where the head is unsure; with several labels
            the difference between yes and no for the least certain label. None without a prediction.
    """

    item: int
    predicted: str | None
    confidence: float | None
    margin: float | None


@dataclass(frozen=True)
class LabelSuggestions(Table):
    """Items to label next, the most useful first.

    Attributes:
        suggestions: one per item.
        n_candidates: contents without a label.
        n_compared: how many of them were compared, a random sample of many.
        strategy: ``typical`` while there are fewer than two labels per class, then ``uncertain``.
        label: the column.
        head: name of the head.
        seconds: of the selection.
    """

    suggestions: tuple[LabelSuggestion, ...]
    n_candidates: int
    n_compared: int
    strategy: Strategy
    label: str
    head: str
    seconds: float

    def records(self) -> list[Record]:
        """Return one mapping per suggestion."""
        return [asdict(s) for s in self.suggestions]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "label": self.label,
            "head": self.head,
            "unlabeled": self.n_candidates,
            "compared": self.n_compared,
            "strategy": self.strategy.value,
            "seconds": round(self.seconds, 3),
            "suggestions": [
                {
                    "item": s.item,
                    "predicted": s.predicted,
                    "confidence": _rounded(s.confidence),
                    "margin": _rounded(s.margin),
                }
                for s in self.suggestions
            ],
        }


@dataclass(frozen=True)
class _Candidates:
    """Uncertain rows: ``items`` and ``best`` columns int64 ``(M,)``, unit ``vectors`` ``(M, D)``, the rest ``(M,)``."""

    items: NDArray[np.int64]
    vectors: NDArray[np.float32]
    margin: NDArray[np.float32]
    best: NDArray[np.int64]
    confidence: NDArray[np.float32]

    def most_uncertain(self, other: _Candidates | None, count: int) -> _Candidates:
        """Return the most uncertain rows of both; of equal margins the first items."""
        parts = [self] if other is None else [other, self]
        columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(self)}
        order = np.lexsort((columns["items"], columns["margin"]))[:count]
        return _Candidates(**{name: column[order] for name, column in columns.items()})


def suggest_labels(
    estimator: Any | None,
    pool: UnlabeledPool,
    labeled: NDArray[np.float32],
    k: int,
    *,
    n_classes: int,
    seed: int = 0,
) -> tuple[Strategy, list[LabelSuggestion], int]:
    """Choose among unlabeled items.

    Args:
        estimator: classifier that was fitted on the labeled items; None if fewer than two classes have a label.
        pool: the unlabeled items.
        labeled: the vectors of the labeled items, float32 ``(M, D)``.
        k: number of items to suggest.
        n_classes: how many classes have a label.
        seed: of the samples and of the clusters.

    Returns:
        How the items were chosen, the items, and how many contents were compared.
    """
    if estimator is None or len(labeled) < LABELS_PER_CLASS * n_classes:
        items, X = pool.sample(TYPICAL_POOL, seed)
        rows = typical_rows(unit_rows(X), unit_rows(labeled), k, seed=seed)
        return Strategy.TYPICAL, _suggestions(estimator, items[rows], X[rows]), len(items)
    candidates: _Candidates | None = None
    compared = 0
    for items, X in pool.sample_blocks(UNCERTAIN_POOL, seed):
        candidates = _score(estimator, items, X).most_uncertain(candidates, CANDIDATES_PER_SUGGESTION * k)
        compared += len(items)
    chosen = [] if candidates is None else _listed(estimator, candidates, _diverse_rows(candidates, k, seed))
    return Strategy.UNCERTAIN, chosen, compared


def _suggestions(estimator: Any | None, items: NDArray[np.int64], X: NDArray[np.float32]) -> list[LabelSuggestion]:
    """Return items in their order, with what the head predicts if there is one."""
    if estimator is None or not len(items):
        return [LabelSuggestion(int(item), None, None, None) for item in items]
    return _listed(estimator, _score(estimator, items, X), range(len(items)))


def _listed(estimator: Any, c: _Candidates, rows: Iterable[int]) -> list[LabelSuggestion]:
    """Return rows of the candidates as suggestions."""
    names = [str(name) for name in estimator.classes_]
    return [
        LabelSuggestion(int(c.items[i]), names[int(c.best[i])], float(c.confidence[i]), float(c.margin[i]))
        for i in rows
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _score(estimator: Any, items: NDArray[np.int64], X: NDArray[np.float32]) -> _Candidates:
    """Predict a block of items and measure how unsure the head is of each."""
    proba = np.asarray(heads.probabilities(estimator, X), dtype=np.float32)
    unit = unit_rows(X)
    if getattr(estimator, "multilabel_", False):
        margin = np.abs(2 * proba - 1)
        margin[:, np.isin(estimator.classes_.astype(str), estimator.constant_labels_)] = 1  # a constant is never unsure
        best = margin.argmin(1)
        rows = np.arange(len(best))
        return _Candidates(items, unit, margin[rows, best], best, proba[rows, best])
    top = np.sort(np.partition(proba, -2, axis=1)[:, -2:], axis=1)
    return _Candidates(items, unit, top[:, 1] - top[:, 0], proba.argmax(1), top[:, 1])


def _diverse_rows(candidates: _Candidates, k: int, seed: int) -> list[int]:
    """Choose k rows: the nearest to each center of the uncertain ones, which count by their uncertainty.

    The candidates are ordered, the most uncertain first, and so is what is returned. Copies come last.
    """
    different, copies = _without_copies(candidates.vectors)
    uncertainty = 1 - candidates.margin[different]
    if len(different) <= k:
        return [*different.tolist(), *copies.tolist()][:k]
    enough = uncertainty >= LEAST_UNCERTAINTY * uncertainty[k - 1]
    rows, weights = different[enough], uncertainty[enough] + _LEAST_WEIGHT
    vectors = candidates.vectors[rows]
    chosen = nearest_rows(vectors, centers_of(vectors, k, weights=weights, seed=seed))
    return sorted(rows[chosen].tolist())


def _without_copies(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that are near-copies of no earlier row, and the others; of very many rows none is a copy."""
    if len(vectors) > _MAX_COPY_SEARCH:
        return np.arange(len(vectors)), np.empty(0, np.int64)
    is_copy = np.triu(vectors @ vectors.T > COPY_COSINE, 1).any(0)
    return np.flatnonzero(~is_copy), np.flatnonzero(is_copy)

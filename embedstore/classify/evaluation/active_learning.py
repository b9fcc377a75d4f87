"""Suggest what to label next: items that the head is unsure of and that differ from each other.

Uncertainty is the margin between the two most probable classes (Scheffer et al. 2001); with several labels per item it
is that of the least certain label ("binary minimum", Brinker 2006). Among ten times as many of the most uncertain
items as are requested, those are chosen one after another that are uncertain and far from all chosen before, after
Zhdanov 2019, "Diverse mini-batch active learning", with the greedy k-centers of Sener and Savarese 2018 for k-means.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify import heads
from embedstore.tables import Record, Table

CANDIDATES_PER_SUGGESTION = 10  # most uncertain items kept for each item that is suggested
MAX_COSINE_DISTANCE = 2.0


@dataclass(frozen=True, slots=True)
class LabelSuggestion:
    """An item worth labeling.

    Attributes:
        item: id of the item.
        predicted: the most probable class; with several labels per item the least certain label.
        confidence: its probability.
        margin: its probability minus that of the second class, near 0 where the head is unsure; with several labels
            the difference between yes and no for the least certain label.
    """

    item: int
    predicted: str
    confidence: float
    margin: float


@dataclass(frozen=True)
class LabelSuggestions(Table):
    """Items to label next, the most useful first.

    Attributes:
        suggestions: one per item.
        n_candidates: contents without a label that were compared.
        label: the column.
        head: name of the head.
        seconds: of the selection.
    """

    suggestions: tuple[LabelSuggestion, ...]
    n_candidates: int
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
            "looked_at": self.n_candidates,
            "seconds": round(self.seconds, 3),
            "suggestions": [
                {
                    "item": s.item,
                    "predicted": s.predicted,
                    "confidence": round(s.confidence, 6),
                    "margin": round(s.margin, 6),
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
    estimator: Any,
    blocks: Iterable[tuple[int, NDArray[np.int64], NDArray[np.float32]]],
    label: str,
    *,
    k: int,
    head: str,
) -> LabelSuggestions:
    """Choose among unlabeled items; the memory is bounded by a block and ten times k vectors.

    Args:
        estimator: classifier that was fitted on the labeled items.
        blocks: ``(offset, items, vectors)``, the vectors float32 ``(B, D)``.
        label: the column, for the report.
        k: number of items to suggest.
        head: name of the head, for the report.
    """
    start = time.perf_counter()
    candidates: _Candidates | None = None
    n_candidates = 0
    for _, items, X in blocks:
        candidates = _score(estimator, items, X).most_uncertain(candidates, CANDIDATES_PER_SUGGESTION * k)
        n_candidates += len(items)
    suggestions: list[LabelSuggestion] = []
    if candidates is not None:
        c, names = candidates, [str(name) for name in estimator.classes_]
        suggestions = [
            LabelSuggestion(int(c.items[i]), names[int(c.best[i])], float(c.confidence[i]), float(c.margin[i]))
            for i in _diverse_rows(c, k)
        ]
    return LabelSuggestions(tuple(suggestions), n_candidates, label, head, time.perf_counter() - start)


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


def _diverse_rows(candidates: _Candidates, k: int) -> list[int]:
    """Choose greedily k rows that are uncertain and far from those chosen before.

    The score of a row is its uncertainty times its cosine distance to the nearest chosen row.
    """
    uncertainty = 1 - candidates.margin
    distance = np.full(len(uncertainty), MAX_COSINE_DISTANCE, dtype=np.float32)
    chosen: list[int] = []
    for _ in range(min(k, len(uncertainty))):
        gain = uncertainty * distance
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        distance = np.minimum(distance, 1 - candidates.vectors @ candidates.vectors[best])
    return chosen

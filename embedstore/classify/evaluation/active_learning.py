"""What to label next: items that the head is unsure of, and that are not all alike.

The most uncertain by margin (Scheffer et al. 2001; of several labels an item by the least sure one, "binary minimum" of
Brinker 2006) are collected block by block; among ten times as many as wanted,
those are taken one after the other that are uncertain and far from all taken before (after Zhdanov 2019, "Diverse
mini-batch active learning", with the greedy k-centres of Sener and Savarese 2018 instead of k-means).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads

CANDIDATES_PER_SUGGESTION = 10  # candidates for each item that is suggested


@dataclass(frozen=True, slots=True)
class LabelSuggestion:
    """An item worth labelling.

    Attributes:
        predicted, confidence: what the head would say, and how sure it is. Of several labels an item: the label that
            it is least sure of, and that label's probability.
        margin: its best probability minus the second; near 0 is unsure. Of several labels: yes minus no of that label.
    """

    item: int
    predicted: str
    confidence: float
    margin: float


@dataclass(frozen=True)
class LabelSuggestions:
    """Items to label next, the most useful first; ``looked_at`` contents without a label were judged."""

    suggestions: tuple[LabelSuggestion, ...]
    n_candidates: int
    label: str
    head: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
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
class _Pool:
    """The most uncertain rows seen so far."""

    items: NDArray[np.int64]
    vectors: NDArray[np.float32]
    margin: NDArray[np.float32]
    best: NDArray[np.int64]
    confidence: NDArray[np.float32]


def suggest_labels(
    estimator: Any,
    blocks: Iterable[tuple[int, NDArray[np.int64], NDArray[np.float32]]],
    label: str,
    *,
    k: int,
    head: str,
) -> LabelSuggestions:
    """Choose among unlabelled items; memory is bounded by a block and ten times k vectors.

    Args:
        estimator: fitted on the labelled items. blocks: ``(_, items, vectors)``. label, head: for the report.
        k: items wanted.
    """
    begin = time.perf_counter()
    pool: _Pool | None = None
    looked_at = 0
    for _, items, X in blocks:
        found = _judged(estimator, items, X)
        pool = _most_uncertain([found] if pool is None else [pool, found], CANDIDATES_PER_SUGGESTION * k)
        looked_at += len(items)
    names = [str(c) for c in estimator.classes_]
    chosen = [] if pool is None else _spread(pool, k)
    out = (
        LabelSuggestion(int(pool.items[i]), names[int(pool.best[i])], float(pool.confidence[i]), float(pool.margin[i]))
        for i in chosen
        if pool is not None
    )
    return LabelSuggestions(tuple(out), looked_at, label, head, time.perf_counter() - begin)


def _most_uncertain(pools: list[_Pool], most: int) -> _Pool:
    """The most uncertain rows of all; equal ones by item."""
    fields = ("items", "vectors", "margin", "best", "confidence")
    every = {f: np.concatenate([getattr(p, f) for p in pools]) for f in fields}
    kept = np.lexsort((every["items"], every["margin"]))[:most]
    return _Pool(**{f: a[kept] for f, a in every.items()})


def _judged(estimator: Any, items: NDArray[np.int64], X: NDArray[np.float32]) -> _Pool:
    proba = np.asarray(heads.probabilities(estimator, X), dtype=np.float32)
    unit = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    if getattr(estimator, "multilabel_", False):
        margin = np.abs(2 * proba - 1)
        margin[:, np.isin(estimator.classes_.astype(str), estimator.constant_labels_)] = 1  # a constant says nothing
        best = margin.argmin(1)
        rows = np.arange(len(best))
        return _Pool(items, unit, margin[rows, best], best, proba[rows, best])
    top = np.sort(np.partition(proba, -2, axis=1)[:, -2:], axis=1)
    return _Pool(items, unit, top[:, 1] - top[:, 0], proba.argmax(1), top[:, 1])


def _spread(pool: _Pool, k: int) -> list[int]:
    """Greedy: uncertainty times distance to the nearest row taken before."""
    unsure = 1 - pool.margin
    distance = np.full(len(unsure), 2.0, dtype=np.float32)  # the largest cosine distance there is
    chosen: list[int] = []
    for _ in range(min(k, len(unsure))):
        gain = unsure * distance
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        distance = np.minimum(distance, 1 - pool.vectors @ pool.vectors[best])
    return chosen

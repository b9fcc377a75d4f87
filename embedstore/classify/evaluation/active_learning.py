"""Suggest what to label next: first typical items, then items that the head is unsure of and that differ.

Until every class that is known has a label, and there are two, a head does not know what it is unsure of. Until then
the items are typical of regions without a label (see :mod:`embedstore.classify.evaluation.typical_rows`).

From then on they are uncertain: by the margin between the two most probable classes (Scheffer et al. 2001), or with
several labels per item by that of the least certain label ("binary minimum", Brinker 2006). Items of classes that have
few labels count more. Both count as far as the labels can be relied on, which is how much better than chance the
nearest labeled item predicts a label; where it does not, what is chosen is spread over everything. While many classes
have one label only, others are still unknown, and items that may be of these count more (see
:mod:`embedstore.classify.evaluation.exploration`). Twenty times as many
of the most useful items as are requested are clustered, weighted by their use, and the item nearest to each center is
chosen (Zhdanov 2019, "Diverse mini-batch active learning").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify import heads
from embedstore.classify.evaluation.exploration import REFERENCE_ROWS, Exploration, unseen_share
from embedstore.classify.evaluation.row_clusters import centered_unit_rows, centers_of, nearest_rows
from embedstore.classify.evaluation.typical_rows import typical_rows
from embedstore.tables import Record, Table

CANDIDATES_PER_SUGGESTION = 20  # most uncertain items kept for each item that is suggested
COPY_COSINE = 0.999  # from which a candidate is a copy of another one
_MAX_COPY_SEARCH = 5_000  # candidates that are compared with each other
LABELS_PER_CLASS = 1  # labeled items per class from which on the head is asked
TYPICAL_POOL = 10_000  # unlabeled contents that are clustered, a random sample
EXPLORED_POOL = 5_000  # of the most useful items, which are weighed by whether their class is known
UNCERTAIN_POOL = 100_000  # unlabeled contents that a head is asked about, a random sample


_LEAST_WEIGHT = 1e-3  # of an item that the head is certain of
_SHARPNESS = 2.0  # the power of the uncertainty of an item, where the labels can be relied on
_MAX_RELIABILITY_ROWS = 2_000  # labeled items that reliability is measured on


class UnlabeledPool(Protocol):
    """The unlabeled contents."""

    def sample(self, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the items and float32 vectors of a random sample, at most ``count``."""

    def sample_blocks(self, count: int, seed: int) -> Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield the items and vectors of a random sample in blocks."""


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
        strategy: ``typical`` while fewer than two classes have a label, then ``uncertain``.
        label: the column.
        head: name of the head.
        seconds: the duration of the selection.
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
    """Useful rows: ``items`` and ``best`` columns int64 ``(M,)``, unit ``vectors`` ``(M, D)``, the rest ``(M,)``."""

    items: NDArray[np.int64]
    vectors: NDArray[np.float32]
    margin: NDArray[np.float32]
    best: NDArray[np.int64]
    confidence: NDArray[np.float32]
    use: NDArray[np.float32]

    def most_useful(self, other: _Candidates | None, count: int) -> _Candidates:
        """Return the most useful rows of both; of equal use the first items."""
        parts = [self] if other is None else [other, self]
        columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(self)}
        order = np.lexsort((columns["items"], -columns["use"]))[:count]
        return _Candidates(**{name: column[order] for name, column in columns.items()})


@dataclass(frozen=True)
class LabeledRows:
    """What is labeled so far.

    Attributes:
        X: float32 ``(M, D)``.
        y: the label of each ``(M,)``, or a tuple of labels.
        multilabel: whether an item has any number of labels.
    """

    X: NDArray[np.float32]
    y: NDArray[np.object_]
    multilabel: bool = False

    @property
    def class_counts(self) -> Counter[str]:
        """The number of items by class."""
        return Counter(str(name) for y in self.y.tolist() for name in (y if self.multilabel else (y,)))


def suggest_labels(
    estimator: Any | None,
    pool: UnlabeledPool,
    labeled: LabeledRows,
    k: int,
    *,
    seed: int = 0,
) -> tuple[Strategy, list[LabelSuggestion], int]:
    """Choose among unlabeled items.

    Args:
        estimator: classifier that was fitted on the labeled items; None if fewer than two classes have a label.
        pool: the unlabeled items.
        labeled: the labeled items.
        k: number of items to suggest.
        seed: the random seed of the samples and of the clusters.

    Returns:
        How the items were chosen, the items, and how many contents were compared.
    """
    if estimator is None or len(labeled.X) < LABELS_PER_CLASS * len(labeled.class_counts):
        items, X = pool.sample(TYPICAL_POOL, seed)
        rows = typical_rows(unit_rows(X), unit_rows(labeled.X), k, seed=seed)
        return Strategy.TYPICAL, _suggestions(estimator, items[rows], X[rows]), len(items)
    candidates, compared = _useful_candidates(estimator, pool, labeled, k, seed)
    chosen = [] if candidates is None else _listed(estimator, candidates, _diverse_rows(candidates, k, seed))
    return Strategy.UNCERTAIN, chosen, compared


def _useful_candidates(
    estimator: Any, pool: UnlabeledPool, labeled: LabeledRows, k: int, seed: int
) -> tuple[_Candidates | None, int]:
    """Return the most useful items for k suggestions, None if there are no items, and how many were compared."""
    rule, count = _use_rule(estimator, labeled), CANDIDATES_PER_SUGGESTION * k
    kept = max(count, EXPLORED_POOL) if rule.exploration else count
    candidates: _Candidates | None = None
    compared = 0
    for items, X in pool.sample_blocks(UNCERTAIN_POOL, seed):
        candidates = _score(estimator, items, X, rule).most_useful(candidates, kept)
        compared += len(items)
    if candidates is not None and rule.exploration:
        reference = unit_rows(pool.sample(REFERENCE_ROWS, seed)[1])
        weights = Exploration(rule.exploration, unit_rows(labeled.X), reference).weights(candidates.vectors)
        candidates = replace(candidates, use=np.multiply(candidates.use, weights)).most_useful(None, count)
    return candidates, compared


@dataclass(frozen=True)
class _UseRule:
    """How useful an item is: its uncertainty to a power, times the mean weight of the classes that it may have.

    Attributes:
        power: the power of the uncertainty.
        class_weights: float32 ``(K,)``, by class of the estimator.
        exploration: how much items count that may be of a class without a label, 0 to 1.
    """

    power: float
    class_weights: NDArray[np.float32]
    exploration: float = 0.0

    def use(self, margin: NDArray[np.float32], proba: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how useful items are, float32 ``(N,)``."""
        return np.asarray((1 - margin + _LEAST_WEIGHT) ** self.power * (proba @ self.class_weights), np.float32)


def _use_rule(estimator: Any, labeled: LabeledRows) -> _UseRule:
    """Return the rule for the labels there are: the more they can be relied on, the more the head decides."""
    n_classes = len(estimator.classes_)
    if labeled.multilabel:
        return _UseRule(_SHARPNESS, np.full(n_classes, 1 / n_classes, np.float32))
    trust = reliability(unit_rows(labeled.X), labeled.y.astype(str))
    counts = labeled.class_counts
    shares = np.array([max(counts[str(name)], 1) for name in estimator.classes_], np.float32)
    class_weights = np.asarray((shares / shares.mean()) ** -trust, np.float32)
    return _UseRule(_SHARPNESS * trust, class_weights, trust * unseen_share(counts))


def reliability(X: NDArray[np.float32], y: NDArray[np.str_]) -> float:
    """Return from 0 to 1 how much better than chance the nearest other labeled item predicts a label.

    Half of the way from chance to certainty counts as 1. Items that alone have their label are left out, and one item
    is added that is predicted right and one that is wrong, so that two labels say little.
    """
    X, y = X[:_MAX_RELIABILITY_ROWS], y[:_MAX_RELIABILITY_ROWS]
    _, code, counts = np.unique(y, return_inverse=True, return_counts=True)
    cosine = X @ X.T
    np.fill_diagonal(cosine, -np.inf)
    right = (code[cosine.argmax(1)] == code)[counts[code] > 1]
    chance = float(((counts / len(y)) ** 2).sum())
    if not len(right) or chance >= 1:
        return 1.0
    share = (right.sum() + 1) / (len(right) + 2)
    return float(np.clip(2 * (share - chance) / (1 - chance), 0, 1))


def _suggestions(estimator: Any | None, items: NDArray[np.int64], X: NDArray[np.float32]) -> list[LabelSuggestion]:
    """Return items in their order, with what the head predicts if there is one."""
    if estimator is None or not len(items):
        return [LabelSuggestion(int(item), None, None, None) for item in items]
    return _listed(estimator, _score(estimator, items, X, None), range(len(items)))


def _listed(estimator: Any, c: _Candidates, rows: Iterable[int]) -> list[LabelSuggestion]:
    """Return rows of the candidates as suggestions."""
    names = [str(name) for name in estimator.classes_]
    return [
        LabelSuggestion(int(c.items[i]), names[int(c.best[i])], float(c.confidence[i]), float(c.margin[i]))
        for i in rows
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _score(estimator: Any, items: NDArray[np.int64], X: NDArray[np.float32], rule: _UseRule | None) -> _Candidates:
    """Predict a block of items and measure how unsure the head is of each, and how useful each is by a rule."""
    proba = np.asarray(heads.probabilities(estimator, X), dtype=np.float32)
    unit = unit_rows(X)
    if getattr(estimator, "multilabel_", False):
        margin = np.abs(2 * proba - 1)
        margin[:, np.isin(estimator.classes_.astype(str), estimator.constant_labels_)] = 1  # a constant is never unsure
        best = margin.argmin(1)
        rows = np.arange(len(best))
        margin, confidence = margin[rows, best], proba[rows, best]
        use = 1 - margin if rule is None else (1 - margin + _LEAST_WEIGHT) ** rule.power
        return _Candidates(items, unit, margin, best, confidence, use)
    top = np.sort(np.partition(proba, -2, axis=1)[:, -2:], axis=1)
    margin = top[:, 1] - top[:, 0]
    use = 1 - margin if rule is None else rule.use(margin, proba)
    return _Candidates(items, unit, margin, proba.argmax(1), top[:, 1], use)


def _diverse_rows(candidates: _Candidates, k: int, seed: int) -> list[int]:
    """Choose k rows: the nearest to each center of the candidates, which count by their use.

    The candidates are ordered, the most useful first, and so is what is returned. Copies come last.
    """
    different, copies = _without_copies(candidates.vectors)
    if len(different) <= k:
        return [*different.tolist(), *copies.tolist()][:k]
    vectors = centered_unit_rows(candidates.vectors[different])
    chosen = nearest_rows(vectors, centers_of(vectors, k, weights=candidates.use[different], seed=seed))
    return sorted(different[chosen].tolist())


def _without_copies(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that are near-copies of no earlier row, and the others; of very many rows none is a copy."""
    if len(vectors) > _MAX_COPY_SEARCH:
        return np.arange(len(vectors)), np.empty(0, np.int64)
    is_copy = np.triu(vectors @ vectors.T > COPY_COSINE, 1).any(0)
    return np.flatnonzero(~is_copy), np.flatnonzero(is_copy)

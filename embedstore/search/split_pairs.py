"""Pairs of items in different splits: all are counted, the most similar are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, islice, product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embedstore.search.index.self_join import NO_PAIRS, Pairs
from embedstore.search.space_rows import MatchingRows

NO_SPLIT = -1
ItemPair = tuple[int, int, float]  # two items and their cosine


class SplitPairs:
    """Counts the pairs of items in different splits while pairs of contents pass, and keeps the most similar.

    Args:
        matching: the items and their contents.
        split: int64 ``(n,)``, the number of each item's split, or ``NO_SPLIT``; in the order of ``matching.items``.
        max_pairs: pairs of items to keep.

    Attributes:
        count: pairs of items in different splits, of equal bytes or of pairs that passed.
    """

    def __init__(self, matching: MatchingRows, split: NDArray[np.int64], max_pairs: int) -> None:
        self._matching, self._split, self._max_pairs = matching, split, max_pairs
        self._order = np.argsort(matching.content, kind="stable")
        self._starts = np.searchsorted(matching.content[self._order], np.arange(len(matching) + 1))
        self._items_per_split = _items_per_split(matching, split)
        totals = self._items_per_split.sum(axis=1)
        equal = (totals**2 - (self._items_per_split**2).sum(axis=1)) // 2
        self._totals = totals
        self._equal = np.flatnonzero(equal)
        self.count = int(equal.sum())
        self._kept = NO_PAIRS

    def watch(self, pairs: Iterable[Pairs]) -> Iterator[Pairs]:
        """Pass pairs of contents on, and take note of those across splits."""
        for a, b, cosine in pairs:
            across = self._count_across(a, b)
            self.count += int(across.sum())
            kept = across > 0
            self._keep((a[kept], b[kept], cosine[kept]))
            yield a, b, cosine

    def item_pairs(self) -> list[ItemPair]:
        """Return the most similar pairs of items, the lower item first; the most similar pair first, then by item."""
        self._reduce()
        a, b, cosine = self._kept
        order = np.lexsort((b, a, -cosine))
        contents = zip(a[order].tolist(), b[order].tolist(), cosine[order].tolist(), strict=True)
        pairs = islice(self._expand(contents), self._max_pairs)
        ordered = ((min(one, other), max(one, other), score) for one, other, score in pairs)
        return sorted(ordered, key=lambda pair: (-pair[2], pair[0], pair[1]))

    def _expand(self, pairs: Iterable[tuple[int, int, float]]) -> Iterator[ItemPair]:
        """Yield the pairs of items of equal bytes, then those of pairs of contents."""
        for content in self._equal.tolist():
            for (one, split), (other, other_split) in combinations(self._items_of(content), 2):
                if split != other_split:
                    yield one, other, 1.0
        for a, b, cosine in pairs:
            for (one, split), (other, other_split) in product(self._items_of(a), self._items_of(b)):
                if split != other_split:
                    yield one, other, round(min(cosine, 1.0), 6)

    def _items_of(self, content: int) -> list[tuple[int, int]]:
        """Return ``(item, split)`` of the items of a content that are in a split."""
        rows = self._order[self._starts[content] : self._starts[content + 1]]
        rows = rows[self._split[rows] != NO_SPLIT]
        return list(zip(self._matching.items[rows].tolist(), self._split[rows].tolist(), strict=True))

    def _count_across(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many pairs of items in different splits each pair of contents has."""
        same = self._items_per_split[a].multiply(self._items_per_split[b]).sum(axis=1)
        return np.asarray(self._totals[a] * self._totals[b] - same, dtype=np.int64)

    def _keep(self, pairs: Pairs) -> None:
        """Keep pairs of contents; drop the least similar when there are twice as many as wanted."""
        (a, b, cosine), (more_a, more_b, more_cosine) = self._kept, pairs
        self._kept = np.concatenate([a, more_a]), np.concatenate([b, more_b]), np.concatenate([cosine, more_cosine])
        if len(self._kept[0]) > 2 * self._max_pairs:
            self._reduce()

    def _reduce(self) -> None:
        """Keep as many pairs of contents as pairs of items are wanted: each has one at least."""
        a, b, cosine = self._kept
        best = np.lexsort((b, a, -cosine))[: self._max_pairs]
        self._kept = a[best], b[best], cosine[best]


def _items_per_split(matching: MatchingRows, split: NDArray[np.int64]) -> csr_array:
    """Return how many items of each content are in each split, int64 ``(contents, splits)``."""
    has_split = split != NO_SPLIT
    rows, columns = matching.content[has_split], split[has_split]
    shape = (len(matching), int(split.max(initial=0)) + 1)
    return csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape)

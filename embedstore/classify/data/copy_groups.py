"""Pairs of copies joined into groups that do not grow along chains."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify.data.self_join import Pairs

_SPREAD = 2.0  # the mean squared distance within a group is at most so many times that of the threshold


class DisjointSets:
    """Numbers that are joined into sets; a set is named after its lowest number."""

    def __init__(self, n: int) -> None:
        self.parent = np.arange(n)

    def root(self, i: int) -> int:
        """Return the lowest number of the set."""
        parent = self.parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    def join(self, a: int, b: int) -> int:
        """Join two sets and return the lowest number of both."""
        low, high = sorted((self.root(a), self.root(b)))
        self.parent[high] = low
        return low

    def roots(self) -> NDArray[np.int64]:
        """Return the lowest number of the set of every number, int64 ``(N,)``."""
        return np.array([self.root(i) for i in range(len(self.parent))], dtype=np.int64)


def group_copies(X: NDArray[np.float32], pairs: Pairs, threshold: float) -> NDArray[np.int64]:
    """Return the group of each row, int64 ``(N,)``: the lowest row of the group.

    Pairs join groups, the most similar first, as long as the mean cosine between all rows of the joined group stays
    above ``1 - 2 (1 - threshold)``. A chain of pairs through half of a class ends there; copies of one picture, which
    are all near each other, do not.

    Args:
        X: rows ``(N, D)`` of any length.
        pairs: pairs of rows, the most similar first.
        threshold: least cosine of a pair.
    """
    sets, sums, sizes = DisjointSets(len(X)), _RowSums(X), np.ones(len(X), np.int64)
    least_mean = 1 - _SPREAD * (1 - threshold)
    count = int(np.searchsorted(-pairs.cosine, -threshold, side="right"))
    for a, b in zip(pairs.a[:count].tolist(), pairs.b[:count].tolist(), strict=True):
        one, other = sets.root(a), sets.root(b)
        if one == other:
            continue
        total, size = sums[one] + sums[other], int(sizes[one] + sizes[other])
        if (float(total @ total) - size) / (size * (size - 1)) >= least_mean:
            joined = sets.join(one, other)
            sums.keep(joined, total)
            sizes[joined] = size
    return sets.roots()


class _RowSums:
    """The sum of the unit rows of each group; rows that are in no pair are never read."""

    def __init__(self, X: NDArray[np.float32]) -> None:
        self.X = X
        self.sums: dict[int, NDArray[np.float64]] = {}

    def __getitem__(self, group: int) -> NDArray[np.float64]:
        if group not in self.sums:
            self.sums[group] = unit_rows(self.X[group : group + 1])[0].astype(np.float64)
        return self.sums[group]

    def keep(self, group: int, total: NDArray[np.float64]) -> None:
        self.sums[group] = total

"""Groups of rows that pairs form, in memory that pairs do not grow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index.self_join import NO_PAIRS, Pairs

_MAX_HELD_PAIRS = 2_000_000  # pairs held before they are reduced to a forest: 40 MB


@dataclass(frozen=True)
class RowGroups:
    """Rows joined by pairs, directly or in a chain.

    Attributes:
        rows: int64 ``(n,)``, the rows that are in a group of two or more, ascending.
        group: int64 ``(n,)``, the group of each, from 0.
        min_cosine: float32 by group: the lowest cosine that the group's best chain of pairs needs.
    """

    rows: NDArray[np.int64]
    group: NDArray[np.int64]
    min_cosine: NDArray[np.float32]


def connected_groups(pairs: Iterable[Pairs], count: int) -> RowGroups:
    """Return the groups that pairs form. Memory holds at most one pair per row and a buffer.

    Args:
        pairs: the pairs of row numbers below ``count``, in any order, repeated or not.
        count: number of rows.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b, cosine = _forest_of(pairs, count)
    _, label = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (count, count)), directed=False)
    rows = np.unique(np.concatenate([a, b]))
    _, group = np.unique(label[rows], return_inverse=True)
    min_cosine = np.ones(int(group.max(initial=-1)) + 1, np.float32)
    np.minimum.at(min_cosine, group[np.searchsorted(rows, a)], cosine)
    return RowGroups(rows, group.astype(np.int64), min_cosine)


def _forest_of(pairs: Iterable[Pairs], count: int) -> Pairs:
    """Return the maximum spanning forest of a stream of pairs, reduced whenever the buffer is full."""
    held: list[Pairs] = [NO_PAIRS]
    size = 0
    for more in pairs:
        held.append(more)
        size += len(more[0])
        if size > _MAX_HELD_PAIRS:
            held, size = [_forest(held, count)], 0
    return _forest(held, count)


def _forest(held: list[Pairs], count: int) -> Pairs:
    """Return the pairs of a maximum spanning forest: they form the same groups with the same lowest cosines."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    a, b, cosine = (np.concatenate(column) for column in zip(*held, strict=True))
    if not len(a):
        return a, b, cosine
    _, once = np.unique(a * count + b, return_index=True)  # coo_matrix adds up repeated pairs
    a, b, cosine = a[once], b[once], cosine[once]
    tree = minimum_spanning_tree(coo_matrix((2.0 - cosine.astype(np.float64), (a, b)), (count, count))).tocoo()
    return tree.row.astype(np.int64), tree.col.astype(np.int64), (2.0 - tree.data).astype(np.float32)

"""Find all pairs of rows above a cosine, block by block, and the groups they form, in memory that pairs do not grow.

Up to ``EXACT_MAX_ROWS`` rows, every row is compared with every other. Beyond, rows are compared where they share one of
their nearest k-means cells: near-duplicates almost always do, and the caller measures the recall.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from embedstore.resources import memory_share
from embedstore.search.index.kmeans import UnitRowReader, spherical_kmeans

EXACT_MAX_ROWS = 100_000  # rows: at 512 dimensions 5e12 multiplications, about a minute on two cores
BLOCK_ROWS = 4096  # most rows of one side of a block: 64 MiB of scores
CELLS_PER_ROW = 3  # nearest cells that a row is compared in
ROWS_PER_CELL = 500
_MAX_HELD_PAIRS = 2_000_000  # pairs held before they are reduced to a forest: 40 MB

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


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


def similar_pairs(read_rows: UnitRowReader, count: int, threshold: float, *, exact: bool) -> Iterator[Pairs]:
    """Yield the pairs of rows at or above a threshold; a pair may be repeated.

    Args:
        read_rows: reads unit rows.
        count: number of rows.
        threshold: least cosine.
        exact: compare every row with every other.

    Yields:
        ``(a, b, cosine)``, a < b.
    """
    size = _block_rows()
    everything = exact or count <= 2 * ROWS_PER_CELL
    for members in [np.arange(count)] if everything else _cells(read_rows, count):
        for first in range(0, len(members), size):
            ids = members[first : first + size]
            rows = read_rows(ids)
            yield _pairs_within(rows, ids, threshold)
            for second in range(first + size, len(members), size):
                others = members[second : second + size]
                yield _pairs_between(rows, ids, read_rows(others), others, threshold)


def connected_groups(pairs: Iterable[Pairs], count: int) -> RowGroups:
    """Return the groups that pairs form. Memory holds at most one pair per row and a buffer.

    Args:
        pairs: of row numbers below ``count``, in any order, repeated or not.
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
    held: list[Pairs] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
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


def _block_rows() -> int:
    """Return the rows of one side of a block, whose scores take at most a sixteenth of the memory of this process."""
    return isqrt(memory_share(4 * BLOCK_ROWS * BLOCK_ROWS, 16) // 4)


def _pairs_within(rows: NDArray[np.float32], ids: NDArray[np.int64], threshold: float) -> Pairs:
    """Return the pairs inside one block."""
    scores = rows @ rows.T
    i, j = np.nonzero(np.triu(scores >= threshold, 1))
    return _ordered(ids[i], ids[j], scores[i, j])


def _pairs_between(
    rows: NDArray[np.float32],
    ids: NDArray[np.int64],
    other_rows: NDArray[np.float32],
    other_ids: NDArray[np.int64],
    threshold: float,
) -> Pairs:
    """Return the pairs of one block with another."""
    scores = rows @ other_rows.T
    i, j = np.nonzero(scores >= threshold)
    return _ordered(ids[i], other_ids[j], scores[i, j])


def _ordered(a: NDArray[np.int64], b: NDArray[np.int64], cosine: NDArray[np.float32]) -> Pairs:
    """Return each pair with its lower number first."""
    return np.minimum(a, b), np.maximum(a, b), cosine


def _cells(read_rows: UnitRowReader, count: int) -> Iterator[NDArray[np.int64]]:
    """Yield the members of every cell, ascending; a row is in several."""
    centers = spherical_kmeans(read_rows, count, max(2, count // ROWS_PER_CELL))
    owners = np.empty((count, CELLS_PER_ROW), np.int32)
    for begin in range(0, count, BLOCK_ROWS):
        rows = np.arange(begin, min(count, begin + BLOCK_ROWS))
        scores = read_rows(rows) @ centers.T
        owners[rows] = np.argpartition(-scores, min(CELLS_PER_ROW, scores.shape[1] - 1), axis=1)[:, :CELLS_PER_ROW]
    order = np.argsort(owners.ravel(), kind="stable")
    cells = owners.ravel()[order]
    for members in np.split(order // CELLS_PER_ROW, np.flatnonzero(np.diff(cells)) + 1):
        if len(members) > 1:
            yield members

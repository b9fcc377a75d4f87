"""All pairs of rows above a cosine, block by block; and the groups they join, in memory that the pairs cannot grow.

Up to ``EXACT`` rows every row meets every other. Beyond, rows meet where they share one of the cells nearest to them
(k-means): near-duplicates almost always do, and the recall is measured by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index.faiss_library import faiss

EXACT_MAX_ROWS = 100_000  # rows: at 512 dimensions 5e12 multiplications, about a minute on two cores
BLOCK_ROWS = 4096  # rows of one side of a block: 64 MiB of scores
CELLS_PER_ROW = 3  # nearest cells that a row is compared in
ROWS_PER_CELL = 500
_FEW = 20_000  # rows that k-means is tried on several times: one bad start may split a cluster and join two
_BUFFER = 2_000_000  # pairs held before they are reduced to a forest: 40 MB

UnitRowReader = Callable[[NDArray[np.int64]], NDArray[np.float32]]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True)
class RowGroups:
    """Rows joined by pairs, directly or in a chain.

    Attributes:
        rows: int64 ``(n,)``, those that are in a group of two or more, ascending.
        group: int64 ``(n,)``, from 0. weakest: float32, by group: the lowest cosine that its best chain needs.
        links: the pairs that hold the groups together (a maximum spanning forest).
    """

    rows: NDArray[np.int64]
    group: NDArray[np.int64]
    min_cosine: NDArray[np.float32]
    links: Pairs


def similar_pairs(read_rows: UnitRowReader, count: int, threshold: float, *, exact: bool) -> Iterator[Pairs]:
    """Pairs of rows ``(a, b, cosine)``, a < b, at or above a threshold; a pair may come more than once.

    Args:
        gather: unit rows, float32 ``(n, D)``, at given numbers. count: of rows.
        threshold: least cosine. exact: compare all with all.
    """
    if exact or count <= 2 * ROWS_PER_CELL:
        for first in range(0, count, BLOCK_ROWS):
            rows = np.arange(first, min(count, first + BLOCK_ROWS))
            left = read_rows(rows)
            yield _within(left, rows, threshold)
            for second in range(first + BLOCK_ROWS, count, BLOCK_ROWS):
                others = np.arange(second, min(count, second + BLOCK_ROWS))
                yield _between(left, rows, read_rows(others), others, threshold)
        return
    for members in _cells(read_rows, count):
        for first in range(0, len(members), BLOCK_ROWS):
            rows = members[first : first + BLOCK_ROWS]
            left = read_rows(rows)
            yield _within(left, rows, threshold)
            for second in range(first + BLOCK_ROWS, len(members), BLOCK_ROWS):
                others = members[second : second + BLOCK_ROWS]
                yield _between(left, rows, read_rows(others), others, threshold)


def connected_groups(pairs: Iterator[Pairs], count: int) -> RowGroups:
    """The groups that pairs make; memory is a forest's (at most one pair a row) and a buffer's.

    Args:
        found: pairs of row numbers below ``count``, in any order, repeated or not.
        count: of rows.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    empty = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    held, size = [empty], 0
    for more in pairs:
        held.append(more)
        size += len(more[0])
        if size > _BUFFER:
            held = [_forest(held, count)]
            size = 0
    a, b, cosine = _forest(held, count)
    _, label = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (count, count)), directed=False)
    rows = np.unique(np.concatenate([a, b]))
    _, group = np.unique(label[rows], return_inverse=True)
    weakest = np.ones(int(group.max(initial=-1)) + 1, np.float32)
    np.minimum.at(weakest, group[np.searchsorted(rows, a)], cosine)
    return RowGroups(rows, group.astype(np.int64), weakest, (a, b, cosine))


def _forest(held: list[Pairs], count: int) -> Pairs:
    """Of many pairs, those of a maximum spanning forest: they join the same groups with the same weakest links."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    a, b, cosine = (np.concatenate(column) for column in zip(*held, strict=True))
    if not len(a):
        return a, b, cosine
    key = a * count + b
    _, once = np.unique(key, return_index=True)  # a sum would be made of repeated pairs
    a, b, cosine = a[once], b[once], cosine[once]
    tree = minimum_spanning_tree(coo_matrix((2.0 - cosine.astype(np.float64), (a, b)), (count, count))).tocoo()
    return tree.row.astype(np.int64), tree.col.astype(np.int64), (2.0 - tree.data).astype(np.float32)


def _within(rows: NDArray[np.float32], ids: NDArray[np.int64], threshold: float) -> Pairs:
    """Pairs inside one block."""
    scores = rows @ rows.T
    i, j = np.nonzero(np.triu(scores >= threshold, 1))
    return _ordered(ids[i], ids[j], scores[i, j])


def _between(
    left: NDArray[np.float32],
    ids: NDArray[np.int64],
    right: NDArray[np.float32],
    others: NDArray[np.int64],
    threshold: float,
) -> Pairs:
    """Pairs of one block with another."""
    scores = left @ right.T
    i, j = np.nonzero(scores >= threshold)
    return _ordered(ids[i], others[j], scores[i, j])


def _ordered(a: NDArray[np.int64], b: NDArray[np.int64], cosine: NDArray[np.float32]) -> Pairs:
    """Each pair with its lower number first."""
    return np.minimum(a, b), np.maximum(a, b), cosine


def _cells(gather: UnitRowReader, count: int) -> Iterator[NDArray[np.int64]]:
    """The members of every cell, ascending; a row is in several."""
    centres = spherical_kmeans(gather, count, max(2, count // ROWS_PER_CELL))
    owners = np.empty((count, CELLS_PER_ROW), np.int32)
    for begin in range(0, count, BLOCK_ROWS):
        rows = np.arange(begin, min(count, begin + BLOCK_ROWS))
        scores = gather(rows) @ centres.T
        owners[rows] = np.argpartition(-scores, min(CELLS_PER_ROW, scores.shape[1] - 1), axis=1)[:, :CELLS_PER_ROW]
    order = np.argsort(owners.ravel(), kind="stable")
    cells = owners.ravel()[order]
    for members in np.split(order // CELLS_PER_ROW, np.flatnonzero(np.diff(cells)) + 1):
        if len(members) > 1:
            yield members


def spherical_kmeans(
    gather: UnitRowReader, count: int, k: int, *, samples_per_center: int = 40, iterations: int = 10
) -> NDArray[np.float32]:
    """Spherical k-means over a sample of at most ``each`` rows a centre: float32 ``(k, D)`` unit centres."""
    sample = np.sort(np.random.default_rng(0).permutation(count)[: k * samples_per_center])
    rows = gather(sample)
    means = faiss().Kmeans(
        rows.shape[1], k, niter=iterations, nredo=8 if len(rows) < _FEW else 1, spherical=True, seed=0,
        min_points_per_centroid=1, max_points_per_centroid=samples_per_center,
    )  # fmt: skip
    means.train(rows)
    centres: NDArray[np.float32] = means.centroids
    return centres

"""The nearest pairs among the rows of one matrix, block by block, with FAISS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.cosine_bounds import SAMPLE_ROWS, TILE, BoundTiles, main_directions, shorten
from embedstore.threads import map_parts

MAX_EXACT_WORK = 5e11  # multiplications of comparing all rows: about five seconds on two cores
ROWS_PER_CELL = 1000
CELLS_PER_ROW = 2  # nearest cells that a row is compared in
_BLOCK = 4096
_BOUNDED_COSINE = 0.5  # from which bounds in few dimensions rule out most pairs
_CROWDED = 8  # pairs per row that bounds leave in one product: beyond, all pairs of the rows are computed
_TRAINING_ROWS_PER_CELL = 40  # FAISS advises at least 39


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows, the most similar first, each once.

    Attributes:
        a: int64 ``(P,)``, the lower row.
        b: int64 ``(P,)``, the higher row.
        cosine: float32 ``(P,)``, descending, at most 1.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    cosine: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.a)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Pairs:
        """Return a selection of the pairs."""
        return Pairs(self.a[rows], self.b[rows], self.cosine[rows])


NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def is_exact(n_rows: int, dim: int) -> bool:
    """Return whether every row is compared with every other; more rows are compared within k-means cells."""
    return float(n_rows) * n_rows * dim <= MAX_EXACT_WORK or n_rows < 2 * ROWS_PER_CELL


def nearest_pairs(X: NDArray[np.float32], neighbors: int, *, min_cosine: float = -1.0) -> Pairs:
    """Return every row with its nearest neighbors.

    Args:
        X: rows ``(N, D)`` of any length; a memory map is read in blocks.
        neighbors: at most so many nearest rows of each row.
        min_cosine: leave out pairs below.

    Returns:
        At most ``N * neighbors`` pairs.
    """
    n = len(X)
    directions = _directions(X) if min_cosine >= _BOUNDED_COSINE else None
    cells = [np.arange(n)] if is_exact(n, X.shape[1]) else _cells(X)
    found = map_parts(lambda members: _pairs_within(X, members, neighbors, min_cosine, directions), cells)
    return _sorted_once([NO_PAIRS, *found], n)


def _directions(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the main directions of a sample of rows."""
    rows = np.random.default_rng(0).permutation(len(X))[:SAMPLE_ROWS]
    return main_directions(unit_rows(X[np.sort(rows)]))


def _pairs_within(
    X: NDArray[np.float32],
    members: NDArray[np.int64],
    neighbors: int,
    min_cosine: float,
    directions: NDArray[np.float32] | None,
) -> Pairs:
    """Return the nearest pairs among some rows; only their unit rows are in memory.

    Args:
        X: rows ``(N, D)``.
        members: int64 ``(M,)``, rows.
        neighbors: at most so many nearest rows of each row.
        min_cosine: leave out pairs below.
        directions: main directions, where bounds in few dimensions rule out pairs first; they lose none.
    """
    rows = np.concatenate([unit_rows(X[members[n : n + _BLOCK]]) for n in range(0, len(members), _BLOCK)])
    block, few = _BLOCK, None
    if directions is not None:
        block, few = TILE[0], _FewPairs(rows, shorten(rows, directions), min_cosine)
    nearest = _Nearest(rows, min(neighbors + 1, len(rows)), min_cosine)

    def pairs_of(begin: int) -> Pairs:
        pairs = few.of(begin) if few is not None else None
        if pairs is None or np.bincount(pairs[0], minlength=1).max() > neighbors:
            pairs = nearest.of(begin, begin + block)
        one, other = members[begin + pairs[0]], members[pairs[1]]
        return Pairs(np.minimum(one, other), np.maximum(one, other), pairs[2])

    return _sorted_once([NO_PAIRS, *map_parts(pairs_of, range(0, len(rows), block))], len(X))


_PlacedPairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # row in its block, row, cosine


class _Nearest:
    """The nearest rows of each row, by comparing all of them.

    Args:
        rows: float32 ``(M, D)``, unit rows.
        count: nearest rows of each row, the row itself included.
        min_cosine: leave out pairs below.
    """

    def __init__(self, rows: NDArray[np.float32], count: int, min_cosine: float) -> None:
        self._rows, self._count, self._min_cosine = rows, count, min_cosine

    def of(self, begin: int, end: int) -> _PlacedPairs:
        """Return the pairs of a block of rows."""
        import faiss

        cosine, place = faiss.knn(self._rows[begin:end], self._rows, self._count, metric=faiss.METRIC_INNER_PRODUCT)
        row, rank = np.nonzero(cosine >= self._min_cosine)
        return row, place[row, rank], cosine[row, rank]


class _FewPairs:
    """All pairs of a block of rows where they are few: bounds in few dimensions rule out most of them.

    Args:
        rows: float32 ``(M, D)``, unit rows.
        short: float32 ``(M, W)``, their short rows.
        min_cosine: leave out pairs below.
    """

    def __init__(self, rows: NDArray[np.float32], short: NDArray[np.float32], min_cosine: float) -> None:
        self._rows, self._short, self._min_cosine = rows, short, min_cosine
        self._bounds = BoundTiles()

    def of(self, begin: int) -> _PlacedPairs | None:
        """Return the pairs of a block of rows with all rows but themselves, None where bounds leave too many."""
        parts = []
        for first in range(0, len(self._rows), TILE[1]):
            row, other = self._possible(begin, first)
            if len(row) > _CROWDED * TILE[0]:
                return None
            cosine = np.einsum("ij,ij->i", self._rows[begin + row], self._rows[other])
            is_near = cosine >= self._min_cosine
            parts.append((row[is_near], other[is_near], cosine[is_near]))
        row, other, cosine = (np.concatenate(part) for part in zip(*parts, strict=True))
        return row, other, cosine

    def _possible(self, begin: int, first: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs of one tile that may be near enough."""
        one, other = self._short[begin : begin + TILE[0]], self._short[first : first + TILE[1]]
        row, column = self._bounds.possible_pairs(one, other, self._min_cosine)
        column += first
        is_other = begin + row != column
        return row[is_other], column[is_other]


def _sorted_once(parts: list[Pairs], n: int) -> Pairs:
    """Return all pairs of different rows, each once, the most similar first."""
    a, b = (np.concatenate([getattr(p, name) for p in parts]) for name in ("a", "b"))
    cosine = np.minimum(np.concatenate([p.cosine for p in parts]), np.float32(1))
    _, once = np.unique(a * n + b, return_index=True)
    once = once[a[once] != b[once]]
    order = once[np.argsort(-cosine[once], kind="stable")]
    return Pairs(a[order], b[order], cosine[order])


def _cells(X: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    """Yield the members of every k-means cell, ascending; a row is in its two nearest cells."""
    import faiss

    n, n_cells = len(X), len(X) // ROWS_PER_CELL
    rows = np.random.default_rng(0).choice(n, min(n, _TRAINING_ROWS_PER_CELL * n_cells), replace=False)
    kmeans = faiss.Kmeans(X.shape[1], n_cells, niter=10, spherical=True, seed=1)
    kmeans.train(unit_rows(X[np.sort(rows)]))
    owners = np.empty((n, CELLS_PER_ROW), np.int64)
    for begin in range(0, n, _BLOCK):
        owners[begin : begin + _BLOCK] = kmeans.index.search(unit_rows(X[begin : begin + _BLOCK]), CELLS_PER_ROW)[1]
    order = np.argsort(owners.ravel(), kind="stable")
    bounds = np.flatnonzero(np.diff(owners.ravel()[order])) + 1
    yield from np.split(order // CELLS_PER_ROW, bounds)

"""Find all pairs of rows above a cosine, block by block, in memory that pairs do not grow.

Up to ``EXACT_MAX_ROWS`` rows, every row is compared with every other. Beyond, a row is compared with the rows whose
nearest k-means cell is among its own nearest cells; the caller measures what that misses. Rows are compared in few
dimensions first (:mod:`embedstore.cosine_bounds`): that rules out pairs and loses none.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from embedstore.cosine_bounds import ROUNDING
from embedstore.search.index.faiss_library import faiss
from embedstore.search.index.kmeans import UnitRowReader, spherical_kmeans

EXACT_MAX_ROWS = 200_000  # rows: 2e10 products of 65 numbers, about 20 s on two idle cores
BLOCK_ROWS = 4096  # most rows that are read at once for one side
ROWS_PER_CELL = 500
CELLS_PER_ROW = 16  # nearest cells in which a row is compared with the rows at home there
_TILE = (1024, 2048)  # rows of each side of one product: its 8 MiB of scores stay in the processor's cache
_CROWDED_SHARE = 0.01  # of the pairs of a tile that few dimensions leave: beyond, the whole tile is computed
_ASSIGNED_ROWS = 65536  # rows whose cells are searched at once

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
NO_PAIRS: Pairs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


class SelfJoin:
    """One search for pairs.

    Args:
        read_rows: reads unit rows.
        short: short rows of all of them.
        threshold: least cosine.
    """

    def __init__(self, read_rows: UnitRowReader, short: NDArray[np.float32], threshold: float) -> None:
        self._read_rows, self._short, self._threshold = read_rows, short, threshold
        self._size = BLOCK_ROWS
        self._scores = np.empty(_TILE, np.float32)

    @property
    def is_small(self) -> bool:
        """Whether comparing within cells would be no less work than comparing all rows."""
        return len(self._short) <= CELLS_PER_ROW * ROWS_PER_CELL

    def all_pairs(self) -> Iterator[Pairs]:
        """Yield the pairs among all rows: ``(a, b, cosine)``, a < b, each once."""
        for first in range(0, len(self._short), self._size):
            block = self._block(first)
            for second in range(first, len(self._short), self._size):
                for a, b, cosine in self._compare(block, self._block(second) if second > first else block):
                    yield _selected((a, b, cosine), a < b)

    def pairs_with(self, rows: NDArray[np.int64]) -> Iterator[Pairs]:
        """Yield the pairs of some rows with all rows, each once, the lower row first; no row with itself.

        Args:
            rows: int64 ``(n,)``, ascending.
        """
        wanted = np.zeros(len(self._short), np.bool_)
        wanted[rows] = True
        for first in range(0, len(rows), self._size):
            block = _Rows(rows[first : first + self._size], self._read_rows)
            for second in range(0, len(self._short), self._size):
                for a, b, cosine in self._compare(block, self._block(second)):
                    yield _ordered(_selected((a, b, cosine), (a < b) | ((a > b) & ~wanted[b])))

    def pairs_in_cells(self) -> Iterator[Pairs]:
        """Yield the pairs of which one is at home in a cell that the other visits: a < b, each once."""
        visited = self._visited_cells()
        home = visited[:, 0]
        by_home, by_visit = np.argsort(home, kind="stable"), np.argsort(visited.ravel(), kind="stable")
        cells = np.arange(home.max() + 2)
        homes, visits = np.searchsorted(home[by_home], cells), np.searchsorted(visited.ravel()[by_visit], cells)
        for cell in cells[:-1].tolist():
            members = by_home[homes[cell] : homes[cell + 1]]
            visitors = by_visit[visits[cell] : visits[cell + 1]] // visited.shape[1]
            for pairs in self._compare_cell(visitors, members):
                yield _ordered(_selected(pairs, _first_place(pairs, home, visited)))

    def _compare_cell(self, visitors: NDArray[np.int64], members: NDArray[np.int64]) -> Iterator[Pairs]:
        """Yield the pairs of the visitors of a cell with those at home there."""
        for first in range(0, len(visitors), self._size):
            block = _Rows(visitors[first : first + self._size], self._read_rows)
            for second in range(0, len(members), self._size):
                yield from self._compare(block, _Rows(members[second : second + self._size], self._read_rows))

    def _visited_cells(self) -> NDArray[np.int32]:
        """Return the nearest cells of each row, int32 ``(N, P)``, the nearest first."""
        count = len(self._short)
        n_cells = max(2, count // ROWS_PER_CELL)
        centers = spherical_kmeans(lambda rows: self._short[rows], count, n_cells)
        index = faiss().IndexFlatIP(centers.shape[1])
        index.add(centers)
        visited = np.empty((count, min(CELLS_PER_ROW, n_cells)), np.int32)
        for begin in range(0, count, _ASSIGNED_ROWS):
            rows = np.ascontiguousarray(self._short[begin : begin + _ASSIGNED_ROWS])
            visited[begin : begin + len(rows)] = index.search(rows, visited.shape[1])[1]
        return visited

    def _block(self, first: int) -> _Rows:
        """Return the block of rows that begins at a number."""
        return _Rows(np.arange(first, min(len(self._short), first + self._size)), self._read_rows)

    def _compare(self, one: _Rows, other: _Rows) -> Iterator[Pairs]:
        """Yield the pairs of one block with another, a pair of the same two rows and both orders included."""
        one_short, other_short = self._short[one.ids], self._short[other.ids]
        for i in range(0, len(one.ids), _TILE[0]):
            for j in range(0, len(other.ids), _TILE[1]):
                left, right = slice(i, i + _TILE[0]), slice(j, j + _TILE[1])
                rows, columns, crowded = self._candidates(one_short[left], other_short[right])
                if crowded:
                    yield _scored(one.ids[left], other.ids[right], one.rows[left], other.rows[right], self._threshold)
                elif len(rows):
                    yield self._checked(one.ids[left][rows], other.ids[right][columns])

    def _candidates(
        self, one: NDArray[np.float32], other: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
        """Return the pairs that the bounds leave, and whether they are so many that all should be computed."""
        scores = self._scores.ravel()[: len(one) * len(other)].reshape(len(one), len(other))
        np.matmul(one, other.T, out=scores)
        limit = np.float32(self._threshold - ROUNDING)
        near = np.flatnonzero(scores.max(axis=1) >= limit)
        rows, columns = np.nonzero(scores[near] >= limit)
        return near[rows], columns, len(rows) > _CROWDED_SHARE * scores.size + _TILE[0]

    def _checked(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> Pairs:
        """Return the pairs of rows that are above the threshold."""
        (left, i), (right, j) = (np.unique(ids, return_inverse=True) for ids in (a, b))
        cosine = np.einsum("ij,ij->i", self._read_rows(left)[i], self._read_rows(right)[j])
        return _selected((a, b, cosine), cosine >= self._threshold)


class _Rows:
    """Some rows, read when they are needed."""

    def __init__(self, ids: NDArray[np.int64], read_rows: UnitRowReader) -> None:
        self.ids, self._read_rows = ids, read_rows

    @cached_property
    def rows(self) -> NDArray[np.float32]:
        """The unit rows."""
        return self._read_rows(self.ids)


def _scored(
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    rows: NDArray[np.float32],
    other_rows: NDArray[np.float32],
    threshold: float,
) -> Pairs:
    """Return the pairs of two blocks, all computed."""
    scores = rows @ other_rows.T
    i, j = np.nonzero(scores >= threshold)
    return a[i], b[j], scores[i, j]


def _first_place(pairs: Pairs, home: NDArray[np.int32], visited: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which pairs of a visitor and a member belong to this cell, so that no pair is found in two cells.

    If each visits the home of the other, the pair belongs to the lower home.
    """
    visitor, member, _ = pairs
    at_home, elsewhere = home[visitor], home[member]
    mutual = (visited[member] == at_home[:, None]).any(axis=1)
    return np.asarray(np.where(at_home == elsewhere, visitor < member, (elsewhere < at_home) | ~mutual))


def _selected(pairs: Pairs, which: NDArray[np.bool_]) -> Pairs:
    """Return some of the pairs."""
    a, b, cosine = pairs
    return a[which], b[which], cosine[which]


def _ordered(pairs: Pairs) -> Pairs:
    """Return each pair with its lower row first."""
    a, b, cosine = pairs
    return np.minimum(a, b), np.maximum(a, b), cosine

"""Find all pairs of rows above a cosine, block by block, in memory that pairs do not grow.

Up to ``EXACT_MAX_ROWS`` rows, every row is compared with every other. Beyond, a row is compared with the rows whose
nearest k-means cell is among its own nearest cells; the caller measures what that misses. Rows are compared in few
dimensions first (:mod:`embedstore.cosine_bounds`): that rules out pairs and loses none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from embedstore.cosine_bounds import TILE, BoundTiles
from embedstore.search.index.faiss_library import faiss
from embedstore.search.index.kmeans import UnitRowReader, spherical_kmeans
from embedstore.threads import map_parts

EXACT_MAX_ROWS = 200_000  # rows: 2e10 products of 65 numbers, about 20 s on two idle cores
BLOCK_ROWS = 4096  # rows that are read at once
ROWS_PER_CELL = 500
CELLS_PER_ROW = 16  # nearest cells in which a row is compared with the rows at home there
_CROWDED_SHARE = 0.01  # of the pairs of a tile that few dimensions leave: beyond, the whole tile is computed
_ASSIGNED_ROWS = 65536  # rows whose cells are searched at once

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
_Tile = tuple[NDArray[np.int64], NDArray[np.int64]]  # rows of both sides
NO_PAIRS: Pairs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


class SelfJoin:
    """One search for pairs, tile by tile on all cores.

    Args:
        read_rows: reads unit rows, in several threads at once.
        short: short rows of all of them.
        threshold: least cosine.
    """

    def __init__(self, read_rows: UnitRowReader, short: NDArray[np.float32], threshold: float) -> None:
        self._read_rows, self._short, self._threshold = read_rows, short, threshold
        self._bounds = BoundTiles()

    @property
    def is_small(self) -> bool:
        """Whether comparing within cells would be no less work than comparing all rows."""
        return len(self._short) <= CELLS_PER_ROW * ROWS_PER_CELL

    def all_pairs(self) -> Iterator[Pairs]:
        """Yield the pairs among all rows: ``(a, b, cosine)``, a < b, each once."""
        ids = np.arange(len(self._short))
        tiles = ((one, other) for one, other in _tiles(ids, ids) if one[0] <= other[-1])
        for pairs in self._compared(tiles):
            yield _selected(pairs, pairs[0] < pairs[1])

    def pairs_with(self, rows: NDArray[np.int64]) -> Iterator[Pairs]:
        """Yield the pairs of some rows with all rows, each once, the lower row first; no row with itself.

        Args:
            rows: int64 ``(n,)``, ascending.
        """
        wanted = np.zeros(len(self._short), np.bool_)
        wanted[rows] = True
        for a, b, cosine in self._compared(_tiles(rows, np.arange(len(self._short)))):
            yield _ordered(_selected((a, b, cosine), (a < b) | ((a > b) & ~wanted[b])))

    def pairs_in_cells(self) -> Iterator[Pairs]:
        """Yield the pairs of which one is at home in a cell that the other visits: a < b, each once."""
        visited = self._visited_cells()
        home = visited[:, 0]
        for pairs in self._compared(_tiles_of_cells(visited)):
            yield _ordered(_selected(pairs, _first_place(pairs, home, visited)))

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

    def _compared(self, tiles: Iterable[_Tile]) -> Iterator[Pairs]:
        """Yield the pairs of each tile, a pair of the same two rows and both orders included."""
        return map_parts(lambda tile: self._compare(*tile), tiles)

    def _compare(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> Pairs:
        """Return the pairs of one tile: those that the bounds leave, or all where they leave many."""
        rows, columns = self._bounds.possible_pairs(self._short[one], self._short[other], self._threshold)
        if len(rows) > _CROWDED_SHARE * len(one) * len(other) + len(one):
            return self._scored(one, other)
        return self._checked(one[rows], other[columns]) if len(rows) else NO_PAIRS

    def _scored(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> Pairs:
        """Return the pairs of one tile, all computed."""
        scores = self._read_rows(one) @ self._read_rows(other).T
        i, j = np.nonzero(scores >= self._threshold)
        return one[i], other[j], scores[i, j]

    def _checked(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> Pairs:
        """Return the pairs of rows that are above the threshold."""
        (left, i), (right, j) = (np.unique(ids, return_inverse=True) for ids in (a, b))
        cosine = np.einsum("ij,ij->i", self._read_rows(left)[i], self._read_rows(right)[j])
        return _selected((a, b, cosine), cosine >= self._threshold)


def _tiles(rows: NDArray[np.int64], others: NDArray[np.int64]) -> Iterator[_Tile]:
    """Yield the tiles of the pairs of some rows with others."""
    for first in range(0, len(rows), TILE[0]):
        for second in range(0, len(others), TILE[1]):
            yield rows[first : first + TILE[0]], others[second : second + TILE[1]]


def _tiles_of_cells(visited: NDArray[np.int32]) -> Iterator[_Tile]:
    """Yield the tiles of the visitors of each cell with those at home there."""
    home, visits = visited[:, 0], visited.ravel()
    by_home, by_visit = np.argsort(home, kind="stable"), np.argsort(visits, kind="stable")
    cells = np.arange(home.max() + 2)
    home_ends, visit_ends = np.searchsorted(home[by_home], cells), np.searchsorted(visits[by_visit], cells)
    for cell in cells[:-1].tolist():
        visitors = by_visit[visit_ends[cell] : visit_ends[cell + 1]] // visited.shape[1]
        yield from _tiles(visitors, by_home[home_ends[cell] : home_ends[cell + 1]])


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

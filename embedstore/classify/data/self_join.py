"""The nearest pairs among the rows of one matrix, block by block, with FAISS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows

MAX_EXACT_WORK = 5e11  # multiplications of comparing all rows: about five seconds on two cores
ROWS_PER_CELL = 1000
CELLS_PER_ROW = 2  # nearest cells that a row is compared in
_BLOCK = 4096
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
    found = [NO_PAIRS]
    for members in [np.arange(n)] if is_exact(n, X.shape[1]) else _cells(X):
        found.append(_pairs_within(X, members, neighbors, min_cosine))
    return _sorted_once(found, n)


def _pairs_within(X: NDArray[np.float32], members: NDArray[np.int64], neighbors: int, min_cosine: float) -> Pairs:
    """Return the nearest pairs among some rows; only their unit rows are in memory."""
    import faiss

    index = faiss.IndexFlatIP(X.shape[1])
    for begin in range(0, len(members), _BLOCK):
        index.add(unit_rows(X[members[begin : begin + _BLOCK]]))
    found = [NO_PAIRS]
    for begin in range(0, len(members), _BLOCK):
        ids = members[begin : begin + _BLOCK]
        cosine, place = index.search(unit_rows(X[ids]), min(neighbors + 1, len(members)))
        row, rank = np.nonzero(cosine >= min_cosine)
        one, other = ids[row], members[place[row, rank]]
        found.append(Pairs(np.minimum(one, other), np.maximum(one, other), cosine[row, rank]))
    return _sorted_once(found, len(X))


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

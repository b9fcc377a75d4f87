"""Upper bounds of cosines from few dimensions, which rule out pairs of rows and lose none.

A unit row x is split into its part p in a subspace and the rest, of length r. By the inequality of Cauchy and Schwarz
the cosine of two rows is at most ``p·p' + r r'``, which is the product of the rows ``(p, r)`` and ``(p', r')``. So a
pair whose bound is below a threshold is below it, whatever the subspace; the main directions of the rows make the
bound tight.
"""

from __future__ import annotations

from threading import local

import numpy as np
from numpy.typing import NDArray

from embedstore.threads import single_threaded_algebra

TILE = (1024, 2048)  # rows of each side of one product: its 8 MiB of bounds stay in the processor's cache
WIDTH = 64  # directions that are kept
ROUNDING = 1e-5  # float32 sums of so few products are right to this
SAMPLE_ROWS = 4096  # rows that give the main directions
_ITERATIONS = 4  # of the search for directions
_MIN_DIM = 2 * WIDTH  # rows of fewer dimensions are used whole


def main_directions(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the main directions of a sample of unit rows, float32 ``(D, W)``; the identity if D is small.

    They are found by iterations on a random subspace (Halko, Martinsson and Tropp 2011, algorithm 4.4): the bound holds
    in any subspace, and all eigenvectors of 1,280 dimensions take longer than the pairs of a thousand rows.
    """
    if sample.shape[1] <= _MIN_DIM:
        return np.eye(sample.shape[1], dtype=np.float32)
    directions = np.random.default_rng(0).standard_normal((sample.shape[1], WIDTH), np.float32)
    with single_threaded_algebra():
        for _ in range(_ITERATIONS):
            directions = np.linalg.qr(sample.T @ (sample @ directions))[0]
        return np.ascontiguousarray(np.linalg.qr(directions.astype(np.float64))[0], dtype=np.float32)


def shorten(rows: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the parts of unit rows along the directions and the length of the rest; the rows if nothing is cut."""
    if directions.shape[0] == directions.shape[1]:
        return rows
    part = rows @ directions
    rest = np.einsum("ij,ij->i", rows, rows) - np.einsum("ij,ij->i", part, part)
    return np.column_stack([part, np.sqrt(np.maximum(rest, 0))])


class BoundTiles:
    """Bounds of one tile of pairs at a time; several threads may ask at once."""

    def __init__(self) -> None:
        self._own = local()  # of each thread: the memory of one product

    def possible_pairs(
        self, one: NDArray[np.float32], other: NDArray[np.float32], min_cosine: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of the pairs whose cosine may reach a least one, in one side and in the other.

        Args:
            one: float32 ``(n, W)``, short rows, at most ``TILE[0]``.
            other: float32 ``(m, W)``, short rows, at most ``TILE[1]``.
            min_cosine: the least cosine.
        """
        if not hasattr(self._own, "bounds"):
            self._own.bounds = np.empty(TILE[0] * TILE[1], np.float32)
        bounds = self._own.bounds[: len(one) * len(other)].reshape(len(one), len(other))
        np.matmul(one, other.T, out=bounds)
        least = np.float32(min_cosine - ROUNDING)
        near = np.flatnonzero(bounds.max(axis=1) >= least)
        rows, columns = np.nonzero(bounds[near] >= least)
        return near[rows], columns

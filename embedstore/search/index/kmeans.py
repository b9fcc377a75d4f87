"""Spherical k-means over rows that are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index.faiss_library import faiss

_RESTART_MAX_ROWS = 20_000  # rows up to which k-means is run eight times: one bad start may split a cluster
_RESTARTS = 8

UnitRowReader = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # unit rows, float32 (n, D), at given numbers


def spherical_kmeans(
    read_rows: UnitRowReader, count: int, k: int, *, samples_per_center: int = 40, iterations: int = 10
) -> NDArray[np.float32]:
    """Return k centers of unit rows.

    Args:
        read_rows: reads unit rows.
        count: number of rows.
        k: number of centers.
        samples_per_center: rows to train with per center, at most.
        iterations: the number of iterations of k-means.

    Returns:
        float32 ``(k, D)``.
    """
    sample = np.sort(np.random.default_rng(0).permutation(count)[: k * samples_per_center])
    rows = read_rows(sample)
    kmeans = faiss().Kmeans(
        rows.shape[1], k, niter=iterations, nredo=_RESTARTS if len(rows) < _RESTART_MAX_ROWS else 1, spherical=True,
        seed=0, min_points_per_centroid=1, max_points_per_centroid=samples_per_center,
    )  # fmt: skip
    kmeans.train(rows)
    centers: NDArray[np.float32] = kmeans.centroids
    return centers

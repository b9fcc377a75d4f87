"""k-means over rows in memory. The same rows and seed give the same clusters."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from embedstore.arrays import FloatArray, IntArray, unit_rows
from embedstore.threads import single_threaded_algebra

_ITERATIONS = 20
_SMALL = (
    1e10  # multiplications in under a second of one core, which many products of several cores would only slow down
)


def centered_unit_rows(X: FloatArray) -> FloatArray:
    """Return rows less their mean, with length 1: what all rows have in common hides how they differ."""
    return unit_rows(X - X.mean(axis=0, dtype=np.float32))


def centers_of(X: FloatArray, k: int, *, weights: FloatArray | None = None, seed: int = 0) -> FloatArray:
    """Return k centers, float32 ``(k, D)``.

    Args:
        X: float32 ``(N, D)``, with ``N >= k``.
        k: the number of centers.
        weights: how much each row counts, ``(N,)``; equal by default.
        seed: the random seed of the first centers (k-means++, Arthur and Vassilvitskii 2007).
    """
    import faiss
    from sklearn.cluster import kmeans_plusplus

    X = np.ascontiguousarray(X)
    weights = None if weights is None else weights.astype(np.float32)
    kmeans = faiss.Kmeans(
        X.shape[1], k, niter=_ITERATIONS, seed=seed, min_points_per_centroid=1, max_points_per_centroid=max(1, len(X))
    )
    with single_threaded_algebra() if X.size * k * _ITERATIONS < _SMALL else nullcontext():
        first, _ = kmeans_plusplus(X, k, sample_weight=weights, random_state=seed)
        kmeans.train(X, weights, init_centroids=first)
    return np.asarray(kmeans.centroids)


def nearest_center(X: FloatArray, centers: FloatArray) -> IntArray:
    """Return the number of the nearest center of each row, int64 ``(N,)``."""
    return np.asarray(((centers**2).sum(1)[None] - 2 * (X @ centers.T)).argmin(1), dtype=np.int64)


def nearest_rows(X: FloatArray, centers: FloatArray) -> IntArray:
    """Return for each center its nearest row that no earlier center has, int64 ``(K,)``; ``N >= K``."""
    distance = (X**2).sum(1)[:, None] - 2 * (X @ centers.T)
    chosen: list[int] = []
    for column in distance.T:
        column[chosen] = np.inf
        chosen.append(int(column.argmin()))
    return np.array(chosen, dtype=np.int64)

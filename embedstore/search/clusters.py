"""K-means clusters and outlier scores of items. Memory is bounded by a block and a few numbers per item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.errors import QueryError
from embedstore.search.index.kmeans import spherical_kmeans
from embedstore.search.index.self_join import BLOCK_ROWS
from embedstore.search.space_rows import MatchingRows
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.wording import counted

_SAMPLES_PER_CENTER, _ITERATIONS = 256, 20  # more than FAISS needs for an index: a person looks at these clusters


@dataclass(frozen=True)
class Clusters:
    """The cluster and outlier score of each item.

    Attributes:
        items: int64 ``(n,)`` ids, ascending.
        cluster: int64 ``(n,)``, numbered by size; 0 is the largest.
        outlier_score: float32 ``(n,)``, 1 - cosine with the cluster's center; high is unlike all others.
    """

    items: NDArray[np.int64]
    cluster: NDArray[np.int64]
    outlier_score: NDArray[np.float32]


def find_clusters(storage: Storage, space: SpaceRecord, k: int, *, where: str | None = None) -> Clusters:
    """Cluster the unit vectors of a space by k-means.

    Args:
        storage: the store.
        space: the space.
        k: number of clusters.
        where: only items that match this filter.

    Raises:
        QueryError: if k is below 1 or above the number of contents.
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the filter names a column that the items lack.
    """
    matching = MatchingRows.load(storage, space, where)
    count, read_rows = len(matching), matching.reader()
    if not 1 <= k <= count:
        raise QueryError(f"k must be between 1 and the {counted(count, 'different content')}, not {k}")
    centers = unit_rows(
        spherical_kmeans(read_rows, count, k, samples_per_center=_SAMPLES_PER_CENTER, iterations=_ITERATIONS)
    )
    cluster, outlier = np.empty(count, np.int64), np.empty(count, np.float32)
    for begin in range(0, count, BLOCK_ROWS):
        rows = np.arange(begin, min(count, begin + BLOCK_ROWS))
        scores = read_rows(rows) @ centers.T
        cluster[rows], outlier[rows] = scores.argmax(axis=1), 1 - scores.max(axis=1)
    sizes = np.bincount(cluster[matching.content], minlength=k)
    number = np.empty(k, np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(k)
    return Clusters(matching.items, number[cluster][matching.content], outlier[matching.content])

"""Typical rows of regions without a label: what to label first, before a head can know what it is unsure of.

After Hacohen, Dekel and Weinshall 2022, "Active learning on a budget: opposite strategies suit high and low budgets"
(TypiClust): all rows are clustered into as many clusters as there will be labels. The largest clusters with the fewest
labels come first, and of each the row whose neighbors are nearest.
"""

from __future__ import annotations

import numpy as np

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.evaluation.row_clusters import centered_unit_rows, centers_of, nearest_center

MAX_CLUSTERS = 500
NEIGHBORS = 20  # that typicality is measured on
_MAX_CLUSTER_ROWS = 2000  # of one cluster compared with each other, the first of it


def typical_rows(X: FloatArray, labeled: FloatArray, k: int, *, seed: int = 0) -> list[int]:
    """Choose k rows without a label, the most useful first.

    Args:
        X: unit rows without a label, float32 ``(N, D)``.
        labeled: unit rows with a label, float32 ``(M, D)``.
        k: how many, at most N are returned.
        seed: the random seed of the clusters.
    """
    k = min(k, len(X))
    if not k:
        return []
    everything = centered_unit_rows(np.concatenate([X, labeled]))
    n_clusters = min(len(labeled) + k, MAX_CLUSTERS, len(everything))
    cluster = nearest_center(everything, centers_of(everything, n_clusters, seed=seed))
    queues = {c: _by_typicality(everything, members, len(X)) for c, members in _members(cluster).items()}
    labels = np.bincount(cluster[len(X) :], minlength=n_clusters)
    sizes = np.bincount(cluster, minlength=n_clusters)
    chosen: list[int] = []
    while len(chosen) < k:
        c = min((c for c, queue in queues.items() if queue), key=lambda c: (labels[c], -sizes[c], c))
        chosen.append(queues[c].pop(0))
        labels[c] += 1
    return chosen


def _members(cluster: IntArray) -> dict[int, IntArray]:
    """Return the rows of each cluster."""
    order = np.argsort(cluster, kind="stable")
    bounds = np.flatnonzero(np.diff(cluster[order])) + 1
    return {int(cluster[part[0]]): part for part in np.split(order, bounds)}


def _by_typicality(rows: FloatArray, members: IntArray, n_unlabeled: int) -> list[int]:
    """Return the unlabeled rows of one cluster, those with the nearest neighbors in the cluster first."""
    members = members[:_MAX_CLUSTER_ROWS]
    unlabeled = members[members < n_unlabeled]
    if len(members) < 2:
        return [int(i) for i in unlabeled]
    cosine = rows[unlabeled] @ rows[members].T
    count = min(NEIGHBORS, len(members) - 1)
    distance = np.sqrt(np.maximum(0.0, 2 - 2 * np.sort(cosine, axis=1)[:, -count - 1 : -1])).mean(1)
    return [int(i) for i in unlabeled[np.argsort(distance, kind="stable")]]

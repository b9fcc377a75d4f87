"""Faults of classes that show in the vectors: outliers, a class of two clusters, two classes that look like one.

Rows must be independent: one per group. ``tests/classify/test_class_faults.py`` measures false findings.

*Outliers* are farther from their nearest rows than a fence above the middle of their class, as a box plot has one
(Tukey 1977), in the logarithm of the distance, which is nearer to a normal distribution.

*Two clusters* are tested on rows that did not find them. k-means of two centers on one half of a class gives a line,
the other half is projected on it, and the same the other way round. Three windows of one width are around the first
center, halfway, and around the second center. If the projected rows have one mode, the window halfway is expected to
hold at least as many of them as the emptier of the others. A class is reported if it holds fewer than either: both
exact binomial tests must reject.

*Two names for one class* are two classes that neither a linear nor a nearest-neighbor classifier can tell apart: the
upper limit of the share of rows that the better of them predicts right without them is near chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.evaluation.row_clusters import centers_of
from embedstore.classify.metrics.shares import wilson_interval

Classes = dict[str, IntArray]

LEVEL = 0.05  # of a set of classes of one mode with a class that is reported as two clusters
LEAST_ROWS = 20  # of a class that is looked at
MAX_ROWS_PER_CLASS = 500
MAX_ROWS = 10_000
MAX_ROWS_OF_A_PAIR = 100  # of each of two classes that are compared
MAX_PAIRS = 200  # of classes that are compared, those with the nearest means
NEIGHBORS = 5
OUTLIER_FENCE = 6.0  # spreads above the middle
SAME_CLASS_LIMIT = 0.7  # of the share of rows predicted right; chance is 0.5
_LEAST_SPREAD = 0.02  # of the logarithms: distances that are equal but for rounding have no outlier
_NEAR_CLASSES = 3  # other classes that a class is compared with
_WINDOW = 1 / 3  # of the distance of the two centers
_BLOCK = 1_000
_PENALTY = 1e-2  # of least squares, in parts of the sum of squares of the rows
_NORMAL_QUARTILE = 0.6745  # upper quartile of the normal distribution


@dataclass(frozen=True)
class TwoClusters:
    """A class of two clusters.

    Attributes:
        name: the name of the class.
        larger: int64 ``(A,)``, the rows of the larger cluster.
        smaller: int64 ``(B,)``, the rows of the smaller one.
        p_value: the p-value of the test that there is one mode.
    """

    name: str
    larger: IntArray
    smaller: IntArray
    p_value: float


@dataclass(frozen=True)
class SameClasses:
    """Two classes that look like one.

    Attributes:
        names: the names of the classes.
        share: the share of their rows that are predicted right without them, by the better of two classifiers; chance
            is 0.5.
        limit: the upper end of its 95% interval.
    """

    names: tuple[str, str]
    share: float
    limit: float


def class_rows(y: NDArray[np.str_], *, seed: int = 0) -> Classes:
    """Return the rows of each class that has enough of them, a random sample of large ones.

    Args:
        y: the class of each row ``(N,)``.
        seed: the random seed of the samples.
    """
    rng = np.random.default_rng(seed)
    names, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    large = np.flatnonzero(counts >= LEAST_ROWS)
    limit = max(LEAST_ROWS, min(MAX_ROWS_PER_CLASS, MAX_ROWS // max(len(large), 1)))
    return {
        str(names[number]): np.sort(rng.permutation(np.flatnonzero(codes == number))[:limit])
        for number in large.tolist()
    }


def outlier_rows(X: FloatArray, classes: Classes) -> IntArray:
    """Return rows that are unlike all others, int64 ``(M,)``, the farthest beyond the fence of their class first.

    Args:
        X: unit rows, float32 ``(N, D)``.
        classes: the rows of each class; other rows are not looked at.
    """
    if not classes:
        return np.empty(0, np.int64)
    rows = np.concatenate(list(classes.values()))
    distance = _neighbor_distance(X[rows])
    bounds = np.cumsum([len(members) for members in classes.values()])[:-1]
    beyond = np.concatenate([_beyond_fence(part) for part in np.split(distance, bounds)])
    order = np.argsort(-beyond, kind="stable")
    return rows[order[beyond[order] > 0]]


def _neighbor_distance(X: FloatArray) -> FloatArray:
    """Return the mean distance of each row from its nearest other rows, ``(N,)``."""
    count = min(NEIGHBORS, len(X) - 1)
    out = np.empty(len(X), np.float32)
    for begin in range(0, len(X), _BLOCK):
        cosine = X[begin : begin + _BLOCK] @ X.T
        rows = np.arange(len(cosine))
        cosine[rows, begin + rows] = -np.inf
        nearest = np.partition(cosine, -count, axis=1)[:, -count:]
        out[begin + rows] = np.sqrt(np.maximum(2 - 2 * nearest, 0)).mean(1)
    return out


def _beyond_fence(distance: FloatArray) -> FloatArray:
    """Return how many spreads each distance is above the fence; below 0 within it."""
    logs = np.log(np.maximum(distance, 1e-6))
    low, middle, high = np.quantile(logs, [0.25, 0.5, 0.75])
    spread = max(high - middle, middle - low, _LEAST_SPREAD) / _NORMAL_QUARTILE
    return np.asarray((logs - middle) / spread - OUTLIER_FENCE)


def two_clusters(X: FloatArray, classes: Classes, *, seed: int = 0) -> list[TwoClusters]:
    """Return the classes whose rows are two clusters, the most certain first.

    Args:
        X: unit rows, float32 ``(N, D)``.
        classes: the rows of each class.
        seed: the random seed of the halves and of k-means.
    """
    found = []
    for name, rows in classes.items():
        p_value, is_second = _one_mode(X[rows], seed)
        if p_value < LEVEL / len(classes):
            smaller, larger = sorted((rows[is_second], rows[~is_second]), key=len)
            found.append(TwoClusters(name, larger, smaller, p_value))
    return sorted(found, key=lambda cluster: cluster.p_value)


def _one_mode(X: FloatArray, seed: int) -> tuple[float, NDArray[np.bool_]]:
    """Return the p-value of one mode, and which rows are nearer to the second center.

    Each half is projected on the line of the other half, and tested alone and together with the other: together finds
    more in few rows, alone where one of the lines misses the clusters. The level is divided among the three tests, half
    of it for the one of all rows.
    """
    fitted = np.random.default_rng(seed).permutation(len(X)) % 2 == 0
    one, other = (_places_between_centers(X, half, seed) for half in (fitted, ~fitted))
    if (one - 0.5) @ (other - 0.5) < 0:  # the centers of the other half are in the other order
        other = 1 - other
    together = np.where(fitted, other, one)
    tests = [(2 * one_mode_p_value(together), together)]
    tests += [(4 * one_mode_p_value(place[held_out]), place) for place, held_out in ((one, ~fitted), (other, fitted))]
    p_value, place = min(tests, key=lambda test: test[0])
    return min(1.0, p_value), place > 0.5


def _places_between_centers(X: FloatArray, fitted: NDArray[np.bool_], seed: int) -> FloatArray:
    """Return the place of each row on the line between two centers, 0 at the first and 1 at the second, ``(N,)``."""
    first, second = centers_of(X[fitted], 2, seed=seed)
    line = second - first
    return np.asarray((X - first) @ line / max(float(line @ line), 1e-12))


def one_mode_p_value(place: FloatArray) -> float:
    """Return the p-value of "halfway there are at least as many rows as around the emptier center"."""
    from scipy.stats import binom

    left, middle, right = (int((np.abs(place - center) <= _WINDOW / 2).sum()) for center in (0.0, 0.5, 1.0))
    return float(max(binom.cdf(middle, middle + side, 1 / 2) for side in (left, right)))


def same_classes(X: FloatArray, classes: Classes, *, seed: int = 0) -> list[SameClasses]:
    """Return the pairs of classes that cannot be told apart, those nearest to chance first.

    Args:
        X: unit rows, float32 ``(N, D)``.
        classes: the rows of each class.
        seed: the random seed of the samples.
    """
    compared = (_compare(X, pair, classes, seed) for pair in _near_pairs(X, classes))
    return sorted((c for c in compared if c.limit < SAME_CLASS_LIMIT), key=lambda c: (c.share, c.names))


def _near_pairs(X: FloatArray, classes: Classes) -> list[tuple[str, str]]:
    """Return pairs of classes with near means, the nearest first."""
    if len(classes) < 2:
        return []
    names = list(classes)
    means = np.stack([X[rows].mean(0) for rows in classes.values()])
    squares = (means**2).sum(1)
    distance = squares[:, None] + squares[None] - 2 * means @ means.T
    np.fill_diagonal(distance, np.inf)
    near = np.argsort(distance, axis=1, kind="stable")[:, : min(_NEAR_CLASSES, len(names) - 1)]
    pairs = {(min(a, b), max(a, b)) for a, row in enumerate(near.tolist()) for b in row}
    nearest = sorted(pairs, key=lambda pair: (float(distance[pair]), pair))[:MAX_PAIRS]
    return [(names[a], names[b]) for a, b in nearest]


def _compare(X: FloatArray, names: tuple[str, str], classes: Classes, seed: int) -> SameClasses:
    """Try to tell two classes apart, as many rows of each."""
    rng = np.random.default_rng(seed)
    count = min(MAX_ROWS_OF_A_PAIR, *(len(classes[name]) for name in names))
    rows = np.concatenate([rng.permutation(classes[name])[:count] for name in names])
    y = np.repeat([0, 1], count)
    share = max(_linear_share(X[rows], y), _neighbor_share(X[rows], y))
    return SameClasses(names, share, wilson_interval(share, 2 * count)[1])


def _linear_share(X: FloatArray, y: IntArray) -> float:
    """Return the share of rows that penalized least squares predicts right without them.

    What a row is predicted without it follows from one fit of all rows (Allen 1974).
    """
    centered = X - X.mean(0)
    products = (centered @ centered.T).astype(np.float64)
    penalty = max(_PENALTY * float(np.trace(products)), 1e-12)
    hat = np.linalg.solve(products + penalty * np.eye(len(y)), products)
    sides = np.where(y == 1, 1.0, -1.0)
    without = sides - (sides - hat @ sides) / np.maximum(1 - np.diag(hat), 1e-9)
    return float((np.sign(without) == sides).mean())


def _neighbor_share(X: FloatArray, y: IntArray) -> float:
    """Return the share of rows whose nearest other rows are mostly of their class."""
    cosine = X @ X.T
    np.fill_diagonal(cosine, -np.inf)
    nearest = np.argpartition(cosine, -NEIGHBORS, axis=1)[:, -NEIGHBORS:]
    return float(((y[nearest].mean(1) > 0.5) == (y == 1)).mean())

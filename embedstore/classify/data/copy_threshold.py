"""The cosine from which two images of a space are copies of one picture, chosen from the vectors themselves.

In a sample without copies the number of pairs within a distance r of each other grows as a power of r: the correlation
integral of Grassberger and Procaccia (1983), whose exponent is the dimension that the vectors really have. Copies are
pairs that this law does not expect. The law is fitted to the pairs that are too far apart to be copies, by maximum
likelihood as in Hill (1975), and continued to the distance below which it expects a tenth of a pair among all rows.

Copies that are still among the fitted pairs make the law flat and the threshold too high, never too low. So the rows
are grouped at the threshold, one row of each group is kept, and the law is fitted again until nothing changes.

Where every picture has many copies, all fitted pairs are copies. Then the distances have a gap, and the rounds begin
with the rows grouped in it. A gap is also around the rows of a class that a network has learned to tell apart, so the
gap counts only where the labels say that a class has many such groups.

Where the law expects false pairs even among rows that are equal but for rounding, the rows cannot say which of them are
copies: few numbers, or classes so tight that all their rows look like one. Then only rows of equal numbers count.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.copy_groups import group_copies
from embedstore.classify.data.self_join import Pairs, nearest_pairs

EXPECTED_FALSE_PAIRS = 0.1
"""Pairs of different pictures that are expected at or above the threshold, among all rows together."""
SAMPLE_ROWS = 4000  # rows that the law is fitted to; with more rows it is continued further
MIN_ROWS = 20  # fewer rows show no law: only equal vectors are copies
LEAST_COSINE = (
    0.7  # of copies: of 241 photos, 1 half-size copy in MobileNetV2's space is below, no re-saved or mirrored one
)
EQUAL_COSINE = 1 - 1e-5  # of vectors that are equal but for rounding
ONLY_EQUAL = 1.0
"""The threshold of rows that cannot tell: only rows of equal numbers are copies."""
_NEIGHBORS = 32
# Pairs per row, the nearest first, that the law is fitted to. c copies of every picture give each row (c - 1) / 2
# pairs; from six copies on these fill the ranges, which matters unless their vectors are equal but for rounding. Ranges
# further out would take every small, tight class (twenty images, or the features of a fine-tuned network) for copies.
_FITTED_RANKS = ((0.25, 2.0), (2.0, 8.0))
_MIN_FITTED_PAIRS = 20
_MAX_ROUNDS = 12
_SETTLED = 5e-4  # a change of the threshold that ends the rounds
_GAP_STEP = 1.1  # the ratio of two ranks that a gap in the distances lies between
_GAP_DIMENSION = 1.0  # the exponent of the law in a gap is below; that of rows without copies is above
_MIN_GROUPS_PER_CLASS = 8  # of the groups in a gap, in the class of a typical row; fewer are parts of tight classes


def choose_copy_threshold(
    X: NDArray[np.float32], n_rows: int | None = None, *, classes: NDArray[np.int64] | None = None
) -> float:
    """Return the cosine from which two rows count as copies.

    Args:
        X: rows ``(N, D)`` of any length; a sample of them is used if there are many.
        n_rows: how many rows there are, if X is a sample already.
        classes: int64 ``(N,)``, the class of each row. Without them many copies of every picture cannot be told from
            tight classes, and are not found.

    Returns:
        The cosine; ``ONLY_EQUAL`` where the rows cannot tell.
    """
    rows = _sample(len(X))
    expected = EXPECTED_FALSE_PAIRS * (len(rows) / max(n_rows or len(X), 1)) ** 2
    rows = rows[first_of_equal_rows(X[rows])]
    sample = X[rows]
    pairs = nearest_pairs(sample, _NEIGHBORS)
    start = None if classes is None else _gap_threshold(sample, pairs, classes[rows], expected)
    kept, threshold = np.arange(len(sample)), EQUAL_COSINE
    if start is not None:
        kept, threshold = np.unique(group_copies(sample, pairs, start)), start + _SETTLED
    elif len(sample) >= MIN_ROWS and _fitted_threshold(pairs.cosine, len(sample), expected) >= EQUAL_COSINE:
        kept = np.unique(group_copies(sample, pairs, EQUAL_COSINE))
        if len(kept) < MIN_ROWS or len(kept) == len(sample):
            return ONLY_EQUAL
    for _ in range(_MAX_ROUNDS):
        kept_pairs = pairs if len(kept) == len(sample) else nearest_pairs(sample[kept], _NEIGHBORS)
        fitted = _fitted_threshold(kept_pairs.cosine, len(kept), expected)
        if threshold == EQUAL_COSINE and fitted >= EQUAL_COSINE:
            return ONLY_EQUAL
        lower = max(LEAST_COSINE, min(threshold, fitted))
        if threshold - lower < _SETTLED:
            break
        threshold = lower
        kept = np.unique(group_copies(sample, pairs, threshold))
    return threshold


def first_of_equal_rows(X: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the first row of each set of rows of equal numbers, int64, ascending."""
    as_bytes = np.ascontiguousarray(X + 0.0).view(np.dtype((np.void, X.shape[1] * X.itemsize)))  # -0.0 becomes 0.0
    return np.sort(np.unique(as_bytes.ravel(), return_index=True)[1])


def equal_row_pairs(blocks: Iterable[NDArray[np.float32]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each row of equal numbers with the first such row: ``(first, other)``, by rows of all blocks together."""
    firsts: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    n = 0
    for block in blocks:
        for row in block + 0.0:  # -0.0 becomes 0.0
            first = firsts.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), n)
            if first != n:
                pairs.append((first, n))
            n += 1
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _gap_threshold(
    sample: NDArray[np.float32], pairs: Pairs, classes: NDArray[np.int64], expected: float
) -> float | None:
    """Return a cosine in a gap that separates many copies of most pictures from other pairs, or None.

    Args:
        sample: rows ``(N, D)``.
        pairs: their nearest pairs, the most similar first.
        classes: int64 ``(N,)``.
        expected: number of pairs that the law of one row per group may expect above the cosine.
    """
    gap = _widest_gap(pairs.cosine, len(sample))
    if gap is None:
        return None
    near, far = gap
    groups = group_copies(sample, pairs, max(LEAST_COSINE, (near + far) / 2))
    if _groups_in_typical_class(groups, classes) < _MIN_GROUPS_PER_CLASS:
        return None
    kept = np.unique(groups)
    law = _fitted_threshold(nearest_pairs(sample[kept], _NEIGHBORS).cosine, len(kept), expected)
    return max(LEAST_COSINE, (near + far) / 2, law) if law < near else None


def _widest_gap(cosine: NDArray[np.float32], n_rows: int) -> tuple[float, float] | None:
    """Return the cosines at both ends of the widest gap behind the nearest pairs, or None if there is no gap.

    Args:
        cosine: the cosines of the nearest pairs, descending.
        n_rows: number of rows.
    """
    first = int(_FITTED_RANKS[0][0] * n_rows)
    steps = int(math.log(max(len(cosine) / max(first, 1), 1)) / math.log(_GAP_STEP))
    ranks = np.unique((max(first, 1) * _GAP_STEP ** np.arange(steps + 1)).astype(np.int64)) - 1
    if len(ranks) < 2:
        return None
    distance = np.sqrt(np.maximum(2 - 2 * cosine[ranks].astype(np.float64), 1e-12))
    growth = np.log(distance[1:] / distance[:-1])
    widest = int(growth.argmax())
    if growth[widest] <= math.log(_GAP_STEP) / _GAP_DIMENSION:
        return None
    return float(cosine[ranks[widest]]), float(cosine[ranks[widest + 1]])


def _groups_in_typical_class(groups: NDArray[np.int64], classes: NDArray[np.int64]) -> float:
    """Return how many groups the class of a row has: the median over all rows."""
    pairs = np.unique(np.stack([classes, groups], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0])
    return float(np.median(counts[classes]))


def _sample(n: int) -> NDArray[np.int64]:
    """Return at most ``SAMPLE_ROWS`` rows, ascending; equal arguments give the same rows."""
    if n <= SAMPLE_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, SAMPLE_ROWS, replace=False))


def _fitted_threshold(cosine: NDArray[np.float32], n_rows: int, expected: float) -> float:
    """Return the cosine at which a fitted law expects so many pairs; the lowest of the laws of two ranges.

    Args:
        cosine: the cosines of the nearest pairs, descending.
        n_rows: number of rows.
        expected: number of pairs.
    """
    if n_rows < MIN_ROWS:
        return EQUAL_COSINE
    distance = np.sqrt(np.maximum(2 - 2 * cosine.astype(np.float64), 1e-12))
    laws = (_extrapolate(distance, int(low * n_rows), int(high * n_rows), expected) for low, high in _FITTED_RANKS)
    return min((1 - r * r / 2 for r in laws if r is not None), default=EQUAL_COSINE)


def _extrapolate(distance: NDArray[np.float64], first: int, last: int, expected: float) -> float | None:
    """Return the distance within which a power law expects so many pairs.

    Args:
        distance: the distances of the nearest pairs, ascending.
        first: pairs that may be copies: only their number counts, as censored values.
        last: the pairs that are fitted.
        expected: number of pairs.

    Returns:
        The distance, or None if there are too few pairs or all distances are equal.
    """
    last = min(last, len(distance))
    if last - first < _MIN_FITTED_PAIRS:
        return None
    fitted, outermost = distance[first:last], distance[last - 1]
    total = np.log(outermost / fitted).sum() + first * math.log(outermost / fitted[0])
    if total <= 0:
        return None
    dimension = len(fitted) / total
    return float(outermost * (expected / last) ** (1 / dimension))

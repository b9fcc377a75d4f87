"""The cosine from which two images of a space are copies of one picture, chosen from the vectors themselves.

In a sample without copies the number of pairs within a distance r of each other grows as a power of r: the correlation
integral of Grassberger and Procaccia (1983), whose exponent is the dimension that the vectors really have. Copies are
pairs that this law does not expect. The law is fitted to the pairs that are too far apart to be copies, by maximum
likelihood as in Hill (1975), and continued to the distance below which it expects a tenth of a pair among all rows.

Copies that are still among the fitted pairs make the law flat and the threshold too high, never too low. So the rows
are grouped at the threshold, one row of each group is kept, and the law is fitted again until nothing changes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.copy_groups import group_copies
from embedstore.classify.data.self_join import nearest_pairs

EXPECTED_FALSE_PAIRS = 0.1
"""Pairs of different pictures that are expected at or above the threshold, among all rows together."""
SAMPLE_ROWS = 4000  # rows that the law is fitted to; with more rows it is continued further
MIN_ROWS = 20  # fewer rows show no law: only equal vectors are copies
LEAST_COSINE = (
    0.7  # of copies: of 241 photos, 1 half-size copy in MobileNetV2's space is below, no re-saved or mirrored one
)
EQUAL_COSINE = 1 - 1e-5  # of vectors that are equal but for rounding
_NEIGHBORS = 32
# Pairs per row, the nearest first, that the law is fitted to. c copies of every picture give each row (c - 1) / 2
# pairs; from six copies on these fill the ranges and are not found. Ranges further out would find them, and would
# take every small, tight class (twenty images, or the features of a fine-tuned network) for copies.
_FITTED_RANKS = ((0.25, 2.0), (2.0, 8.0))
_MIN_FITTED_PAIRS = 20
_MAX_ROUNDS = 12
_SETTLED = 5e-4  # a change of the threshold that ends the rounds


def choose_copy_threshold(X: NDArray[np.float32], n_rows: int | None = None) -> float:
    """Return the cosine from which two rows count as copies.

    Args:
        X: rows ``(N, D)`` of any length; a sample of them is used if there are many.
        n_rows: how many rows there are, if X is a sample already.
    """
    rows = _sample(len(X))
    expected = EXPECTED_FALSE_PAIRS * (len(rows) / max(n_rows or len(X), 1)) ** 2
    sample = X[rows]
    pairs = nearest_pairs(sample, _NEIGHBORS)
    kept, threshold = np.arange(len(rows)), EQUAL_COSINE
    for _ in range(_MAX_ROUNDS):
        kept_pairs = pairs if len(kept) == len(rows) else nearest_pairs(sample[kept], _NEIGHBORS)
        lower = max(LEAST_COSINE, min(threshold, _fitted_threshold(kept_pairs.cosine, len(kept), expected)))
        if threshold - lower < _SETTLED:
            break
        threshold = lower
        kept = np.unique(group_copies(sample, pairs, threshold))
    return threshold


def _sample(n: int) -> NDArray[np.int64]:
    """Return at most ``SAMPLE_ROWS`` rows, ascending; equal arguments give the same rows."""
    if n <= SAMPLE_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, SAMPLE_ROWS, replace=False))


def _fitted_threshold(cosine: NDArray[np.float32], n_rows: int, expected: float) -> float:
    """Return the cosine at which a fitted law expects so many pairs; the lowest of the laws of two ranges.

    Args:
        cosine: of the nearest pairs, descending.
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
        distance: of the nearest pairs, ascending.
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

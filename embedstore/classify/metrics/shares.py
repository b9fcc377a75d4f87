"""Intervals of shares of rows: accuracy, top-5 accuracy and recalls.

A share of independent rows has the interval of Wilson (1927), which has a width at 20 of 20 and never leaves [0, 1]. At
a single failure (or success) its end is that of a Poisson count, as Brown, Cai and DasGupta (2001, section 4.1.1)
propose. Rows of one group are not independent, and a mean over classes weighs rows unequally. Both change the number of
independent draws that the rows are worth (Kish 1965), and the interval is that of this number (Korn and Graubard 1998;
Franco et al. 2019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray, IntArray

CONFIDENCE = 0.95
_FEW = 1 + 1e-9  # up to so many failures the upper end is modified; at two and three it would cover more than 98%
_CLASS_PRIOR = 2.0  # rows of the overall share that are added to each class, so that a class of one row has a variance


@dataclass(frozen=True, slots=True)
class WeightedRows:
    """Rows of which a weighted share is estimated.

    Attributes:
        correct: float64 ``(N,)``, 1 for a row that counts, else 0.
        weights: float64 ``(N,)``, the share of each row in the mean; they sum to 1.
        strata: int ``(N,)``, rows of one stratum have one expected share.
        groups: int ``(N,)``, rows of one group are one draw.
    """

    correct: FloatArray
    weights: FloatArray
    strata: IntArray
    groups: IntArray


def wilson_interval(share: float, draws: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Wilson interval, modified at a single failure or success.

    Args:
        share: the observed share, in [0, 1].
        draws: the number of independent draws, not necessarily whole.
        confidence: the level of the interval.

    Returns:
        The lower and the upper end, within [0, 1]; NaN without draws.
    """
    if not draws > 0 or not math.isfinite(share):
        return math.nan, math.nan
    low, high = _wilson_low(share, draws, confidence), 1 - _wilson_low(1 - share, draws, confidence)
    return min(low, share), max(high, share)


def _wilson_low(share: float, draws: float, confidence: float) -> float:
    """Return the lower end; with few successes the limit of a Poisson count replaces Wilson's."""
    from scipy.special import gammaincinv, ndtri

    z = float(ndtri((1 + confidence) / 2))
    center = share + z**2 / (2 * draws)
    spread = z * math.sqrt(share * (1 - share) / draws + z**2 / (4 * draws**2))
    low = max(0.0, (center - spread) / (1 + z**2 / draws))
    successes = share * draws
    if successes <= 0:
        return 0.0
    return min(low, float(gammaincinv(successes, 1 - confidence)) / draws) if successes <= _FEW else low


def bounded_mean_end(mean: float, most: float, draws: float) -> float:
    """Return Wilson's upper end of a mean of numbers between 0 and ``most``; no variance is larger than a share's."""
    return most * wilson_interval(min(1.0, mean / most), draws)[1]


def equal_draws(groups: IntArray, weights: FloatArray | None = None) -> float:
    """Return how many groups of equal weight are as precise as these (Kish 1965).

    Args:
        groups: int ``(N,)``; rows of one group are one draw.
        weights: float ``(N,)``, above 0, how often each row counts; by default once.
    """
    sizes = np.bincount(np.unique(groups, return_inverse=True)[1], weights).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def accuracy_rows(correct: npt.NDArray[np.bool_], groups: IntArray) -> WeightedRows:
    """Return rows of equal weight.

    Args:
        correct: bool ``(N,)``.
        groups: int ``(N,)``; rows of one group are one draw.
    """
    n = len(correct)
    return WeightedRows(correct.astype(np.float64), np.full(n, 1 / max(n, 1)), np.zeros(n, np.int64), groups)


def recall_rows(correct: npt.NDArray[np.bool_], y: IntArray, groups: IntArray) -> WeightedRows:
    """Return rows weighted so that every class has the same weight: their share is the mean recall.

    Args:
        correct: bool ``(N,)``.
        y: int ``(N,)``, the class of each row.
        groups: int ``(N,)``; rows of one group are one draw.
    """
    _, strata, sizes = np.unique(y, return_inverse=True, return_counts=True)
    return WeightedRows(correct.astype(np.float64), 1 / (len(sizes) * sizes[strata]), strata, groups)


def share_interval(rows: WeightedRows, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the interval of a weighted share; NaN without rows."""
    if not len(rows.correct):
        return math.nan, math.nan
    return wilson_interval(
        min(1.0, float(rows.weights @ rows.correct)), independent_draws(rows, confidence), confidence
    )


def independent_draws(rows: WeightedRows, confidence: float = CONFIDENCE) -> float:
    """Return how many independent draws give a share as precise, at this confidence, as these rows do."""
    codes, sizes = np.unique(rows.groups, return_inverse=True, return_counts=True)[1:]
    n, n_groups = len(codes), len(sizes)
    if n_groups == 1:
        return 1.0
    draws = _draws_without_groups(rows)
    if n_groups == n:
        return draws
    # A variance that is estimated from few groups is itself uncertain: Student's quantile in place of the normal one.
    ratio = _student(n - 1, confidence) / _student(n_groups - 1, confidence)
    return draws / _design_effect(rows, codes, sizes) * ratio**2


def _draws_without_groups(rows: WeightedRows) -> float:
    """Return the number of draws of equal weight whose share has the variance of this weighted share."""
    sizes = np.bincount(rows.strata).astype(np.float64)
    hits = np.bincount(rows.strata, rows.correct)
    overall = (hits.sum() + 1) / (sizes.sum() + 2)
    shares = (hits + _CLASS_PRIOR * overall) / (sizes + _CLASS_PRIOR)
    squares = np.bincount(rows.strata, rows.weights**2)
    mean = float(np.bincount(rows.strata, rows.weights) @ shares)
    return mean * (1 - mean) / float(squares @ (shares * (1 - shares)))


def _design_effect(rows: WeightedRows, codes: IntArray, sizes: IntArray) -> float:
    """Return the variance of the share over its variance if all rows were independent, at least 1.

    It is the larger of two estimates. The first follows from the correlation within groups (from the analysis of
    variance) and the weights of the groups. The second compares sums by group, and sees where large groups are harder.
    """
    hits = np.bincount(rows.strata, rows.correct) / np.bincount(rows.strata)
    residual = rows.correct - hits[rows.strata]
    squared_weights = float((rows.weights**2).sum())
    shared = float((np.bincount(codes, rows.weights) ** 2).sum()) - squared_weights
    correlation = intraclass_correlation(residual, codes, sizes)
    by_correlation = 1 + _cautious(correlation, rows.correct, codes) * shared / squared_weights
    weighted = rows.weights * residual
    independent = float((weighted**2).sum())
    n_groups = len(sizes)
    sums = np.bincount(codes, weighted)
    by_sums = n_groups / (n_groups - 1) * float((sums**2).sum()) / independent if independent > 0 else 1.0
    return max(1.0, by_correlation, by_sums)


def intraclass_correlation(values: FloatArray, codes: IntArray, sizes: IntArray) -> float:
    """Return the correlation of two rows of one group, from the analysis of variance.

    Args:
        values: float ``(N,)``.
        codes: int ``(N,)``, the group of each row.
        sizes: int ``(G,)``, the rows of each group; at least one group has two.

    Returns:
        A number in [0, 1]; 1 if no row differs from the others.
    """
    n, n_groups = len(values), len(sizes)
    means = np.bincount(codes, values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (n_groups - 1)
    within = float(((values - means[codes]) ** 2).sum()) / (n - n_groups)
    typical_size = (n - float((sizes**2).sum()) / n) / (n_groups - 1)
    total = between + (typical_size - 1) * within
    return min(1.0, max(0.0, (between - within) / total)) if total > 0 else 1.0


def _cautious(correlation: float, correct: FloatArray, codes: IntArray) -> float:
    """Return a correlation moved towards 1 where few groups have the errors (or the successes) that could show it."""
    seen = min(_spread(np.bincount(codes, correct == kind)) for kind in (0, 1))
    return correlation + (1 - correlation) / max(seen, 1.0) ** 2


def _spread(counts: IntArray) -> float:
    """Return over how many groups their counts spread: Kish's effective number, 0 without any."""
    squares = float((counts**2).sum())
    return float(counts.sum()) ** 2 / squares if squares > 0 else 0.0


def _student(degrees: int, confidence: float) -> float:
    """Return how many standard errors Student's distribution reaches on either side at this confidence."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))

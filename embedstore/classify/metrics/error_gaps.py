"""The differences of mean errors among parts of the rows or among heads, with intervals that hold for all pairs.

The intervals reach as many standard errors as the largest standardized deviation among all pairs does in 95% of
bootstrap samples of whole groups (Tukey's range), widened by Student's quantile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.metrics.paired import MetricDifference
from embedstore.classify.metrics.resampling import bootstrap_counts

_REPLICATES = 2000
_Z = 1.959963984540054  # the normal quantile of a 95% interval


@dataclass(frozen=True, slots=True)
class ErrorGap:
    """The mean error of one part minus that of another, with its simultaneous 95% interval.

    Attributes:
        high: the place of the part with the larger error.
        low: the place of the part with the smaller error.
        value: the difference, at least 0.
        gap_low: lower end of the interval.
        gap_high: upper end.
    """

    high: int
    low: int
    value: float
    gap_low: float
    gap_high: float


def error_gaps(errors: FloatArray, members: npt.NDArray[np.bool_], groups: Array, *, seed: int = 0) -> list[ErrorGap]:
    """Return the gap of every pair of parts of the rows, the largest first.

    Args:
        errors: float ``(N,)``, one per row.
        members: bool ``(S, N)``, the rows of each part.
        groups: ``(N,)``; rows of one group are one draw, also across parts.
        seed: random seed of the bootstrap.
    """
    sums, sizes = (members * errors).T, members.T.astype(np.float64)
    smallest = min(len(np.unique(groups[member])) for member in members)
    means, pairs, reach = _all_pairs(sums, sizes, groups, smallest, seed)
    out = []
    for (a, b), distance in zip(pairs.tolist(), reach.tolist(), strict=True):
        high, low = (a, b) if means[a] >= means[b] else (b, a)
        value = float(means[high] - means[low])
        out.append(ErrorGap(high, low, value, value - distance, value + distance))
    return sorted(out, key=lambda gap: -gap.value)


def paired_error_gaps(errors: FloatArray, groups: Array, *, seed: int = 0) -> dict[int, MetricDifference]:
    """Return the gap of every head but the first to the first, on the same rows, by the place of the head.

    Args:
        errors: float ``(k, N)``, of each head.
        groups: ``(N,)``; rows of one group are one draw.
        seed: random seed of the bootstrap.
    """
    if len(errors) < 2:
        return {}
    sizes = np.ones((errors.shape[1], len(errors)))
    means, pairs, reach = _all_pairs(errors.T, sizes, groups, len(np.unique(groups)), seed)
    return {
        b: MetricDifference(float(means[b] - means[0]), float(means[b] - means[0] - r), float(means[b] - means[0] + r))
        for (a, b), r in zip(pairs.tolist(), reach.tolist(), strict=True)
        if a == 0
    }


def _all_pairs(
    sums: FloatArray, sizes: FloatArray, groups: Array, smallest: int, seed: int
) -> tuple[FloatArray, IntArray, FloatArray]:
    """Return the means ``(k,)``, the pairs ``(P, 2)`` and how far the interval of each reaches ``(P,)``.

    Args:
        sums: float ``(N, k)``, what each row adds to each sum.
        sizes: float ``(N, k)``, what it adds to the number of rows.
        groups: ``(N,)``.
        smallest: groups of the smallest part.
        seed: random seed of the bootstrap.
    """
    from scipy.special import stdtrit

    means = sums.sum(0) / sizes.sum(0)
    first, second = np.triu_indices(sums.shape[1], 1)
    pairs = np.stack([first, second], axis=1)
    if smallest < 2:
        return means, pairs, np.full(len(pairs), np.inf)
    drawn = []
    for counts in bootstrap_counts(len(sums), _REPLICATES, seed, groups=groups):
        with np.errstate(invalid="ignore", divide="ignore"):
            deviation = (counts @ sums) / (counts @ sizes) - means
        drawn.append(deviation[:, first] - deviation[:, second])
    gaps = np.concatenate(drawn)
    gaps = gaps[np.isfinite(gaps).all(1)]
    errors = gaps.std(0, ddof=1)
    standardized = np.abs(gaps / np.where(errors > 0, errors, 1.0)).max(1)
    widening = float(stdtrit(smallest - 1, 0.975)) / _Z * math.sqrt(smallest / (smallest - 1))
    return means, pairs, widening * max(_Z, float(np.quantile(standardized, 0.95))) * errors

"""Gaps between shares of different rows, such as the accuracies of slices, with intervals that hold for all pairs.

The interval of a gap is computed from the intervals of its two shares (Newcombe 1998, method 10; Zou and Donner
2008 for other intervals than Wilson's), so it has a width where a slice has no error, and a group is one draw. Their
level is that of Tukey's range over all slices (Tukey 1953; Kramer 1956 and Hayter 1984 for slices of unequal size),
so that all intervals hold together. Where groups have rows in two slices, the shares may move against each other; a
negative correlation widens the interval, a positive one does not make it narrower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedstore.arrays import FloatArray
from embedstore.classify.metrics.paired import MetricDifference
from embedstore.classify.metrics.shares import CONFIDENCE, WeightedRows, share_interval


@dataclass(frozen=True, slots=True)
class ShareGap:
    """The share of one slice minus that of another.

    Attributes:
        high: index of the slice with the higher share.
        low: index of the slice with the lower share.
        difference: the gap with its simultaneous 95% interval.
    """

    high: int
    low: int
    difference: MetricDifference


def share_gaps(slices: Sequence[WeightedRows]) -> list[ShareGap]:
    """Return the gap of every pair of slices, the largest first; their intervals hold for all pairs together.

    Args:
        slices: the rows of each slice. A number of a group means one group in all slices.
    """
    if len(slices) < 2:
        return []
    confidence = simultaneous_confidence(len(slices))
    shares = [min(1.0, float(rows.weights @ rows.correct)) for rows in slices]
    ends = [share_interval(rows, confidence) for rows in slices]
    deviations = _deviations_by_group(slices)
    gaps = []
    for i in range(len(slices)):
        for j in range(i + 1, len(slices)):
            high, low = (i, j) if shares[i] >= shares[j] else (j, i)
            correlation = _correlation(deviations[high], deviations[low])
            difference = _difference(shares[high], ends[high], shares[low], ends[low], correlation)
            gaps.append(ShareGap(high, low, difference))
    return sorted(gaps, key=lambda gap: -gap.difference.value)


def simultaneous_confidence(n_slices: int) -> float:
    """Return the level of the interval of each share at which all gaps among the slices hold at 95% together."""
    from scipy.special import ndtr
    from scipy.stats import studentized_range

    reach = float(studentized_range.ppf(CONFIDENCE, n_slices, math.inf)) / math.sqrt(2)
    return 2 * float(ndtr(reach)) - 1


def _difference(
    first: float, ends: tuple[float, float], second: float, other_ends: tuple[float, float], correlation: float
) -> MetricDifference:
    """Return the first share minus the second, with an interval computed from theirs.

    Args:
        first: the first share.
        ends: its interval.
        second: the second share.
        other_ends: its interval.
        correlation: the correlation of the two shares.
    """
    down = _reach(first - ends[0], other_ends[1] - second, correlation)
    up = _reach(ends[1] - first, second - other_ends[0], correlation)
    value = first - second
    return MetricDifference(value, max(-1.0, value - down), min(1.0, value + up))


def _reach(first: float, second: float, correlation: float) -> float:
    return math.sqrt(max(0.0, first**2 + second**2 - 2 * correlation * first * second))


def _deviations_by_group(slices: Sequence[WeightedRows]) -> list[FloatArray]:
    """Return by how much each group moves the share of each slice, float ``(G,)`` over the groups of all slices."""
    codes = np.unique(np.concatenate([rows.groups for rows in slices]), return_inverse=True)[1]
    n_groups, begin = int(codes.max()) + 1, 0
    out: list[FloatArray] = []
    for rows in slices:
        own = codes[begin : begin + len(rows.groups)]
        begin += len(rows.groups)
        expected = np.bincount(rows.strata, rows.correct) / np.maximum(np.bincount(rows.strata), 1)
        residual = rows.weights * (rows.correct - expected[rows.strata])
        out.append(np.asarray(np.bincount(own, residual, minlength=n_groups), np.float64))
    return out


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Return the correlation of two shares, at most 0, from what the groups of both slices do."""
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return max(-1.0, min(0.0, float(first @ second) / scale)) if scale > 0 else 0.0

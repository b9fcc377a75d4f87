"""All differences among several classifiers at once: intervals and p-values that hold for every pair together.

A comparison is looked at for its best row, and the best is chosen on the items that test it. Statements about single
pairs then find differences between equal classifiers by luck. The intervals here use the largest standardized
difference among all pairs of the bootstrap (Tukey's range, 1953, without the normal distribution), the p-values Holm's
correction (1979) over all pairs. Both treat items of one group as one draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.metrics.paired import MetricDifference, group_sums, sign_change_p_value
from embedstore.classify.metrics.resampling import bootstrap_counts

SIGNIFICANCE = 0.05
_POWER_QUANTILE = 0.8416212335729143  # of the normal distribution at 80%
_REPLICATES = 2000


@dataclass(frozen=True)
class PairwiseDifferences:
    """The differences of accuracy among k classifiers on the same rows.

    Attributes:
        differences: float ``(k, k)``, accuracy of the first minus accuracy of the second index.
        standard_errors: float ``(k, k)``.
        p_values: float ``(k, k)``, exact and two-sided, with Holm's correction over all pairs.
        critical_value: how many standard errors the intervals reach on either side.
        rows: the number of rows.
    """

    differences: FloatArray
    standard_errors: FloatArray
    p_values: FloatArray
    critical_value: float
    rows: int

    def interval(self, first: int, second: int) -> MetricDifference:
        """Return a difference with its simultaneous 95% interval; it holds 0 unless the p-value is below 0.05, too."""
        value = float(self.differences[first, second])
        reach = self.critical_value * float(self.standard_errors[first, second])
        low, high = value - reach, value + reach
        if self.p_values[first, second] >= SIGNIFICANCE:
            low, high = min(low, 0.0), max(high, 0.0)
        return MetricDifference(value, max(low, -1.0), min(high, 1.0))

    @property
    def detectable_difference(self) -> float:
        """Return the true difference that these rows show in four of five cases; of a typical pair."""
        pairs = self.standard_errors[np.triu_indices(len(self.standard_errors), 1)]
        return (self.critical_value + _POWER_QUANTILE) * float(np.median(pairs))

    def rows_needed(self, difference: float) -> int | None:
        """Return how many rows would show a true difference in four of five cases; None if that is not known.

        It is not for no difference, and for rows of a single group, which show nothing.
        """
        if difference <= 0 or not math.isfinite(self.detectable_difference):
            return None
        return math.ceil(self.rows * (self.detectable_difference / difference) ** 2)


def compare_all(correct: Sequence[npt.NDArray[np.bool_]], groups: IntArray, *, seed: int = 0) -> PairwiseDifferences:
    """Compare every pair of classifiers.

    Args:
        correct: whether each classifier is right, a bool ``(N,)`` per classifier, with the same rows in the same order.
        groups: int ``(N,)``; rows of one group are one draw.
        seed: random seed of the bootstrap.
    """
    hits = np.stack([group_sums(c.astype(int), groups) for c in correct], axis=1).astype(np.float64)
    sizes = group_sums(np.ones(len(groups), int), groups).astype(np.float64)
    means = hits.sum(0) / sizes.sum()
    errors = _standard_errors(hits, sizes)
    return PairwiseDifferences(
        differences=means[:, None] - means,
        standard_errors=errors,
        p_values=_corrected_p_values(hits),
        critical_value=_critical_value(hits, sizes, errors, seed),
        rows=len(groups),
    )


def _standard_errors(hits: FloatArray, sizes: FloatArray) -> FloatArray:
    """Return the standard error of each difference, ``(k, k)``.

    One more group may differ than was seen: its square is added to the variance, as Agresti and Min (2005) add to the
    counts of a pair. So two classifiers that agree on every row still have one.
    """
    n_groups, rows = len(sizes), sizes.sum()
    residual = hits - sizes[:, None] * (hits.sum(0) / rows)
    covariance = residual.T @ residual * (n_groups / max(n_groups - 1, 1)) / rows**2
    variance = np.diag(covariance)
    effective_groups = rows**2 / (sizes**2).sum()
    squared = variance[:, None] + variance - 2 * covariance
    return np.asarray(np.sqrt(np.maximum(squared, 0) + 1 / (effective_groups + 2) ** 2))


def _critical_value(hits: FloatArray, sizes: FloatArray, errors: FloatArray, seed: int) -> float:
    """Return the 95% quantile of the largest standardized difference; at least Student's of a single pair."""
    from scipy.special import stdtrit

    n_groups = len(sizes)
    if n_groups < 2:
        return math.inf
    widening = math.sqrt(n_groups / (n_groups - 1)) * float(stdtrit(n_groups - 1, 0.975)) / 1.959963984540054
    means = hits.sum(0) / sizes.sum()
    first, second = np.triu_indices(hits.shape[1], 1)
    largest = []
    for counts in bootstrap_counts(n_groups, _REPLICATES, seed):
        deviation = (counts @ hits) / (counts @ sizes)[:, None] - means
        gaps = np.abs(deviation[:, first] - deviation[:, second]) / errors[first, second]
        largest.append(gaps.max(1, initial=0))
    quantile = float(np.quantile(np.concatenate(largest), 1 - SIGNIFICANCE))
    return widening * max(quantile, 1.959963984540054)


def _corrected_p_values(hits: FloatArray) -> FloatArray:
    """Return the exact p-value of every pair, ``(k, k)``, corrected for the number of pairs; 1 on the diagonal."""
    k = hits.shape[1]
    first, second = np.triu_indices(k, 1)
    differences = np.rint(hits[:, first] - hits[:, second]).astype(np.int64)
    corrected = holm_correction([sign_change_p_value(d) for d in differences.T])
    out = np.ones((k, k))
    out[first, second] = out[second, first] = corrected
    return out


def holm_correction(p_values: Sequence[float]) -> list[float]:
    """Correct p-values so that they hold for all tests together (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    out, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        out[i] = highest
    return out

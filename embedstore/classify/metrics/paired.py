"""Two classifiers on the same rows: the difference of a metric, and a test of their errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """The difference of two classifiers on the same rows.

    Attributes:
        value: second minus first.
        low: lower end of the 95% interval.
        high: upper end of the 95% interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class McNemarResult:
    """A test whether two classifiers err equally often.

    Attributes:
        only_first_correct: rows that only the first classifier predicts correctly.
        only_second_correct: rows that only the second classifier predicts correctly.
        p_value: two-sided, exact.
    """

    only_first_correct: int
    only_second_correct: int
    p_value: float


def mcnemar(y: IntArray, first: IntArray, second: IntArray, *, groups: IntArray | None = None) -> McNemarResult:
    """Test exactly whether two classifiers err equally often.

    Without groups this is McNemar's test (1947). Rows of one group keep or change their sign together: the p-value is
    the share of the sign changes of whole groups whose sum of differences is at least as large (a randomization test,
    Fisher 1935), which is McNemar's where every row is a group.

    Args:
        y: true classes ``(N,)``.
        first: classes ``(N,)`` that the first classifier predicts.
        second: classes ``(N,)`` that the second classifier predicts.
        groups: int ``(N,)``; by default every row is one group.
    """
    correct = np.asarray(first) == np.asarray(y), np.asarray(second) == np.asarray(y)
    a, b = int((correct[0] & ~correct[1]).sum()), int((correct[1] & ~correct[0]).sum())
    return McNemarResult(a, b, sign_change_p_value(group_sums(correct[1].astype(int) - correct[0], groups)))


def group_sums(values: npt.NDArray[np.integer], groups: IntArray | None) -> IntArray:
    """Return the sum of whole numbers by group, int64 ``(G,)``; without groups the numbers themselves."""
    if groups is None:
        return np.asarray(values, np.int64)
    codes = np.unique(groups, return_inverse=True)[1]
    return np.rint(np.bincount(codes, values)).astype(np.int64)


def sign_change_p_value(sums: IntArray) -> float:
    """Return how often random signs of whole numbers give a sum at least as far from zero as theirs, exactly.

    Groups of one size of difference are counted together: their sum of random signs is binomial.

    Args:
        sums: int64 ``(G,)``, a difference per group.
    """
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    total = int(sizes @ counts)
    distribution: FloatArray = np.ones(1)  # of the sum of all signed differences, from -total to total in steps of 1
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        distribution = _convolve(distribution, _spread(_fair_coin(count), 2 * size))
    reach = abs(int(sums.sum()))
    distance = np.abs(np.arange(len(distribution)) - total)
    return float(min(1.0, distribution[distance >= reach].sum()))


def _fair_coin(n: int) -> FloatArray:
    """Return the probabilities of 0 to n heads."""
    from scipy.stats import binom

    return np.asarray(binom.pmf(np.arange(n + 1), n, 0.5))


def _spread(values: FloatArray, step: int) -> FloatArray:
    """Return the values with ``step - 1`` zeros between neighbors."""
    out = np.zeros((len(values) - 1) * step + 1)
    out[::step] = values
    return out


def _convolve(a: FloatArray, b: FloatArray) -> FloatArray:
    from scipy.signal import oaconvolve

    return np.asarray(np.convolve(a, b) if min(len(a), len(b)) < 500 else np.maximum(oaconvolve(a, b), 0))

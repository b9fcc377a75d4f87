"""The calibration error without the bias of few rows, and the bins of a reliability diagram.

The usual expected calibration error is the mean distance between confidence and accuracy over bins. Noise adds to every
distance, so that a perfectly calibrated head seems to be wrong, the more so the fewer its rows. The square of the
distance has a known bias, the variance of the bin's mean, which is subtracted here (Kumar, Liang and Ma 2019, section
4.1, "debiased estimator"), over bins of equal numbers of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.metrics.shares import accuracy_rows, share_interval

CALIBRATION_ERROR = "calibration_error"  # the name in reports
MAX_BINS = 15  # as many as the expected calibration error has
MIN_GROUPS_PER_BIN = 50
MIN_GROUPS = 20  # with fewer there is no error to estimate


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows of similar confidence.

    Attributes:
        rows: the number of rows.
        confidence: mean probability of the predicted class.
        accuracy: share of correct rows.
        low: lower end of the accuracy's 95% interval.
        high: upper end of the accuracy's 95% interval.
    """

    rows: int
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """The root mean square distance between confidence and accuracy over bins.

    Attributes:
        value: the debiased estimate; 0 where the distances are not larger than their noise.
        low: lower end of the 95% interval.
        high: upper end of the 95% interval.
        bins: the bins of the reliability diagram, ascending.
    """

    value: float
    low: float
    high: float
    bins: tuple[ReliabilityBin, ...]


def calibration_error(confidence: FloatArray, correct: npt.NDArray[np.bool_], groups: IntArray) -> CalibrationError:
    """Estimate how far confidences are from accuracies.

    Args:
        confidence: float ``(N,)``, the probability of each row's predicted class.
        correct: bool ``(N,)``.
        groups: int ``(N,)``; rows of one group are one draw.
    """
    n_groups, codes = len(np.unique(groups)), reliability_codes(confidence, groups)
    bins = tuple(_bin(confidence, correct, groups, codes == b) for b in range(int(codes.max()) + 1))
    if n_groups < MIN_GROUPS:
        return CalibrationError(math.nan, math.nan, math.nan, bins)
    gaps: FloatArray = correct - confidence.astype(np.float64)
    shares = np.array([b.rows for b in bins]) / len(confidence)
    squares = np.array([(b.accuracy - b.confidence) ** 2 for b in bins])
    noise = np.array([_squared_error(gaps[codes == b], groups[codes == b]) for b in range(len(bins))])
    value = math.sqrt(max(0.0, float(shares @ (squares - noise))))
    low, high = _interval(float(shares @ squares), shares * noise)
    # The error is at least the distance between the mean confidence and the true accuracy, which has an interval, too.
    ends, mean = share_interval(accuracy_rows(correct, groups)), float(confidence.mean())
    high = max(high, mean - ends[0], ends[1] - mean)
    return CalibrationError(value, min(low, value), max(high, value), bins)


def reliability_codes(confidence: FloatArray, groups: IntArray) -> IntArray:
    """Return the bin of the reliability diagram that each row is in: int64 ``(N,)``, ascending by confidence.

    Args:
        confidence: float ``(N,)``, the probability of each row's predicted class.
        groups: int ``(N,)``; rows of one group are one draw.
    """
    return _equal_bins(confidence, max(1, min(MAX_BINS, len(np.unique(groups)) // MIN_GROUPS_PER_BIN)))


def _equal_bins(confidence: FloatArray, n_bins: int) -> IntArray:
    """Return bins of about equal numbers of rows, int64 ``(N,)``; equal confidences are never separated."""
    edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins) if n_bins > 1 else np.zeros(0)
    return np.asarray(np.unique(np.searchsorted(edges, confidence), return_inverse=True)[1], np.int64)


def _bin(
    confidence: FloatArray, correct: npt.NDArray[np.bool_], groups: IntArray, rows: npt.NDArray[np.bool_]
) -> ReliabilityBin:
    low, high = share_interval(accuracy_rows(correct[rows], groups[rows]))
    return ReliabilityBin(int(rows.sum()), float(confidence[rows].mean()), float(correct[rows].mean()), low, high)


def _squared_error(gaps: FloatArray, groups: IntArray) -> float:
    """Return the variance of the mean of a bin's gaps; rows of one group count as one draw."""
    codes = np.unique(groups, return_inverse=True)[1]
    n_groups = int(codes.max()) + 1
    if n_groups < 2:
        return 1 / 4  # the largest variance of one draw between 0 and 1
    sums = np.bincount(codes, gaps - gaps.mean())
    # Rows that are all right (or all wrong) have no variance of their own: one more error is always possible.
    floor = 1 / (4 * (n_groups + 4) ** 2)
    return max(n_groups / (n_groups - 1) * float(sums @ sums) / len(gaps) ** 2, floor)


def _interval(observed: float, weighted_noise: FloatArray) -> tuple[float, float]:
    """Return the 95% interval of the root of the squared error, from the non-central chi-square distribution.

    The observed sum of squares is about ``scale`` times such a variable (Satterthwaite 1946 for unequal noise), whose
    non-centrality is the true squared error over ``scale``.

    Args:
        observed: the sum of squared distances, with its bias.
        weighted_noise: float ``(B,)``, what noise adds to it, per bin.
    """
    mean_noise = float(weighted_noise.sum())
    scale = float((weighted_noise**2).sum()) / mean_noise
    degrees = mean_noise / scale
    ends = (_noncentrality(observed / scale, degrees, quantile) for quantile in (0.975, 0.025))
    low, high = (math.sqrt(end * scale) for end in ends)
    return min(low, 1.0), min(high, 1.0)


def _noncentrality(statistic: float, degrees: float, quantile: float) -> float:
    """Return the non-centrality at which the statistic is this quantile; 0 if even there it is a lower one."""
    from scipy.optimize import brentq
    from scipy.special import chndtr

    def excess(noncentrality: float) -> float:
        return float(chndtr(statistic, degrees, noncentrality)) - quantile

    if excess(0.0) <= 0:
        return 0.0
    top = statistic + 10
    while excess(top) > 0:
        top *= 2
    return float(brentq(excess, 0.0, top))

"""Metrics of predicted numbers and levels, each with a 95% interval; rows of one group are one draw.

Formulas: R squared, the mean absolute and the root mean squared error as usual; Pearson's and Spearman's correlation
(with mean ranks for ties); quadratic kappa (Cohen 1968), 1 minus the squared distance over that of independent labels
with the same shares. A metric that is not defined (no variation) is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray
from embedstore.classify.metrics.report import MetricEstimate, accuracy_estimate
from embedstore.classify.metrics.resampling import DEFAULT_REPLICATES, bootstrap_counts, studentized_interval
from embedstore.classify.metrics.shares import bounded_mean_end, equal_draws

MIN_GROUPS = 10
"""Groups of held-out rows from which R squared and the correlations have an interval."""
MAX_JACKKNIFE_GROUPS = 200
"""Groups up to which the interval of a correlation counts the jackknife; beyond, both standard errors agree."""


class NumericMetric(StrEnum):
    """The metrics, by the names that reports and ``runs`` use."""

    R2 = "r2"
    MAE = "mae"
    RMSE = "rmse"
    PEARSON = "pearson"
    SPEARMAN = "spearman"
    QUADRATIC_KAPPA = "quadratic_kappa"
    WITHIN_ONE = "within_one_accuracy"
    ACCURACY = "accuracy"


@dataclass(frozen=True)
class NumericReport:
    """The metrics of predicted numbers on one set of rows.

    Attributes:
        rows: the number of rows.
        scores: the metrics by name.
        baseline: mean absolute and root mean squared error of the mean of the training rows, for the same rows.
    """

    rows: int
    scores: dict[str, MetricEstimate]
    baseline: dict[str, float]

    def __getitem__(self, name: str) -> float:
        """Return the value of a metric by its name."""
        return self.scores[str(name)].value

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; an undefined metric (NaN) is None."""
        scores = {
            name: {k: v if math.isfinite(v) else None for k, v in asdict(s).items()} for name, s in self.scores.items()
        }
        return {"rows": self.rows, "scores": scores, "baseline": self.baseline}


WeightedMetric = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
"""True numbers ``(N,)``, predicted numbers ``(N,)`` and weights ``(B, N)`` to the metric ``(B,)``."""


def r2(y: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    """Return 1 minus the squared error over the variance around the mean of the rows."""
    total = weights.sum(1)
    center = float(y.mean())  # exact in any precision of the weights only around a number near the mean
    sums, squares = weights @ (y - center), weights @ (y - center) ** 2
    return 1 - _ratio(weights @ (y - predicted) ** 2, squares - sums**2 / total, scale=squares)


def pearson(y: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the correlation."""
    return _correlation(np.broadcast_to(y, weights.shape), np.broadcast_to(predicted, weights.shape), weights)


def spearman(y: FloatArray, predicted: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the correlation of the ranks."""
    return _correlation(_weighted_ranks(y, weights), _weighted_ranks(predicted, weights), weights)


def quadratic_kappa(ranks: Array, predicted: Array, weights: FloatArray) -> FloatArray:
    """Return the agreement of ranks beyond chance, where a distance counts squared.

    Args:
        ranks: true places of the levels ``(N,)``.
        predicted: predicted places ``(N,)``.
        weights: ``(B, N)``.
    """
    a, b, total = ranks.astype(np.float64), predicted.astype(np.float64), weights.sum(1)
    observed = weights @ (a - b) ** 2 / total
    squares = (weights @ a**2 + weights @ b**2) / total
    by_chance = squares - 2 * (weights @ a) * (weights @ b) / total**2
    return 1 - _ratio(observed, by_chance, scale=squares)


def regression_report(
    y: FloatArray, predicted: FloatArray, groups: Array, *, baseline: FloatArray, seed: int = 0
) -> NumericReport:
    """Return the metrics of a regression.

    Args:
        y: true numbers ``(N,)``.
        predicted: predicted numbers ``(N,)``.
        groups: ``(N,)``; rows of one group are one draw.
        baseline: the mean of the training rows, for each row ``(N,)``.
        seed: random seed of the bootstrap.
    """
    estimates = {
        NumericMetric.R2: _r2_estimate(y, predicted, groups, seed),
        **_error_estimates(y, predicted, groups, seed),
        NumericMetric.SPEARMAN: _correlation_estimate(spearman, y, predicted, groups, seed),
        NumericMetric.PEARSON: _correlation_estimate(pearson, y, predicted, groups, seed),
    }
    return NumericReport(len(y), {m.value: e for m, e in estimates.items()}, _baseline_errors(y, baseline))


def ordinal_report(
    y: FloatArray, predicted: FloatArray, groups: Array, *, baseline: FloatArray, seed: int = 0
) -> NumericReport:
    """Return the metrics of levels: quadratic kappa, accuracy, accuracy within one level, and errors.

    The levels are the different numbers among the true and the predicted ones; one level off is the next of them.

    Args:
        y: true levels ``(N,)``.
        predicted: predicted levels ``(N,)``.
        groups: ``(N,)``; rows of one group are one draw.
        baseline: the mean of the training rows, for each row ``(N,)``.
        seed: random seed of the bootstrap.
    """
    ranks = np.unique(np.concatenate([y, predicted]), return_inverse=True)[1]
    a, b = ranks[: len(y)], ranks[len(y) :]
    estimates = {
        NumericMetric.QUADRATIC_KAPPA: _correlation_estimate(quadratic_kappa, a, b, groups, seed),
        NumericMetric.ACCURACY: accuracy_estimate(a == b, groups),
        NumericMetric.WITHIN_ONE: accuracy_estimate(np.abs(a - b) <= 1, groups),
        **_error_estimates(y, predicted, groups, seed, most=float(np.ptp(np.concatenate([y, predicted])))),
        NumericMetric.SPEARMAN: _correlation_estimate(spearman, y, predicted, groups, seed),
    }
    return NumericReport(len(y), {m.value: e for m, e in estimates.items()}, _baseline_errors(y, baseline))


def absolute_error_estimate(errors: FloatArray, groups: Array, seed: int = 0) -> MetricEstimate:
    """Return the mean of absolute errors ``(N,)`` with its bootstrap-t interval."""
    return MetricEstimate(float(errors.mean()), *studentized_interval(errors, groups, seed=seed))


def _error_estimates(
    y: FloatArray, predicted: FloatArray, groups: Array, seed: int, *, most: float = math.inf
) -> dict[NumericMetric, MetricEstimate]:
    """Return the mean absolute and the root mean squared error; no error is larger than ``most``."""
    error = _within(absolute_error_estimate(np.abs(y - predicted), groups, seed), most, groups)
    square = _within(absolute_error_estimate((y - predicted) ** 2, groups, seed), most**2, groups)
    return {
        NumericMetric.MAE: error,
        NumericMetric.RMSE: MetricEstimate(*(math.sqrt(v) for v in (square.value, square.low, square.high))),
    }


def _within(error: MetricEstimate, most: float, groups: Array) -> MetricEstimate:
    """Return a mean error with the upper end that errors of at most ``most`` allow."""
    if not 0 < most < math.inf or math.isnan(error.high):
        return error
    return replace(
        error, high=max(error.value, min(error.high, bounded_mean_end(error.value, most, equal_draws(groups))))
    )


def _baseline_errors(y: FloatArray, baseline: FloatArray) -> dict[str, float]:
    errors = np.abs(y - baseline)
    return {
        NumericMetric.MAE.value: float(errors.mean()),
        NumericMetric.RMSE.value: math.sqrt(float((errors**2).mean())),
    }


def _r2_estimate(y: FloatArray, predicted: FloatArray, groups: Array, seed: int) -> MetricEstimate:
    """Return R squared with an interval of log(1 - R squared), a difference of two logarithms of variances."""
    value = float(r2(y, predicted, np.ones((1, len(y))))[0])
    reach = _reach(r2, y, predicted, groups, seed)
    if not math.isfinite(value + reach) or value >= 1:
        return MetricEstimate(value, math.nan, math.nan)
    unexplained, reach = math.log(1 - value), reach / (1 - value)
    return MetricEstimate(value, 1 - math.exp(unexplained + reach), 1 - math.exp(unexplained - reach))


def _correlation_estimate(
    metric: WeightedMetric, y: Array, predicted: Array, groups: Array, seed: int
) -> MetricEstimate:
    """Return a correlation with an interval of its inverse hyperbolic tangent (Fisher 1921)."""
    value = float(metric(y, predicted, np.ones((1, len(y))))[0])
    reach = _reach(metric, y, predicted, groups, seed)
    if not math.isfinite(value + reach) or abs(value) >= 1:
        return MetricEstimate(value, math.nan, math.nan)
    center, reach = math.atanh(value), reach / (1 - value**2)
    return MetricEstimate(value, math.tanh(center - reach), math.tanh(center + reach))


def _reach(metric: WeightedMetric, y: Array, predicted: Array, groups: Array, seed: int) -> float:
    """Return the standard error over groups times Student's quantile; NaN with fewer than ten groups.

    Of few groups it is the larger one of two: the bootstrap's is too small where most levels are rare, and the
    jackknife's is too large on average (Efron and Stein 1981).
    """
    from scipy.special import stdtrit

    n_groups = len(np.unique(groups))
    if n_groups < MIN_GROUPS:
        return math.nan
    drawn = np.concatenate([metric(y, predicted, counts) for counts in _resamplings(len(y), groups, seed)])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 2:
        return math.nan
    error = float(drawn.std(ddof=1))
    if n_groups <= MAX_JACKKNIFE_GROUPS:
        error = max(error, _jackknife_error(metric, y, predicted, groups))
    return float(stdtrit(n_groups - 1, 0.975)) * error


def _jackknife_error(metric: WeightedMetric, y: Array, predicted: Array, groups: Array) -> float:
    """Return the standard error from leaving out each group in turn."""
    codes = np.unique(groups, return_inverse=True)[1]
    left = metric(y, predicted, 1.0 - np.equal.outer(np.arange(codes.max() + 1), codes))
    left = left[np.isfinite(left)]
    return math.sqrt((len(left) - 1) * float(left.var())) if len(left) else 0.0


def _resamplings(n_rows: int, groups: Array, seed: int) -> Iterator[FloatArray]:
    for counts in bootstrap_counts(n_rows, DEFAULT_REPLICATES, seed, groups=groups):
        yield counts.astype(np.float64)


def _correlation(a: FloatArray, b: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the weighted correlation of the rows of two ``(B, N)`` arrays."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    total = weights.sum(1, keepdims=True)
    scale = np.sqrt((weights * a * a).sum(1) * (weights * b * b).sum(1))
    a = a - (weights * a).sum(1, keepdims=True) / total
    b = b - (weights * b).sum(1, keepdims=True) / total
    products, a2, b2 = (weights * a * b).sum(1), (weights * a * a).sum(1), (weights * b * b).sum(1)
    return _ratio(products, np.sqrt(a2 * b2), scale=scale)


def _weighted_ranks(values: Array, weights: FloatArray) -> FloatArray:
    """Return the mean rank of each value where every row occurs as often as its weight says, ``(B, N)``."""
    codes = np.unique(values, return_inverse=True)[1]
    counts = np.stack([np.bincount(codes, w, minlength=int(codes.max()) + 1) for w in weights])
    upper = counts.cumsum(1)
    return np.asarray((upper - (counts - 1) / 2)[:, codes])


def _ratio(numerator: FloatArray, denominator: FloatArray, *, scale: FloatArray) -> FloatArray:
    """Return the ratio, NaN where the denominator is the rounding of a difference of numbers as large as `scale`."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 1e-12 * scale, numerator / denominator, np.nan)

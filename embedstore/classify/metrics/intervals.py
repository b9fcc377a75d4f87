"""Uncertainty of metrics: the bootstrap over rows (Efron 1979), alone and paired, and McNemar's exact test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.metrics.point_metrics import (
    WEIGHTED_METRICS,
    MetricName,
    check_scores,
    class_indicators,
    compute_metric,
)
from embedstore.classify.metrics.ranking import RankingMetrics, ranking_metrics

DEFAULT_REPLICATES = 1000
_BLOCK = 4_000_000  # weights in memory at once: 16 MB of float32
_EXACT_RANKING = 5_000_000  # rows x classes x replicates up to which a ranking metric is recomputed: 0.5 s
BOOTSTRAP_BIASED = (MetricName.EXPECTED_CALIBRATION_ERROR, MetricName.AVERAGE_PRECISION)
"""Metrics that are too high on resampled rows, the more so the fewer the rows: repeated rows agree with themselves."""
_RANKING = (MetricName.AUROC, MetricName.AVERAGE_PRECISION)


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """The difference of two classifiers on the same rows.

    Attributes:
        value: second minus first.
        low: 2.5% quantile of the paired bootstrap replicates.
        high: 97.5% quantile of the paired bootstrap replicates.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class McNemarResult:
    """McNemar's exact test.

    Attributes:
        only_first_correct: rows that only the first classifier predicts correctly.
        only_second_correct: rows that only the second classifier predicts correctly.
        p_value: two-sided, binomial.
    """

    only_first_correct: int
    only_second_correct: int
    p_value: float


def bootstrap_interval(
    metric: MetricName | str, y: IntArray, proba: FloatArray, *, n_replicates: int = DEFAULT_REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """Return the 95% percentile interval over resampled rows (Efron 1979).

    Args:
        metric: a member or its value.
        y: int ``(N,)``, the true columns; for a ranking metric also bool ``(N, K)``.
        proba: probabilities ``(N, K)``.
        n_replicates: a ranking metric with too many rows x classes x replicates is linearized instead of recomputed
            in each: see :mod:`embedstore.classify.metrics.ranking`.
        seed: random seed of the resampling.

    Returns:
        The lower and the upper end.
    """
    y, proba = check_scores(y, proba)
    name = MetricName(metric)
    replicates = bootstrap_replicates([name], y, [proba], n_replicates=n_replicates, seed=seed)[name][0]
    center = compute_metric(name, y, proba) if name in BOOTSTRAP_BIASED else None
    return percentile_interval(replicates, center=center)


def paired_bootstrap(
    metric: MetricName | str,
    y: IntArray,
    first: FloatArray,
    second: FloatArray,
    *,
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
) -> MetricDifference:
    """Return the second classifier's metric minus the first's, with an interval over the same resampled rows.

    Args:
        metric: a member or its value.
        y: int ``(N,)``, the true columns.
        first: probabilities ``(N, K)`` of the first classifier.
        second: probabilities ``(N, K)`` of the second classifier.
        n_replicates: of the bootstrap.
        seed: random seed of the bootstrap.
    """
    y, first = check_scores(y, first)
    y, second = check_scores(y, second)
    name = MetricName(metric)
    a, b = bootstrap_replicates([name], y, [first, second], n_replicates=n_replicates, seed=seed)[name]
    low, high = percentile_interval(b - a)
    return MetricDifference(compute_metric(name, y, second) - compute_metric(name, y, first), low, high)


def mcnemar(y: IntArray, first: IntArray, second: IntArray) -> McNemarResult:
    """Test exactly whether two classifiers err equally often (McNemar 1947).

    Args:
        y: true classes ``(N,)``.
        first: classes ``(N,)`` that the first classifier predicts.
        second: classes ``(N,)`` that the second classifier predicts.
    """
    correct = np.asarray(first) == np.asarray(y), np.asarray(second) == np.asarray(y)
    a, b = int((correct[0] & ~correct[1]).sum()), int((correct[1] & ~correct[0]).sum())
    return McNemarResult(a, b, _binomial_p_value(a, b))


def percentile_interval(values: FloatArray, *, center: float | None = None) -> tuple[float, float]:
    """Return the 2.5% and 97.5% quantiles of the finite replicates; NaN without any.

    Args:
        values: replicates.
        center: for a metric of :data:`BOOTSTRAP_BIASED` its value: the replicates are shifted so that this is their
            mean, and clipped to 0 and 1.
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return math.nan, math.nan
    if center is not None:
        finite = np.clip(finite - (finite.mean() - center), 0, 1)
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_replicates(
    metrics: Sequence[MetricName],
    y: IntArray,
    probas: Sequence[FloatArray],
    *,
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
    rankings: Sequence[RankingMetrics] = (),
) -> dict[MetricName, list[FloatArray]]:
    """Return each metric of each classifier on the same resamplings, lists of float ``(n_replicates,)``.

    Args:
        metrics: the metrics to compute.
        y: true columns ``(N,)`` or indicators ``(N, K)``.
        probas: probabilities ``(N, K)`` of each classifier.
        n_replicates: the number of resamplings.
        seed: random seed of the resamplings.
        rankings: ranking metrics of each classifier, if they are known.
    """
    rows, width = len(y), probas[0].shape[1]
    linearized = [m for m in metrics if m in _RANKING and rows * width * n_replicates > _EXACT_RANKING]
    if linearized and not rankings:
        rankings = [ranking_metrics(class_indicators(y, proba.shape[1]), proba) for proba in probas]
    out: dict[MetricName, list[list[FloatArray]]] = {m: [[np.zeros(0)] for _ in probas] for m in metrics}
    for weights in bootstrap_counts(rows, n_replicates, seed):
        for metric in metrics:
            for i, proba in enumerate(probas):
                if metric in linearized:
                    value, influence = _influence(rankings[i], metric)
                    out[metric][i].append(value + weights @ influence)
                else:
                    out[metric][i].append(WEIGHTED_METRICS[metric](y, proba, weights))
    return {m: [np.concatenate(v) for v in lists] for m, lists in out.items()}


def bootstrap_counts(rows: int, n_replicates: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each row is drawn in each of the resamplings, blocks of float32 ``(B, rows)``."""
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // rows)
    for start in range(0, n_replicates, step):
        b = min(step, n_replicates - start)
        drawn = rng.integers(0, rows, (b, rows)) + np.arange(b)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=b * rows).reshape(b, rows).astype(np.float32)


def _influence(ranking: RankingMetrics, metric: MetricName) -> tuple[float, FloatArray]:
    """Return a ranking metric and its influence function, ``(N,)``."""
    if metric is MetricName.AUROC:
        return ranking.macro_auroc, ranking.auroc_influence
    return ranking.macro_average_precision, ranking.average_precision_influence


def _binomial_p_value(a: int, b: int) -> float:
    """Return the two-sided probability of a split at least as uneven as a:b under a fair coin."""
    n, tail = a + b, min(a, b)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(tail + 1)]
    return min(1.0, 2 * math.fsum(math.exp(v) for v in logs))

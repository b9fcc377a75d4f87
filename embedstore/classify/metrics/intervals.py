"""How far a figure may be luck: the bootstrap over rows (Efron 1979), alone and paired, and McNemar's exact test."""

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
_BLOCK = 4_000_000  # weights held at once: 16 MB of float32
_EXACT_RANKING = 5_000_000  # rows x classes x replicates up to which a ranking metric is counted anew: half a second
BOOTSTRAP_BIASED = (MetricName.EXPECTED_CALIBRATION_ERROR, MetricName.AVERAGE_PRECISION)
"""Rows drawn twice agree with themselves: resampling adds to these two figures, by more the fewer the rows."""
_RANKING = (MetricName.AUROC, MetricName.AVERAGE_PRECISION)


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """How far two classifiers differ on the same rows.

    Attributes:
        value: second minus first. low, high: 95% of the paired bootstrap replicates.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class McNemarResult:
    """McNemar's exact test.

    Attributes:
        only_first, only_second: rows that one alone got right. p_value: two-sided, binomial.
    """

    only_first_correct: int
    only_second_correct: int
    p_value: float


def bootstrap_interval(
    metric: MetricName | str, y: IntArray, proba: FloatArray, *, n_replicates: int = DEFAULT_REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval over resampled rows (Efron 1979).

    Args:
        metric, y, proba: as for :func:`embedstore.classify.metrics.value`.
        n: replicates. A ranking metric whose rows x classes x n exceed a second of work is moved row by row instead
            of counted anew in each: see :mod:`embedstore.classify.metrics.ranking`.
        seed: of the resampling.
    """
    y, proba = check_scores(y, proba)
    found = bootstrap_replicates([MetricName(metric)], y, [proba], n_replicates=n_replicates, seed=seed)[
        MetricName(metric)
    ][0]
    return percentile_interval(
        found, center=compute_metric(metric, y, proba) if MetricName(metric) in BOOTSTRAP_BIASED else None
    )


def paired_bootstrap(
    metric: MetricName | str,
    y: IntArray,
    first: FloatArray,
    second: FloatArray,
    *,
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
) -> MetricDifference:
    """The second classifier minus the first on the same rows, with its interval over rows resampled for both alike."""
    y, first = check_scores(y, first)
    y, second = check_scores(y, second)
    a, b = bootstrap_replicates([MetricName(metric)], y, [first, second], n_replicates=n_replicates, seed=seed)[
        MetricName(metric)
    ]
    low, high = percentile_interval(b - a)
    return MetricDifference(compute_metric(metric, y, second) - compute_metric(metric, y, first), low, high)


def mcnemar(y: IntArray, first: IntArray, second: IntArray) -> McNemarResult:
    """McNemar's exact test that two classifiers err equally often (McNemar 1947).

    Args:
        y, first, second: true and predicted classes, ``(N,)``.
    """
    right_a, right_b = np.asarray(first) == np.asarray(y), np.asarray(second) == np.asarray(y)
    a, b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return McNemarResult(a, b, _two_sided_coin(a, b))


def percentile_interval(values: FloatArray, *, center: float | None = None) -> tuple[float, float]:
    """2.5% and 97.5% of the finite replicates; NaN where there are none.

    Args:
        values: replicates. centre: of a figure that is too high on resampled rows (:data:`TOO_HIGH`), its value: the
            replicates are moved so that this is their mean, and none goes beyond 0 and 1.
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
    """Each metric of each classifier on n resamplings, the same for all of them: lists of ``(n,)``.

    Args:
        metrics: which. y: true columns ``(N,)`` or indicators ``(N, K)``. probas: ``(N, K)`` each.
        n: replicates. seed: of the resampling. ranks: of each classifier, where they are known.
    """
    rows, width = len(y), probas[0].shape[1]
    moved = [m for m in metrics if m in _RANKING and rows * width * n_replicates > _EXACT_RANKING]
    if moved and not rankings:
        rankings = [ranking_metrics(class_indicators(y, proba.shape[1]), proba) for proba in probas]
    out: dict[MetricName, list[list[FloatArray]]] = {m: [[np.zeros(0)] for _ in probas] for m in metrics}
    for weights in bootstrap_counts(rows, n_replicates, seed):
        for metric in metrics:
            for i, proba in enumerate(probas):
                if metric in moved:
                    figure, by_row = _moves(rankings[i], metric)
                    out[metric][i].append(figure + weights @ by_row)
                else:
                    out[metric][i].append(WEIGHTED_METRICS[metric](y, proba, weights))
    return {m: [np.concatenate(v) for v in lists] for m, lists in out.items()}


def bootstrap_counts(rows: int, n_replicates: int, seed: int) -> Iterator[FloatArray]:
    """How often each row is drawn in each of n resamplings: blocks of float32 ``(B, rows)``."""
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // rows)
    for start in range(0, n_replicates, step):
        b = min(step, n_replicates - start)
        drawn = rng.integers(0, rows, (b, rows)) + np.arange(b)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=b * rows).reshape(b, rows).astype(np.float32)


def _moves(found: RankingMetrics, metric: MetricName) -> tuple[float, FloatArray]:
    """A ranking figure, and how much each row moves it."""
    if metric is MetricName.AUROC:
        return found.macro_auroc, found.auroc_influence
    return found.macro_average_precision, found.average_precision_influence


def _two_sided_coin(a: int, b: int) -> float:
    """Two-sided probability of a split at least as uneven as a:b under a fair coin."""
    n, tail = a + b, min(a, b)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(tail + 1)]
    return min(1.0, 2 * math.fsum(math.exp(v) for v in logs))

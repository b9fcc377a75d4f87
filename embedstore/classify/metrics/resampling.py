"""The bootstrap over groups of rows (Efron 1979; Field and Welsh 2007 for groups): replicates of metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.metrics.point_metrics import WEIGHTED_METRICS, MetricName, class_indicators
from embedstore.classify.metrics.ranking import RankingMetrics, ranking_metrics
from embedstore.classify.metrics.shares import intraclass_correlation

DEFAULT_REPLICATES = 1000
_BLOCK = 4_000_000  # weights in memory at once: 16 MB of float32
_EXACT_RANKING = 5_000_000  # rows x classes x replicates up to which a ranking metric is recomputed: 0.5 s
RANKING_METRICS = (MetricName.AUROC, MetricName.AVERAGE_PRECISION)


def bootstrap_replicates(
    metrics: Sequence[MetricName],
    y: IntArray,
    proba: FloatArray,
    *,
    groups: IntArray | None = None,
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
    ranking: RankingMetrics | None = None,
) -> dict[MetricName, FloatArray]:
    """Return each metric on the same resamplings, float ``(n_replicates,)`` by metric.

    Args:
        metrics: the metrics to compute.
        y: true columns ``(N,)`` or indicators ``(N, K)``.
        proba: probabilities ``(N, K)``.
        groups: int ``(N,)``; rows of one group are drawn together. By default every row is one group.
        n_replicates: the number of resamplings.
        seed: random seed of the resamplings.
        ranking: ranking metrics of the rows, if they are known.
    """
    rows, width = len(y), proba.shape[1]
    linearized = [m for m in metrics if m in RANKING_METRICS and rows * width * n_replicates > _EXACT_RANKING]
    if linearized and ranking is None:
        ranking = ranking_metrics(class_indicators(y, width), proba)
    out: dict[MetricName, list[FloatArray]] = {m: [np.zeros(0)] for m in metrics}
    for weights in bootstrap_counts(rows, n_replicates, seed, groups=groups):
        for metric in metrics:
            if ranking is not None and metric in linearized:
                value, influence = _influence(ranking, metric)
                out[metric].append(value + (weights @ influence) * rows / weights.sum(1, dtype=np.float64))
            else:
                out[metric].append(WEIGHTED_METRICS[metric](y, proba, weights))
    return {m: np.concatenate(parts) for m, parts in out.items()}


def bootstrap_counts(
    rows: int, n_replicates: int, seed: int, *, groups: IntArray | None = None
) -> Iterator[FloatArray]:
    """Yield how often each row is drawn in each of the resamplings, blocks of float32 ``(B, rows)``.

    Args:
        rows: the number of rows.
        n_replicates: the number of resamplings.
        seed: random seed of the resamplings.
        groups: int ``(rows,)``; as many groups as there are are drawn, each with all its rows. By default every row is
            one group.
    """
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1]
    drawn_units = rows if codes is None else int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // rows)
    for start in range(0, n_replicates, step):
        b = min(step, n_replicates - start)
        drawn = rng.integers(0, drawn_units, (b, drawn_units)) + np.arange(b)[:, None] * drawn_units
        counts = np.bincount(drawn.ravel(), minlength=b * drawn_units).reshape(b, drawn_units).astype(np.float32)
        yield counts if codes is None else counts[:, codes]


def logit_interval(value: float, replicates: FloatArray, n_groups: int) -> tuple[float, float]:
    """Return the 95% interval of a metric between 0 and 1, symmetric on the scale of log odds; NaN where it has none.

    Near 1 a metric can fall further than it can rise, and percentiles of its replicates are too short below (for areas
    under the ROC curve: Pepe 2003, section 5.2). The standard error is that of the replicates, with Student's quantile.

    Args:
        value: the metric on all rows.
        replicates: the replicates of the metric.
        n_groups: the number of groups that were resampled.
    """
    from scipy.special import expit, logit, stdtrit

    finite = replicates[np.isfinite(replicates)]
    if len(finite) < 2 or n_groups < 2 or not 0 < value < 1:
        return math.nan, math.nan
    reach = float(stdtrit(n_groups - 1, 0.975)) * float(finite.std(ddof=1)) / (value * (1 - value))
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def studentized_interval(
    losses: FloatArray,
    groups: IntArray | None,
    *,
    weights: FloatArray | None = None,
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95% bootstrap-t interval of a mean (Efron and Tibshirani 1993, section 12.5), for skewed losses.

    The standard error is the larger of two. The first is of the sums by group; a few heavy rows or large groups that
    happen to have small losses make it too small. The second takes the variance from all rows, as if no weight and no
    size went with the losses.

    Args:
        losses: float ``(N,)``, one per row.
        groups: int ``(N,)``; rows of one group are drawn together. By default every row is one group.
        weights: ``(N,)``, above 0, how often each row counts in the mean; by default once.
        n_replicates: the number of resamplings.
        seed: random seed of the resamplings.

    Returns:
        The lower and the upper end; NaN with a single group; the mean twice if all losses are equal. The upper end is
        infinite where more than one resampling in 40 lacks every row that differs: such rows show no limit.
    """
    codes = np.arange(len(losses)) if groups is None else np.unique(groups, return_inverse=True)[1]
    weights = np.ones(len(losses)) if weights is None else weights
    sizes: FloatArray = np.asarray(np.bincount(codes, weights), np.float64)
    sums: FloatArray = np.asarray(np.bincount(codes, weights * losses), np.float64)
    if len(sizes) < 2:
        return math.nan, math.nan
    mean = float(np.average(losses, weights=weights))
    error = _standard_errors(sums, sizes, np.ones((1, len(sizes))))[1][0]
    statistics = []
    for counts in bootstrap_counts(len(sizes), n_replicates, seed):
        means, errors = _standard_errors(sums, sizes, counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            statistics.append((means - mean) / errors)
    drawn = np.concatenate(statistics)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn) or error == 0:
        return mean, mean
    low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
    error = max(float(error), _error_of_exchangeable_rows(losses, weights, codes))
    return min(mean, max(0.0, mean - float(high) * error)), max(mean, mean - float(low) * error)


def _standard_errors(sums: FloatArray, sizes: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean of the rows of each resampling and its standard error, both ``(B,)``.

    Args:
        sums: float ``(G,)``, the sum of each group.
        sizes: float ``(G,)``, the rows of each group.
        counts: float ``(B, G)``, how often each group is drawn.
    """
    counts = counts.astype(np.float64)
    rows = counts @ sizes
    means = counts @ sums / rows
    squares = counts @ sums**2 - 2 * means * (counts @ (sums * sizes)) + means**2 * (counts @ sizes**2)
    factor = len(sizes) / (len(sizes) - 1)
    return means, np.sqrt(factor * np.maximum(squares, 0)) / rows


def _error_of_exchangeable_rows(losses: FloatArray, weights: FloatArray, codes: IntArray) -> float:
    """Return the standard error of a weighted mean of rows with one variance and one correlation within groups.

    Args:
        losses: float ``(N,)``.
        weights: float ``(N,)``, above 0.
        codes: int ``(N,)``, the group of each row, of at least two.
    """
    shares = weights / weights.sum()
    residual = losses - shares @ losses
    spread = float(shares @ shares)
    sizes = np.bincount(codes)
    if len(sizes) < len(codes):
        by_group = np.bincount(codes, shares)
        spread += intraclass_correlation(residual, codes, sizes) * (float(by_group @ by_group) - spread)
    return math.sqrt(float(shares @ residual**2) * spread / (1 - spread))


def _influence(ranking: RankingMetrics, metric: MetricName) -> tuple[float, FloatArray]:
    """Return a ranking metric and its influence function, ``(N,)``."""
    if metric is MetricName.AUROC:
        return ranking.macro_auroc, ranking.auroc_influence
    return ranking.macro_average_precision, ranking.average_precision_influence

"""The 95% interval of each metric: which method, and where the rows cannot carry one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.data.labels import LABEL_THRESHOLD
from embedstore.classify.metrics import shares
from embedstore.classify.metrics.point_metrics import (
    ROW_LOSSES,
    WORST_LOSS,
    MetricName,
    check_scores,
    class_indicators,
    compute_metric,
    top_five,
)
from embedstore.classify.metrics.resampling import (
    DEFAULT_REPLICATES,
    RANKING_METRICS,
    bootstrap_replicates,
    logit_interval,
    studentized_interval,
)

Interval = tuple[float, float]

MIN_POSITIVES = 10
"""Rows of a class from which its average precision and AUROC can be trusted.

With fewer, the average precision of a sample is too high by itself, and its replicates say little of other samples.
"""
MOST = 0.5  # share of rare classes above which a mean over classes has no interval
FEW_ERRORS = 10  # with fewer groups that have an error, resampling them cannot show how many there might have been
NO_INTERVAL: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class ScoredRows:
    """Rows with their true classes and scores.

    Attributes:
        y: int ``(N,)``, the true columns; for ranking metrics also bool ``(N, K)``, the labels of each row.
        proba: probabilities ``(N, K)``.
        groups: int ``(N,)``; rows of one group are one draw.
    """

    y: IntArray
    proba: FloatArray
    groups: IntArray

    @cached_property
    def n_groups(self) -> int:
        """Return the number of groups."""
        return len(np.unique(self.groups))

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Return whether the highest score, or with several labels every label, is right: bool ``(N,)``."""
        if self.y.ndim == 1:
            return np.asarray(self.proba.argmax(1) == self.y)
        return np.asarray(((self.proba >= LABEL_THRESHOLD) == self.y.astype(bool)).all(1))

    @cached_property
    def share_of_rare_classes(self) -> float:
        """Return how many of the classes that occur have fewer than :data:`MIN_POSITIVES` rows, as a share."""
        positives = class_indicators(self.y, self.proba.shape[1]).sum(0)
        return float((positives[positives > 0] < MIN_POSITIVES).mean()) if positives.any() else 1.0

    @cached_property
    def n_groups_with_errors(self) -> int:
        """Return the number of groups that have a wrong row."""
        return len(np.unique(self.groups[~self.correct]))

    @cached_property
    def independent_draws(self) -> float:
        """Return how many independent draws the mean recall (with several labels the accuracy) rests on."""
        if self.y.ndim == 1:
            return shares.independent_draws(shares.recall_rows(self.correct, self.y, self.groups))
        return shares.independent_draws(shares.accuracy_rows(self.correct, self.groups))


def metric_interval(
    metric: MetricName | str,
    y: IntArray,
    proba: FloatArray,
    *,
    groups: IntArray | None = None,
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
) -> Interval:
    """Return the 95% interval of one metric; see :func:`metric_intervals`.

    Args:
        metric: a member or its value.
        y: int ``(N,)``, the true columns; for a ranking metric also bool ``(N, K)``, the labels of each row.
        proba: probabilities ``(N, K)``.
        groups: int ``(N,)``; rows of one group are one draw. By default every row is one group.
        n_replicates: the number of replicates of the bootstrap.
        seed: random seed of the bootstrap.

    Raises:
        LabelError: if there are no rows, another number of scores, or a score that is not a finite number.
    """
    y, proba = check_scores(y, proba)
    rows = ScoredRows(y, proba, np.arange(len(y)) if groups is None else np.asarray(groups))
    return metric_intervals([MetricName(metric)], rows, n_replicates=n_replicates, seed=seed)[MetricName(metric)]


def metric_intervals(
    metrics: Sequence[MetricName], rows: ScoredRows, *, n_replicates: int = DEFAULT_REPLICATES, seed: int = 0
) -> dict[MetricName, Interval]:
    """Return the 95% interval of each metric.

    Accuracy, top-5 accuracy and mean recall have the Wilson interval of
    :mod:`embedstore.classify.metrics.shares`, log-loss and the Brier score the bootstrap-t interval of a mean, F1,
    AUROC and average precision an interval of their log odds from the bootstrap. Where fewer than ten groups have an
    error, or a class has fewer than ten rows, these last are at least as wide as Wilson's.

    Args:
        metrics: the metrics.
        rows: true classes, scores and groups.
        n_replicates: the number of replicates of the bootstrap.
        seed: random seed of the bootstrap.

    Returns:
        The lower and the upper end by metric; both are NaN where no interval holds its level: for the expected
        calibration error, which is biased (see :mod:`embedstore.classify.metrics.calibration_error`), for F1, average
        precision and AUROC where most classes have fewer than ten rows, and in a single group.
    """
    resampled = [m for m in metrics if m in (MetricName.MACRO_F1, *RANKING_METRICS)]
    replicates = bootstrap_replicates(
        resampled, rows.y, rows.proba, groups=rows.groups, n_replicates=n_replicates, seed=seed
    )
    out: dict[MetricName, Interval] = {}
    for metric in metrics:
        if metric in resampled:
            out[metric] = _bounded_interval(metric, rows, replicates[metric])
        elif metric in ROW_LOSSES:
            losses = ROW_LOSSES[metric](rows.y, rows.proba)
            out[metric] = loss_interval(metric, losses, rows, n_replicates=n_replicates, seed=seed)
        else:
            out[metric] = _share_interval(metric, rows)
    return out


def _share_interval(metric: MetricName, rows: ScoredRows) -> Interval:
    match metric:
        case MetricName.ACCURACY:
            return shares.share_interval(shares.accuracy_rows(rows.correct, rows.groups))
        case MetricName.TOP5_ACCURACY:
            return shares.share_interval(shares.accuracy_rows(top_five(rows.y, rows.proba), rows.groups))
        case MetricName.MEAN_PER_CLASS_RECALL:
            return shares.share_interval(shares.recall_rows(rows.correct, rows.y, rows.groups))
        case _:
            return NO_INTERVAL


def loss_interval(
    metric: MetricName,
    losses: FloatArray,
    rows: ScoredRows,
    *,
    weights: FloatArray | None = None,
    n_replicates: int = DEFAULT_REPLICATES,
    seed: int = 0,
) -> Interval:
    """Return the 95% interval of a mean loss; where every row is right, unseen rows may have the worst loss.

    Where all losses are equal, unseen rows may have the worst loss or none.

    A few rows may have nearly all of the loss, and the bootstrap then knows little of its spread. No variance of a loss
    is larger than that of a share of the worst one, so the upper end is at most Wilson's for such a share.

    Args:
        metric: log-loss or Brier score.
        losses: float ``(N,)``, one per row.
        rows: the true classes, scores and groups of these rows.
        weights: float ``(N,)``, above 0, how often each row counts in the mean; by default once.
        n_replicates: the number of replicates of the bootstrap.
        seed: random seed of the bootstrap.
    """
    low, high = studentized_interval(losses, rows.groups, weights=weights, n_replicates=n_replicates, seed=seed)
    mean, worst = float(np.average(losses, weights=weights)), WORST_LOSS[metric]
    draws = shares.equal_draws(rows.groups, weights)
    unseen = 1 - shares.wilson_interval(1.0, draws)[0]
    are_equal = low == high
    if are_equal:
        low *= 1 - unseen
    if are_equal or rows.n_groups_with_errors == 0:
        high = min(high, shares.bounded_mean_end(mean, _worst_right_loss(metric, rows.proba.shape[1]), draws))
        high += unseen * max(0.0, worst - high)
    return low, max(min(high, shares.bounded_mean_end(mean, worst, draws)), mean)


def _worst_right_loss(metric: MetricName, n_classes: int) -> float:
    """Return the largest loss of a row whose true class has the highest of K probabilities, at least 1/K."""
    return math.log(max(2, n_classes)) if metric is MetricName.LOG_LOSS else 1.0


def _bounded_interval(metric: MetricName, rows: ScoredRows, replicates: FloatArray) -> Interval:
    """Return the interval of F1 or of a ranking metric, within [0, 1]."""
    value, rare = compute_metric(metric, rows.y, rows.proba), rows.share_of_rare_classes
    if not math.isfinite(value) or rows.n_groups < 2 or rare > MOST:
        return NO_INTERVAL
    low, high = logit_interval(value, replicates, rows.n_groups)
    if rows.n_groups_with_errors < FEW_ERRORS or rare > 0 or math.isnan(low):
        wilson = shares.wilson_interval(value, rows.independent_draws)
        low, high = float(np.fmin(low, wilson[0])), float(np.fmax(high, wilson[1]))
    return max(0.0, min(low, value)), min(1.0, max(high, value))

"""Mean average precision as the PASCAL VOC challenges count it, for published comparisons.

Precision is made to fall with recall first: at each recall it is the highest precision at this recall or above. Until
2009 it is averaged at the recalls 0, 0.1 to 1 (Everingham et al. 2010, section 4.2), since 2010 over all recalls
(Everingham et al. 2015, section 3.2.1). Both are a little above the average precision of a step sum.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from embedstore.arrays import Array, FloatArray
from embedstore.classify.metrics.report import MetricEstimate
from embedstore.classify.metrics.resampling import bootstrap_counts, logit_interval

VOC_2007, VOC_2010 = "map_voc2007", "map_voc2010"
_REPLICATES = 1000
_WORK = 100_000_000  # rows x labels x replicates at most; more rows have fewer replicates, at least 100
_RECALLS = np.arange(11) / 10
_CLOSE = 1e-9


def voc_average_precision(labels: npt.NDArray[np.bool_], scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the average precision of one label in both forms, ``(B, 2)``; NaN without positives.

    Args:
        labels: bool ``(N,)``.
        scores: ``(N,)``; rows of equal scores are taken together.
        weights: ``(B, N)``, how often each row counts.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = (weights[:, order] * labels[order]).cumsum(1)[:, last]
    taken = weights[:, order].cumsum(1)[:, last]
    total = hits[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = hits / total, np.where(taken > 0, hits / taken, 0.0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    steps = np.diff(recall, axis=1, prepend=0.0)
    all_points = (envelope * steps).sum(1)
    reached = recall[:, :, None] >= _RECALLS - _CLOSE
    eleven_points = np.where(reached, envelope[:, :, None], 0.0).max(1).mean(1)
    return np.where(total > 0, np.stack([eleven_points, all_points], axis=1), np.nan)


def voc_estimates(
    labels: npt.NDArray[np.bool_], scores: FloatArray, groups: Array, *, has_interval: bool, seed: int = 0
) -> dict[str, MetricEstimate]:
    """Return the mean over the labels that occur, in both forms, with 95% intervals from resampled groups.

    Args:
        labels: bool ``(N, K)``.
        scores: ``(N, K)``.
        groups: ``(N,)``; rows of one group are one draw.
        has_interval: whether enough labels have enough rows for an interval.
        seed: random seed of the bootstrap.
    """
    n, k = labels.shape
    means = _mean(labels, scores, np.ones((1, n)))[0]
    if not has_interval:
        return {name: MetricEstimate(float(v), math.nan, math.nan) for name, v in zip(_NAMES, means, strict=True)}
    replicates = max(100, min(_REPLICATES, _WORK // (n * k)))
    drawn = np.concatenate(
        [_mean(labels, scores, block) for block in bootstrap_counts(n, replicates, seed, groups=groups)]
    )
    n_groups = len(np.unique(groups))
    return {
        name: MetricEstimate(float(value), *logit_interval(float(value), drawn[:, i], n_groups))
        for i, (name, value) in enumerate(zip(_NAMES, means, strict=True))
    }


def _mean(labels: npt.NDArray[np.bool_], scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean over the labels that occur in each replicate, ``(B, 2)``."""
    blocks = max(1, 20_000_000 // (labels.shape[0] * 11))  # replicates at once
    parts = []
    for start in range(0, len(weights), blocks):
        part = weights[start : start + blocks]
        of_labels = [voc_average_precision(y, s, part) for y, s in zip(labels.T, scores.T, strict=True) if y.any()]
        with np.errstate(invalid="ignore"):
            parts.append(np.nanmean(of_labels, axis=0) if of_labels else np.full((len(part), 2), np.nan))
    return np.concatenate(parts)


_NAMES = (VOC_2007, VOC_2010)

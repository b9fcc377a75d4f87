"""Figures of one ranking per query, and their means with intervals over groups of queries.

Manning, Raghavan and Schütze 2008, chapter 8, have average precision and the reciprocal rank; the discounted gain is
that of Järvelin and Kekäläinen 2002.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.metrics import MetricEstimate
from embedstore.classify.metrics.resampling import studentized_interval
from embedstore.classify.metrics.shares import accuracy_rows, share_interval
from embedstore.classify.retrieval.ranking import RankedRelevance

_FEW_GROUPS = 10  # groups that differ from a perfect (or useless) ranking, below which resampling says too little
RECIPROCAL_RANK = "MRR"


@dataclass(frozen=True)
class QueryFigures:
    """The figures of each query that has a relevant item.

    Attributes:
        by_metric: float64 ``(Q,)`` by the name of the metric.
    """

    by_metric: dict[str, FloatArray]


def query_figures(ranked: RankedRelevance, ks: Sequence[int]) -> QueryFigures:
    """Return the figures of queries that all have a relevant item.

    - ``R@k`` is 1 if a relevant item is among the first k, else 0. The mean is the recall at k of image-text retrieval
      and of metric learning, also called hit rate.
    - ``mAP@k`` is the sum of the precision at each relevant rank up to k, divided by the smaller of k and the number of
      relevant items: 1 for a perfect ranking.
    - ``nDCG@k`` is the sum of 1 / log2(1 + rank) over the relevant ranks up to k, divided by that of a perfect ranking.
    - ``MRR`` is 1 / rank of the first relevant item, however far down it is.

    Args:
        ranked: the rankings of the queries.
        ks: ranks, ascending.
    """
    out: dict[str, FloatArray] = {}
    ranks = np.arange(1, ranked.top.shape[1] + 1)
    precision = np.cumsum(ranked.top, axis=1) / ranks
    gains = 1 / np.log2(1 + ranks)
    for k in ks:
        top, possible = ranked.top[:, :k], np.minimum(ranked.n_relevant, k)
        out[f"R@{k}"] = np.asarray(top.any(axis=1), np.float64)
        out[f"mAP@{k}"] = np.einsum("qk,qk->q", precision[:, :k], top) / possible
        out[f"nDCG@{k}"] = (top @ gains[:k]) / np.cumsum(gains)[possible - 1]
    out[RECIPROCAL_RANK] = 1 / ranked.first_rank.astype(np.float64)
    return QueryFigures(out)


def mean_estimate(values: FloatArray, groups: IntArray) -> MetricEstimate:
    """Return a mean of figures between 0 and 1, with its 95% interval.

    Shares have Wilson's interval, other means the bootstrap-t interval over groups. Where fewer than ten groups differ
    from 1 (or from 0), resamplings do not show the spread, and the interval is Wilson's: no variance of such figures
    is larger than that of a share.

    Args:
        values: ``(Q,)``, each in [0, 1].
        groups: int ``(Q,)``; queries of one group are one draw.
    """
    mean = float(values.mean())
    wilson = share_interval(accuracy_rows(values, groups))  # type: ignore[arg-type] # figures between 0 and 1, too
    differing = min(len(np.unique(groups[values != end])) for end in (0, 1))
    if np.isin(values, (0, 1)).all() or differing < _FEW_GROUPS:
        return MetricEstimate(mean, *wilson)
    low, high = _resampled(values, groups)
    if not low < high:
        return MetricEstimate(mean, *wilson)
    return MetricEstimate(mean, max(low, 0.0), min(high, 1.0))


def _resampled(values: FloatArray, groups: IntArray) -> tuple[float, float]:
    """Return the bootstrap-t interval of the figures, or of what they lack where that is smaller, as losses are."""
    if values.mean() <= 0.5:
        return studentized_interval(values, groups)
    low, high = studentized_interval(1 - values, groups)
    return 1 - high, 1 - low

"""The figures of one direction: queries, a gallery, and what is relevant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.data.slices import SliceValues
from embedstore.classify.data.split_leaks import SplitNearDuplicates
from embedstore.classify.evaluation.evaluation import HeldOutPredictions
from embedstore.classify.evaluation.leaks import leaked_score
from embedstore.classify.evaluation.slice_report import SliceReport
from embedstore.classify.evaluation.slices import slice_report
from embedstore.classify.metrics import MetricName
from embedstore.classify.retrieval.metrics import mean_estimate, query_figures
from embedstore.classify.retrieval.ranking import Judgment, RankedRelevance, rank_relevance
from embedstore.classify.retrieval.report import RetrievalDirection
from embedstore.errors import LabelError


@dataclass(frozen=True)
class Queries:
    """What is searched for.

    Attributes:
        vectors: float32 ``(Q, D)``, unit rows.
        ids: int64 ``(Q,)``, the items that the queries are, or belong to.
        groups: int64 ``(Q,)``; queries of one group are one draw.
        near: their near-duplicates in the gallery; None where none were searched for.
    """

    vectors: FloatArray
    ids: IntArray
    groups: IntArray
    near: SplitNearDuplicates | None = None


@dataclass(frozen=True)
class RetrievalSettings:
    """What is reported of every direction.

    Attributes:
        ks: ranks, ascending.
        by: the values that R@1 is split by; None splits nothing.
    """

    ks: Sequence[int]
    by: SliceValues | None = None


def evaluate_direction(
    name: str, queries: Queries, gallery: FloatArray, judge: Callable[[slice], Judgment], settings: RetrievalSettings
) -> RetrievalDirection:
    """Rank the gallery for every query, and average over those that have a relevant item.

    Args:
        name: the name of the direction.
        queries: what is searched for.
        gallery: float32 ``(N, D)``, unit rows.
        judge: as for :func:`~embedstore.classify.retrieval.ranking.rank_relevance`.
        settings: the ranks and the column.

    Raises:
        LabelError: if whatever a query may find is relevant to it, so that every figure is 1 by itself.
    """
    ranked = rank_relevance(queries.vectors, gallery, judge, max(settings.ks))
    kept = np.flatnonzero(ranked.n_relevant > 0)
    if len(kept) and (ranked.n_relevant[kept] == ranked.n_candidates[kept]).all():
        raise LabelError(
            f"{name}: all that a query may find is relevant (one label, or one image), so that any order is perfect "
            "and the figures say nothing; label items of another class, or give another column"
        )
    groups = queries.groups[kept]
    is_hit = ranked.first_rank[kept] == 1
    figures = query_figures(_take(ranked, kept), settings.ks).by_metric if len(kept) else {}
    return RetrievalDirection(
        name=name,
        n_queries=len(kept),
        n_without_relevant=len(queries.ids) - len(kept),
        n_groups=len(np.unique(groups)),
        n_gallery=len(gallery),
        n_excluded=int((len(gallery) - ranked.n_candidates).sum()),
        scores={metric: mean_estimate(values, groups) for metric, values in figures.items()},
        slices=_slices(is_hit, queries.ids[kept], groups, settings.by),
        leak=leaked_score(queries.near, np.asarray(queries.ids[kept], np.int64), is_hit, "R@1"),
    )


def _take(ranked: RankedRelevance, rows: IntArray) -> RankedRelevance:
    return RankedRelevance(
        ranked.top[rows], ranked.first_rank[rows], ranked.n_relevant[rows], ranked.n_candidates[rows]
    )


def _slices(hits: NDArray[np.bool_], ids: IntArray, groups: IntArray, values: SliceValues | None) -> SliceReport | None:
    """Return R@1 by the values of a column: a hit is a right prediction of the class ``found``."""
    if values is None or not len(hits):
        return None
    y = np.full(len(hits), "found", dtype=object)
    proba = np.stack([hits, ~hits], axis=1).astype(np.float32)
    found = HeldOutPredictions(ids.astype(np.int64), y, proba, ("found", "missed"), groups.astype(np.int64))
    return slice_report(found, values, MetricName.ACCURACY)

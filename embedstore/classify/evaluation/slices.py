"""Split an evaluation by the values of a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from embedstore.arrays import IntArray
from embedstore.classify.data.slices import MAX_SLICES, SliceValues
from embedstore.classify.evaluation.evaluation import HeldOutPredictions
from embedstore.classify.evaluation.slice_report import (
    MIN_SLICE_GROUPS,
    EvaluationSlice,
    SliceGap,
    SliceReport,
)
from embedstore.classify.metrics import MetricName
from embedstore.classify.metrics.report import share_estimate
from embedstore.classify.metrics.shares import WeightedRows, accuracy_rows, recall_rows
from embedstore.classify.metrics.slice_gaps import share_gaps
from embedstore.errors import LabelError


def slice_report(held_out: HeldOutPredictions, values: SliceValues, metric: str) -> SliceReport:
    """Return the figures of each slice of the held-out rows, and the gaps between the slices.

    Args:
        held_out: the predictions.
        values: the value of each item.
        metric: the figure that ranks the slices, ``accuracy`` or ``mean_per_class_recall``.

    Raises:
        LabelError: if the items have several labels each and recall is to rank the slices.
    """
    if held_out.multilabel and metric != MetricName.ACCURACY:
        raise LabelError("with several labels per item, slices are ranked by accuracy only; leave out by_metric")
    of_rows = [values.by_item.get(item) for item in held_out.ids.tolist()]
    counts = Counter(of_rows)
    kept = sorted(counts, key=lambda value: (-counts[value], value or ""))[:MAX_SLICES]
    rows = {value: np.flatnonzero([own == value for own in of_rows]) for value in kept}
    figures = [_figures(held_out, value, rows[value]) for value in kept]
    ranked = sorted((s for s in figures if s.ranked), key=lambda s: (s.figure(metric).value, s.value or ""))
    return SliceReport(
        column=values.column,
        metric=metric,
        slices=(*ranked, *(s for s in figures if not s.ranked)),
        gaps=_gaps([s.value for s in ranked], [_weighted(held_out, rows[s.value], metric) for s in ranked]),
        n_cut_values=len(counts) - len(kept),
        n_cut_rows=len(of_rows) - sum(counts[value] for value in kept),
        value_notes=values.notes,
    )


def _figures(held_out: HeldOutPredictions, value: str | None, rows: IntArray) -> EvaluationSlice:
    n_groups = len(np.unique(held_out.groups[rows]))
    recall = None
    if not held_out.multilabel:
        recall = share_estimate(_weighted(held_out, rows, MetricName.MEAN_PER_CLASS_RECALL))
    accuracy = share_estimate(_weighted(held_out, rows, MetricName.ACCURACY))
    return EvaluationSlice(value, len(rows), n_groups, accuracy, recall, n_groups >= MIN_SLICE_GROUPS)


def _weighted(held_out: HeldOutPredictions, rows: IntArray, metric: str) -> WeightedRows:
    """Return the rows of a slice with the weights of a metric."""
    correct, groups = held_out.correct[rows], held_out.groups[rows]
    if metric == MetricName.ACCURACY:
        return accuracy_rows(correct, groups)
    return recall_rows(correct, np.unique(held_out.y[rows].astype(str), return_inverse=True)[1], groups)


def _gaps(values: Sequence[str | None], rows: Sequence[WeightedRows]) -> tuple[SliceGap, ...]:
    return tuple(
        SliceGap(values[g.high], values[g.low], g.difference.value, g.difference.low, g.difference.high)
        for g in share_gaps(rows)
    )

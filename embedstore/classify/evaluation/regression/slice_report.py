"""The errors of slices of held-out rows: one row per value of a column, and the gaps between them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.slices import MAX_SLICES, SliceValues
from embedstore.classify.evaluation.regression.predictions import NumericPredictions
from embedstore.classify.evaluation.slice_report import MIN_SLICE_GROUPS, SliceGap
from embedstore.classify.metrics import MetricEstimate
from embedstore.classify.metrics.error_gaps import error_gaps
from embedstore.classify.metrics.regression import absolute_error_estimate
from embedstore.tables import Record, Table


@dataclass(frozen=True, slots=True)
class NumericSlice:
    """The held-out items with one value of the column.

    Attributes:
        value: the value; None for the items that have none.
        rows: its held-out items.
        groups: how many groups they are; a group is one draw.
        mae: mean absolute error with its 95% interval.
        bias: mean of predicted minus true numbers.
        ranked: whether it has groups enough to be ranked and compared.
    """

    value: str | None
    rows: int
    groups: int
    mae: MetricEstimate
    bias: float
    ranked: bool


@dataclass(frozen=True)
class NumericSliceReport(Table):
    """An evaluation of numbers by the values of a column; as a table, one row per slice.

    Attributes:
        column: the column.
        slices: ranked slices first, the largest error at the top, then the small ones.
        gaps: the gaps of the mean absolute errors of every pair of ranked slices, the largest first.
        n_cut_values: values that are left out because there are too many; the most frequent ones are kept.
        n_cut_rows: held-out items with these values.
        value_notes: what a person should know about the values, one sentence each.
    """

    column: str
    slices: tuple[NumericSlice, ...]
    gaps: tuple[SliceGap, ...]
    n_cut_values: int
    n_cut_rows: int
    value_notes: tuple[str, ...]

    def records(self) -> list[Record]:
        """Return one mapping per slice."""
        return [
            {
                "value": s.value,
                "items": s.rows,
                "groups": s.groups,
                "mae": s.mae.value,
                "mae_low": s.mae.low if math.isfinite(s.mae.low) else None,
                "mae_high": s.mae.high if math.isfinite(s.mae.high) else None,
                "bias": s.bias,
                "ranked": s.ranked,
            }
            for s in self.slices
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "column": self.column,
            "metric": "mae",
            "slices": self.records(),
            "gaps": [asdict(gap) | {"shown": gap.is_shown} for gap in self.gaps],
            "cut_values": self.n_cut_values,
            "cut_items": self.n_cut_rows,
            "notes": list(self.value_notes),
        }


def numeric_slice_report(held_out: NumericPredictions, values: SliceValues) -> NumericSliceReport:
    """Return the errors of each slice of the held-out rows, and the gaps between the slices.

    Args:
        held_out: the predictions.
        values: the value of each item.
    """
    of_rows = [values.by_item.get(item) for item in held_out.ids.tolist()]
    counts = Counter(of_rows)
    kept = sorted(counts, key=lambda value: (-counts[value], value or ""))[:MAX_SLICES]
    members = {value: np.array([own == value for own in of_rows]) for value in kept}
    figures = [_slice(held_out, value, members[value]) for value in kept]
    ranked = sorted((s for s in figures if s.ranked), key=lambda s: (-s.mae.value, s.value or ""))
    errors = np.abs(held_out.y - held_out.predicted)
    gaps = error_gaps(errors, np.stack([members[s.value] for s in ranked]), held_out.groups) if len(ranked) > 1 else []
    return NumericSliceReport(
        column=values.column,
        slices=(*ranked, *(s for s in figures if not s.ranked)),
        gaps=tuple(SliceGap(ranked[g.high].value, ranked[g.low].value, g.value, g.gap_low, g.gap_high) for g in gaps),
        n_cut_values=len(counts) - len(kept),
        n_cut_rows=len(of_rows) - sum(counts[value] for value in kept),
        value_notes=values.notes,
    )


def _slice(held_out: NumericPredictions, value: str | None, member: NDArray[np.bool_]) -> NumericSlice:
    deviation, groups = (held_out.predicted - held_out.y)[member], held_out.groups[member]
    n_groups = len(np.unique(groups))
    mae = absolute_error_estimate(np.abs(deviation), groups)
    return NumericSlice(value, len(groups), n_groups, mae, float(deviation.mean()), n_groups >= MIN_SLICE_GROUPS)

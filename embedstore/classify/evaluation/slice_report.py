"""The figures of slices: a table with one row per value of a column, and the gaps between its rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from embedstore.classify.metrics import MetricEstimate, MetricName
from embedstore.errors import BadOption
from embedstore.tables import Record, Table

MIN_SLICE_GROUPS = 10
"""Groups of held-out items from which a slice is ranked: the worst of several slices of three items is chance."""
SLICE_METRICS = (MetricName.ACCURACY.value, MetricName.MEAN_PER_CLASS_RECALL.value)


@dataclass(frozen=True)
class SliceOptions:
    """How an evaluation is split.

    Attributes:
        by: a column of the items; None splits nothing.
        metric: the figure that ranks the slices, ``accuracy`` or ``mean_per_class_recall``.
    """

    by: str | None = None
    metric: str = MetricName.ACCURACY.value

    def __post_init__(self) -> None:
        if self.metric not in SLICE_METRICS:
            raise BadOption(f"by_metric must be {' or '.join(SLICE_METRICS)}, not {self.metric!r}")
        if self.by is None and self.metric != MetricName.ACCURACY.value:
            raise BadOption("by_metric ranks slices, and there are none: give by, a column of the items")

    def to_record(self) -> dict[str, Any]:
        """Return what the ``runs`` table records: nothing without slices."""
        return {} if self.by is None else {"by": self.by, "by_metric": self.metric}


@dataclass(frozen=True, slots=True)
class EvaluationSlice:
    """The held-out items with one value of the column.

    Attributes:
        value: the value; None for the items that have none.
        rows: its held-out items.
        groups: how many groups they are; a group is one draw.
        accuracy: the accuracy with its 95% interval.
        mean_recall: mean recall over the classes of the slice, with its 95% interval; None with several labels per
            item.
        ranked: whether it has groups enough to be ranked and compared.
    """

    value: str | None
    rows: int
    groups: int
    accuracy: MetricEstimate
    mean_recall: MetricEstimate | None
    ranked: bool

    def figure(self, metric: str) -> MetricEstimate:
        """Return the accuracy or the mean recall."""
        is_accuracy = metric == MetricName.ACCURACY or self.mean_recall is None
        return self.accuracy if is_accuracy else self.mean_recall  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class SliceGap:
    """The figure of one slice minus that of another.

    Attributes:
        high: value of the slice with the higher figure.
        low: value of the slice with the lower figure.
        gap: the difference, at least 0.
        gap_low: lower end of its 95% interval, which holds for all pairs of slices together.
        gap_high: upper end of that interval.
    """

    high: str | None
    low: str | None
    gap: float
    gap_low: float
    gap_high: float

    @property
    def is_shown(self) -> bool:
        """Return whether the interval excludes 0."""
        return self.gap_low > 0


@dataclass(frozen=True)
class SliceReport(Table):
    """An evaluation by the values of a column; as a table, one row per slice.

    Attributes:
        column: the column.
        metric: the figure that ranks the slices.
        slices: ranked slices first, the worst at the top, then the small ones.
        gaps: the gaps of every pair of ranked slices, the largest first.
        n_cut_values: values that are left out because there are too many; the most frequent ones are kept.
        n_cut_rows: held-out items with these values.
        value_notes: what a person should know about the values, one sentence each.
    """

    column: str
    metric: str
    slices: tuple[EvaluationSlice, ...]
    gaps: tuple[SliceGap, ...]
    n_cut_values: int = 0
    n_cut_rows: int = 0
    value_notes: tuple[str, ...] = ()

    @property
    def worst(self) -> EvaluationSlice | None:
        """Return the slice with the lowest figure; None unless at least two are ranked."""
        return self.slices[0] if self.gaps else None

    @property
    def largest_gap(self) -> SliceGap | None:
        """Return the largest gap; None unless at least two slices are ranked."""
        return self.gaps[0] if self.gaps else None

    @property
    def small_slices(self) -> tuple[EvaluationSlice, ...]:
        """Return the slices with too few groups to be ranked."""
        return tuple(s for s in self.slices if not s.ranked)

    def records(self) -> list[Record]:
        """Return one mapping per slice."""
        return [
            {
                "value": s.value,
                "items": s.rows,
                "groups": s.groups,
                **_cells("accuracy", s.accuracy),
                **_cells("mean_per_class_recall", s.mean_recall),
                "ranked": s.ranked,
            }
            for s in self.slices
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "column": self.column,
            "metric": self.metric,
            "slices": self.records(),
            "worst": self.worst and {"value": self.worst.value},
            "gaps": [asdict(gap) | {"shown": gap.is_shown} for gap in self.gaps],
            "cut_values": self.n_cut_values,
            "cut_items": self.n_cut_rows,
            "notes": list(self.value_notes),
        }


def _cells(name: str, estimate: MetricEstimate | None) -> Record:
    """Return a figure and the ends of its interval as three cells."""
    value, low, high = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}

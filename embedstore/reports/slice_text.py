"""Slices of an evaluation in words and tables."""

from __future__ import annotations

from embedstore.classify.evaluation.slice_report import MIN_SLICE_GROUPS, SliceGap, SliceReport
from embedstore.classify.metrics import MetricName
from embedstore.reports.evaluation_text import MAX_LISTED_CLASSES, TextTable, all_pairs, finite, interval
from embedstore.wording import counted

NO_VALUE = "(no value)"
_FIGURES = {MetricName.ACCURACY.value: "accuracy", MetricName.MEAN_PER_CLASS_RECALL.value: "mean recall"}


def slice_title(report: SliceReport) -> str:
    """Return the column, and how the slices are sorted."""
    return f"by {report.column}, the lowest {_FIGURES[report.metric]} first"


def slice_table(report: SliceReport) -> TextTable:
    """Return the figures of every slice; a slice with few items has no rank."""
    columns = (report.column, "rank", "items", "groups", "accuracy", "95% interval", "mean recall", "95% interval")
    rows = []
    for number, s in enumerate(report.slices, 1):
        recall = s.mean_recall
        rows.append(
            (
                _name(s.value),
                number if s.ranked else None,
                s.rows,
                s.groups,
                s.accuracy.value,
                interval(s.accuracy.low, s.accuracy.high),
                recall and finite(recall.value),
                recall and interval(recall.low, recall.high),
            )
        )
    return TextTable(columns, rows)


def slice_notes(report: SliceReport) -> list[str]:
    """Return the worst slice, the largest gap, and what was not compared, one sentence per fact."""
    out = list(report.value_notes)
    if small := report.small_slices:
        names = [f"{_name(s.value)} ({s.groups})" for s in small[:MAX_LISTED_CLASSES]]
        names += ["…"] if len(small) > MAX_LISTED_CLASSES else []
        out.append(
            f"not ranked, for fewer than {MIN_SLICE_GROUPS} independent held-out items: "
            f"{counted(len(small), 'value')} of "
            f"{report.column}: {', '.join(names)}"
        )
    if report.n_cut_values:
        out.append(
            f"left out: {counted(report.n_cut_values, 'value')} of {report.column}, with "
            f"{counted(report.n_cut_rows, 'held-out item')}; "
            f"the {counted(len(report.slices), 'most frequent value is', 'most frequent values are')} kept"
        )
    return [*_gap_notes(report), *out]


def _gap_notes(report: SliceReport) -> list[str]:
    """Return the worst slice and the largest gap."""
    worst, gap = report.worst, report.largest_gap
    if worst is None or gap is None:
        return [f"no gap by {report.column}: fewer than two values have held-out items enough"]
    figure, low = _FIGURES[report.metric], worst.figure(report.metric)
    out = [
        f"worst of {report.column}: {_name(worst.value)} with {figure} {low.value:.3f} "
        f"[{low.low:.3f}, {low.high:.3f}] on {counted(worst.rows, 'item')}; the lowest of several is too low by "
        "selection",
        f"largest gap in {figure}: {_gap(gap)}{all_pairs(len(report.gaps))}"
        + ("" if gap.is_shown else ", and does not show a difference"),
    ]
    surest = max(report.gaps, key=lambda g: g.gap_low)
    if surest.is_shown and surest is not gap:
        out.append(f"surest gap in {figure}: {_gap(surest)}")
    return out


def _gap(gap: SliceGap) -> str:
    return f"{_name(gap.high)} over {_name(gap.low)} by {gap.gap:.3f} [{gap.gap_low:.3f}, {gap.gap_high:.3f}]"


def _name(value: str | None) -> str:
    return NO_VALUE if value is None else value

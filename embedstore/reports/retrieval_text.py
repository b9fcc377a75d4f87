"""A retrieval evaluation in words, tables and as a page."""

from __future__ import annotations

import html

from embedstore.classify.retrieval.report import RetrievalDirection, RetrievalReport
from embedstore.reports import slice_text
from embedstore.reports.evaluation_page import page, render_notes, render_table
from embedstore.reports.evaluation_text import TextTable, interval, leak_headline
from embedstore.reports.html_page import paragraph
from embedstore.wording import counted


def retrieval_title(report: RetrievalReport) -> str:
    """Return what is relevant, in which space."""
    return f"retrieval in space {report.space}: relevant is {report.relevance}"


def retrieval_leak(report: RetrievalReport) -> str | None:
    """Return how many queries have a near-duplicate in the gallery, and their R@1; None where none has one."""
    return next((leak for d in report.directions if (leak := leak_headline(d.leak))), None)


def direction_summary(report: RetrievalReport, d: RetrievalDirection) -> str:
    """Return one line on the queries and the gallery."""
    queries = "" if report.queries == d.name else f" ({report.queries})"
    return f"{d.name}: {counted(d.n_queries, 'query', 'queries')}{queries} among {d.n_gallery}"


def direction_table(d: RetrievalDirection) -> TextTable:
    """Return every metric with its interval."""
    return TextTable(
        ("metric", "value", "95% interval"), [(m, s.value, interval(s.low, s.high)) for m, s in d.scores.items()]
    )


def direction_notes(d: RetrievalDirection) -> list[str]:
    """Return what limits the figures of one direction, one sentence per fact."""
    out = []
    if d.n_without_relevant:
        out.append(f"in no figure, for want of anything relevant: {counted(d.n_without_relevant, 'query', 'queries')}")
    if d.n_groups < d.n_queries:
        out.append(
            f"the {counted(d.n_queries, 'query is', 'queries are')} {counted(d.n_groups, 'group')}; a group is one "
            "draw in every interval"
        )
    if d.n_excluded > d.n_queries:
        out.append(
            "items of the query's own group and near-duplicates of what it belongs to are no candidates: neither found "
            "nor missed"
        )
    return [f"{d.name}: {note}" for note in out]


def retrieval_notes(report: RetrievalReport) -> list[str]:
    """Return what limits the figures, one sentence per fact."""
    out = [note for d in report.directions for note in direction_notes(d)]
    if report.n_unlabeled:
        out.append(
            counted(
                report.n_unlabeled,
                "item has no label or caption and was left out",
                "items have no label or caption and were left out",
            )
        )
    out.append("cosines that agree to six decimals are a tie, in which items that are not relevant come first")
    return out + list(report.notes)


def slice_title(d: RetrievalDirection) -> str:
    """Return the column, and that the figure is R@1."""
    column = d.slices.column if d.slices else ""
    return f"{d.name} by {column}: accuracy is the R@1 of the queries, the lowest first"


def retrieval_page(report: RetrievalReport) -> str:
    """Return a retrieval evaluation as one self-contained HTML page."""
    parts = [render_notes(retrieval_notes(report))]
    for d in report.directions:
        parts.append(f"<h2>{html.escape(d.name)}</h2>")
        parts += [paragraph(direction_summary(report, d)), render_table(direction_table(d))]
        if d.slices is not None:
            parts += [paragraph(slice_title(d)), render_table(slice_text.slice_table(d.slices))]
            parts.append(render_notes(slice_text.slice_notes(d.slices)))
    return page(retrieval_title(report), parts, leak=retrieval_leak(report))

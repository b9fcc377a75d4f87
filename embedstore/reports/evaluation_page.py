"""An evaluation, a learning curve or a comparison as one self-contained HTML page.

The drawings are SVG made by the project itself, so that a page needs no drawing package.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.compare_heads import HeadComparison
from embedstore.classify.evaluation.learning_curve import LearningCurve
from embedstore.classify.evaluation.protocol_report import ProtocolReport
from embedstore.classify.evaluation.slice_report import SliceReport
from embedstore.reports import comparison_text, contact_sheet, evaluation_text, protocol_text, slice_text, svg
from embedstore.reports.evaluation_text import TextTable
from embedstore.reports.html_page import html_page, paragraph
from embedstore.reports.item_images import image_reader_by_uri
from embedstore.types import Hit
from embedstore.wording import counted


def evaluation_page(evaluation: Evaluation, uris: Mapping[int, str], *, curve: LearningCurve | None = None) -> str:
    """Return metrics, confusion matrix, classes, C path, learning curve and the most confident mistakes as a page.

    Args:
        evaluation: the result to show.
        uris: the uris of the items of :attr:`Evaluation.mistakes`.
        curve: the learning curve, where there is one.
    """
    e = evaluation
    parts = [paragraph(evaluation_text.evaluation_summary(e)), render_notes(evaluation_text.evaluation_notes(e))]
    parts.append(f"<h2>Metrics</h2>{render_table(evaluation_text.score_table(e))}")
    if e.fold_accuracy:
        parts.append(paragraph("accuracy of the folds: " + ", ".join(f"{a:.3f}" for a in e.fold_accuracy)))
    if e.confusion:
        parts.append(_confusion(e))
    parts.append(f"<h2>Classes</h2>{render_table(evaluation_text.class_table(e))}")
    if e.protocol is not None:
        parts.append(_protocol(e, e.protocol))
    if e.slices is not None:
        parts.append(_slices(e.slices))
    if e.report.reliability:
        parts.append(f"<h2>Reliability: accuracy by confidence</h2>{_reliability(e)}")
    if len(e.c_path) > 1:
        parts.append(f"<h2>C, chosen inside the training items</h2>{_c_path(e)}")
    if curve is not None:
        parts.append(f"<h2>Labels per class</h2>{curve_section(curve)}")
    if e.mistakes:
        sheet = contact_sheet.contact_sheet_fragment(_mistakes(e, uris), image_reader_by_uri(uris))
        parts.append(f"<h2>Most confident mistakes</h2>{sheet}")
    return page(evaluation_text.evaluation_title(e), parts, leak=evaluation_text.leak_headline(e.leak))


def learning_curve_page(curve: LearningCurve) -> str:
    """Return a learning curve as a page."""
    parts = [paragraph(evaluation_text.curve_summary(curve)), curve_section(curve)]
    return page(evaluation_text.curve_title(curve), parts, leak=evaluation_text.curve_leak_headline(curve))


def comparison_page(comparison: HeadComparison) -> str:
    """Return a comparison of heads, with their learning curves where there are some, as a page."""
    parts = [
        render_table(comparison_text.comparison_table(comparison)),
        render_notes(comparison_text.comparison_notes(comparison)),
    ]
    curves = comparison_text.comparison_curve_table(comparison)
    if curves.rows:
        parts.append(f"<h2>Labels per class</h2>{render_table(curves)}")
    leak = comparison_text.comparison_leak_headline(comparison)
    return page(comparison_text.comparison_summary(comparison), parts, leak=leak)


def page(title: str, parts: Sequence[str], *, leak: str | None = None) -> str:
    """Return a page of parts under a title, which may hold a figure; what leaks into that figure comes before it."""
    first = [f'<p class="leak">{html.escape(leak)}</p>'] if leak else []
    return html_page(title, "\n".join([*first, f"<h1>{html.escape(title)}</h1>", *parts]), style=_STYLE)


def render_notes(notes: Sequence[str]) -> str:
    """Return each note as a paragraph."""
    return "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)


def render_table(table: TextTable) -> str:
    """Return a table as HTML."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = ("".join(f"<td>{html.escape(_cell(value))}</td>" for value in row) for row in table.rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"
    return str(value)


def _protocol(e: Evaluation, report: ProtocolReport) -> str:
    """Return what a protocol tried, with its notes."""
    title = html.escape(protocol_text.protocol_title(report))
    table = render_table(protocol_text.protocol_table(report))
    return f"<h2>Protocol</h2><p>{title}</p>{table}{render_notes(protocol_text.protocol_notes(e))}"


def _slices(report: SliceReport) -> str:
    """Return the figures by slice with what they show."""
    title = html.escape(slice_text.slice_title(report))
    table, notes = slice_text.slice_table(report), slice_text.slice_notes(report)
    return f"<h2>Figures {title}</h2>{render_table(table)}{render_notes(notes)}"


def _confusion(e: Evaluation) -> str:
    """Return the confusion matrix; a cell is shaded by its share of the row."""
    names, matrix = evaluation_text.confusion_table(e)
    hidden = len(e.report.classes) - len(names)
    note = (
        paragraph(
            f"the {counted(len(names), 'most confused class', 'most confused classes')}; "
            f"{counted(hidden, 'other is', 'others are')} not shown"
        )
        if hidden
        else ""
    )
    head = "".join(f'<th class="up"><span>{html.escape(name)}</span></th>' for name in names)
    rows = []
    for name, counts in zip(names, matrix.tolist(), strict=True):
        total = max(sum(counts), 1)
        cells = "".join(f'<td style="{_shade(count / total)}">{count or ""}</td>' for count in counts)
        rows.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return (
        f'<h2>Confusion: true class in rows, predicted class in columns</h2>{note}<table class="confusion">'
        f"<tr><th></th>{head}</tr>{''.join(rows)}</table>"
    )


def _shade(share: float) -> str:
    """Return the colors of a cell: darker for a larger share, with legible letters."""
    letters = ";color:#fff" if share > 0.5 else ""
    return f"background:rgba(20,90,200,{share:.2f}){letters}"


def _reliability(e: Evaluation) -> str:
    """Return accuracy over confidence with the line on which both are equal, and the bins as a table."""
    bins = e.report.reliability
    chart = svg.line_chart(
        [(b.confidence, b.accuracy) for b in bins],
        x_label="confidence (probability of the predicted class)",
        y_label="accuracy",
        error_ends=[(b.low, b.high) for b in bins],
        reference=[(b.confidence, b.confidence) for b in bins],
    )
    note = "Bins of about equal numbers of items. On the dashed line a head is as often right as it says."
    return chart + paragraph(note) + render_table(evaluation_text.reliability_table(e))


def _c_path(e: Evaluation) -> str:
    points = [(math.log10(c), loss) for c, loss, _ in e.c_path]
    chart = svg.line_chart(points, x_label="log10 C", y_label="log-loss out of fold")
    return chart + paragraph(
        "The best value and its neighbors are exact; the others were fitted until they were known to be worse."
    )


def curve_section(curve: LearningCurve) -> str:
    """Return the drawing, table and notes of a learning curve."""
    table = evaluation_text.curve_table(curve)
    chart = svg.line_chart(
        [(float(i), p.mean) for i, p in enumerate(curve.points)],
        x_label=table.columns[0],
        y_label=evaluation_text.curve_metric(curve),
        tick_labels=[str(row[0]) for row in table.rows],
        error_ends=[(p.low, p.high) for p in curve.points],
    )
    return chart + render_table(table) + render_notes(evaluation_text.curve_notes(curve))


def _mistakes(e: Evaluation, uris: Mapping[int, str]) -> list[Hit]:
    """Return the mistakes in the form of a contact sheet, with both labels below each image."""
    separator = "; predicted " if e.multilabel else ", not "
    return [
        Hit(rank, m.score, m.item, uris.get(m.item, ""), m.true_label + separator + m.predicted_label, None)
        for rank, m in enumerate(e.mistakes, 1)
    ]


_STYLE = """
html{color-scheme:light dark}
html body{margin:24px;max-width:1100px;font:14px/1.45 system-ui,sans-serif;color:#111;background:#fff}
h1{font-size:20px} h2{font-size:16px;margin:26px 0 8px}
table{border-collapse:collapse}
td,th{padding:2px 9px;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left} tr:nth-child(odd) td{background:#f5f7fa}
.confusion td{width:26px;padding:3px 4px;text-align:center;font-size:12px}
.confusion th{font-weight:400;font-size:12px} .up span{writing-mode:vertical-rl;transform:rotate(180deg)}
.leak{margin:0 0 16px;padding:8px 12px;border-left:4px solid #b00020;background:#fdecee;font-weight:600}
.note{margin:3px 0;color:#8a4b00} svg{max-width:100%;height:auto}
@media (prefers-color-scheme:dark){html body{color:#eee;background:#181818} tr:nth-child(odd) td{background:#222}
.note{color:#f0b060} .leak{border-color:#ff8a80;background:#3a2023}
[stroke="#1a5fb4"]{stroke:#62a0ea} [fill="#1a5fb4"]{fill:#62a0ea}}
"""

"""An evaluation of predicted numbers, or a comparison of such heads, as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embedstore.classify.evaluation.learning_curve import LearningCurve
from embedstore.classify.evaluation.regression.compare import RegressionComparison
from embedstore.classify.evaluation.regression.evaluation import RegressionEvaluation
from embedstore.reports import contact_sheet, evaluation_text, regression_text, svg
from embedstore.reports.evaluation_page import curve_section, page, render_notes, render_table
from embedstore.reports.html_page import paragraph
from embedstore.reports.item_images import image_reader_by_uri
from embedstore.types import Hit
from embedstore.wording import counted

MAX_POINTS = 5000  # of the scatter; a page with more is slow


def regression_page(e: RegressionEvaluation, uris: Mapping[int, str], *, curve: LearningCurve | None = None) -> str:
    """Return metrics, predicted against true numbers, slices, learning curve and the largest errors as a page.

    Args:
        e: the result to show.
        uris: the uris of the items of :attr:`RegressionEvaluation.largest_errors`.
        curve: the learning curve, where there is one.
    """
    parts = [paragraph(regression_text.regression_summary(e)), render_notes(regression_text.regression_notes(e))]
    parts.append(f"<h2>Metrics</h2>{render_table(regression_text.regression_table(e))}")
    parts.append(f"<h2>Predicted against true {svg.escape(e.label)}</h2>{_scatter(e)}")
    if e.slices is not None:
        table = render_table(regression_text.number_slice_table(e.slices))
        notes = render_notes(regression_text.number_slice_notes(e.slices))
        parts.append(f"<h2>Errors by {svg.escape(e.slices.column)}, the largest first</h2>{table}{notes}")
    if curve is not None:
        parts.append(f"<h2>Labels</h2>{curve_section(curve)}")
    hits = [
        Hit(rank, m.predicted, m.item, uris.get(m.item, ""), f"{m.true:.4g}, predicted {m.predicted:.4g}", None)
        for rank, m in enumerate(e.largest_errors, 1)
    ]
    sheet = contact_sheet.contact_sheet_fragment(hits, image_reader_by_uri(uris))
    parts.append(f"<h2>Largest errors</h2>{sheet}")
    return page(regression_text.regression_title(e), parts, leak=evaluation_text.leak_headline(e.leak))


def regression_comparison_page(c: RegressionComparison) -> str:
    """Return a comparison of heads that predict numbers as a page."""
    parts = [
        render_table(regression_text.regression_comparison_table(c)),
        render_notes(regression_text.regression_comparison_notes(c)),
    ]
    leak = regression_text.regression_comparison_leak_headline(c)
    return page(regression_text.regression_comparison_summary(c), parts, leak=leak)


def _scatter(e: RegressionEvaluation) -> str:
    """Draw predicted over true numbers with the line on which they are equal; of many items a sample."""
    rows = e.held_out_predictions
    shown = np.arange(len(rows))
    if len(rows) > MAX_POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(rows), MAX_POINTS, replace=False))
    points = list(zip(rows.y[shown].tolist(), rows.predicted[shown].tolist(), strict=True))
    ends = (min(min(p) for p in points), max(max(p) for p in points))
    chart = svg.scatter_chart(
        points, x_label=f"true {e.label}", y_label=f"predicted {e.label}", reference=[(ends[0],) * 2, (ends[1],) * 2]
    )
    note = f" {MAX_POINTS:,} of {counted(len(rows), 'held-out item')} are shown." if len(rows) > MAX_POINTS else ""
    return chart + paragraph(f"On the dashed line the prediction is the truth.{note}")

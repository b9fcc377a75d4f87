"""Print evaluations of predicted numbers and comparisons of such heads, and write them to files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.cli import console, render_parts
from embedstore.cli import options as o

if TYPE_CHECKING:
    from embedstore.classify.evaluation import RegressionEvaluation
    from embedstore.classify.evaluation.learning_curve import LearningCurve
    from embedstore.classify.evaluation.regression.compare import RegressionComparison
    from embedstore.store import Store

_LISTED_ERRORS = 5  # that are printed; --json and -o report.html have more


def print_regression(
    store: Store,
    e: RegressionEvaluation,
    output: Sequence[Path],
    as_json: bool,
    *,
    curve: LearningCurve | None = None,
) -> None:
    """Print an evaluation of numbers and write it to files."""
    from embedstore.reports import evaluation_png, evaluation_text, regression_page, regression_text

    uris = store.item_uris([m.item for m in e.largest_errors])
    writers = {
        ".html": o.text_writer(lambda: regression_page.regression_page(e, uris, curve=curve)),
        ".png": lambda path: evaluation_png.regression_png(e, path),
    }
    o.write_outputs(output, writers)
    if as_json:
        facts = e.to_json()
        facts["largest_errors"] = [m | {"uri": uris.get(m["item"])} for m in facts["largest_errors"]]
        console.print_json(facts | ({"curve": curve.to_json()["points"]} if curve else {}))
    else:
        if leak := evaluation_text.leak_headline(e.leak):
            console.print_line(leak)
        console.print_line(regression_text.regression_summary(e))
        console.print_table(*regression_text.regression_table(e))
        console.print_line()
        columns, rows = regression_text.largest_error_table(e, uris)
        console.print_line("largest errors")
        console.print_table(columns, rows[:_LISTED_ERRORS])
        if curve:
            console.print_line()
            render_parts.print_points(curve)
    for note in regression_text.regression_notes(e):
        console.print_note(note)
    _print_slices(e, as_json)
    render_parts.print_near_duplicates(store, e.near_duplicates)
    sys.stdout.flush()


def print_regression_comparison(c: RegressionComparison, output: Sequence[Path], as_json: bool) -> None:
    """Print a comparison of heads that predict numbers, the smallest error first, and write it to files."""
    from embedstore.reports import regression_page, regression_text

    o.write_outputs(output, {".html": o.text_writer(lambda: regression_page.regression_comparison_page(c))})
    if as_json:
        console.print_json(c.to_json())
        return
    if leak := regression_text.regression_comparison_leak_headline(c):
        console.print_line(leak)
    console.print_line(regression_text.regression_comparison_summary(c))
    console.print_table(*regression_text.regression_comparison_table(c))
    for note in regression_text.regression_comparison_notes(c):
        console.print_note(note)


def _print_slices(e: RegressionEvaluation, as_json: bool) -> None:
    """Print the errors by slice and their notes."""
    from embedstore.reports import regression_text

    if e.slices is None:
        return
    if not as_json:
        console.print_line()
        console.print_line(f"by {e.slices.column}, the largest mean absolute error first")
        console.print_table(*regression_text.number_slice_table(e.slices))
    for note in regression_text.number_slice_notes(e.slices):
        console.print_note(note)

"""Print evaluations, learning curves and comparisons, and write them to files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.cli import console, render_parts, render_regression
from embedstore.cli import options as o
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.classify.evaluation import Evaluation, ProbeResult
    from embedstore.classify.evaluation.compare_heads import HeadComparison
    from embedstore.classify.evaluation.learning_curve import LearningCurve
    from embedstore.classify.evaluation.regression.compare import RegressionComparison
    from embedstore.classify.retrieval.report import RetrievalReport
    from embedstore.store import Store

MAX_TABLE_ROWS = 30  # classes that are printed; --json and -o report.html have all of them


def print_evaluation(
    store: Store,
    evaluation: ProbeResult,
    output: Sequence[Path],
    as_json: bool,
    *,
    curve: LearningCurve | None = None,
) -> None:
    """Print an evaluation and write it to files."""
    from embedstore.classify.evaluation import RegressionEvaluation
    from embedstore.reports import evaluation_page, evaluation_png, evaluation_text

    if isinstance(evaluation, RegressionEvaluation):
        render_regression.print_regression(store, evaluation, output, as_json, curve=curve)
        return
    uris = store.item_uris([m.item for m in evaluation.mistakes])
    writers = {
        ".html": o.text_writer(lambda: evaluation_page.evaluation_page(evaluation, uris, curve=curve)),
        ".png": lambda path: evaluation_png.evaluation_png(evaluation, path),
    }
    o.write_outputs(output, writers)
    if as_json:
        facts = evaluation.to_json()
        facts["mistakes"] = [m | {"uri": uris.get(m["item"])} for m in facts["mistakes"]]
        console.print_json(facts | ({"curve": curve.to_json()["points"]} if curve else {}))
    else:
        _print_figures(evaluation)
        if curve:
            console.print_line()
            render_parts.print_points(curve)
    for note in evaluation_text.evaluation_notes(evaluation):
        console.print_note(note)
    _print_protocol(evaluation, as_json)
    _print_slices(evaluation, as_json)
    render_parts.print_near_duplicates(store, evaluation.near_duplicates)
    sys.stdout.flush()


def print_curve(curve: LearningCurve, output: Sequence[Path], as_json: bool) -> None:
    """Print a learning curve and write it to files."""
    from embedstore.reports import evaluation_page, evaluation_png, evaluation_text

    writers = {
        ".html": o.text_writer(lambda: evaluation_page.learning_curve_page(curve)),
        ".png": lambda path: evaluation_png.learning_curve_png(curve, path),
    }
    o.write_outputs(output, writers)
    if as_json:
        console.print_json(curve.to_json())
        return
    if leak := evaluation_text.curve_leak_headline(curve):
        console.print_line(leak)
    console.print_line(f"{evaluation_text.curve_title(curve)}, {evaluation_text.curve_summary(curve)}")
    render_parts.print_points(curve)


def print_comparison(comparison: HeadComparison | RegressionComparison, output: Sequence[Path], as_json: bool) -> None:
    """Print a comparison of heads, best first, and write it to files."""
    from embedstore.classify.evaluation.regression.compare import RegressionComparison
    from embedstore.reports import comparison_text, evaluation_page

    if isinstance(comparison, RegressionComparison):
        render_regression.print_regression_comparison(comparison, output, as_json)
        return
    o.write_outputs(output, {".html": o.text_writer(lambda: evaluation_page.comparison_page(comparison))})
    if as_json:
        console.print_json(comparison.to_json())
        return
    if leak := comparison_text.comparison_leak_headline(comparison):
        console.print_line(leak)
    console.print_line(f"{comparison_text.comparison_summary(comparison)}; best first")
    console.print_table(*comparison_text.comparison_table(comparison))
    curves = comparison_text.comparison_curve_table(comparison)
    if curves.rows:
        console.print_line()
        console.print_table(*curves)
    for note in comparison_text.comparison_notes(comparison):
        console.print_note(note)


def print_retrieval(report: RetrievalReport, output: Sequence[Path], as_json: bool) -> None:
    """Print a retrieval evaluation and write it to files."""
    from embedstore.reports import retrieval_text, slice_text

    o.write_outputs(output, {".html": o.text_writer(lambda: retrieval_text.retrieval_page(report))})
    if as_json:
        console.print_json(report.to_json())
        return
    if leak := retrieval_text.retrieval_leak(report):
        console.print_line(leak)
    console.print_line(f"{retrieval_text.retrieval_title(report)}, {report.seconds:.2f} s")
    for d in report.directions:
        console.print_line()
        console.print_line(retrieval_text.direction_summary(report, d))
        console.print_table(*retrieval_text.direction_table(d))
        if d.slices is not None:
            console.print_line(retrieval_text.slice_title(d))
            console.print_table(*slice_text.slice_table(d.slices))
    for note in retrieval_text.retrieval_notes(report):
        console.print_note(note)


def _print_figures(e: Evaluation) -> None:
    """Print the metrics and the classes."""
    from embedstore.reports import evaluation_text

    if leak := evaluation_text.leak_headline(e.leak):
        console.print_line(leak)
    console.print_line(evaluation_text.evaluation_summary(e))
    console.print_table(*evaluation_text.score_table(e))
    if e.fold_accuracy:
        console.print_line("accuracy of the folds: " + ", ".join(f"{a:.3f}" for a in e.fold_accuracy))
    console.print_line()
    columns, rows = evaluation_text.class_table(e)
    console.print_table(columns, rows[:MAX_TABLE_ROWS])
    if len(rows) > MAX_TABLE_ROWS:
        console.print_note(
            f"… {counted(len(rows) - MAX_TABLE_ROWS, 'more class', 'more classes')}: --json or -o report.html"
        )


def _print_protocol(e: Evaluation, as_json: bool) -> None:
    """Print what a protocol tried, and its notes."""
    from embedstore.reports import protocol_text

    if e.protocol is None:
        return
    if not as_json:
        console.print_line()
        console.print_line(protocol_text.protocol_title(e.protocol))
        console.print_table(*protocol_text.protocol_table(e.protocol))
    for note in protocol_text.protocol_notes(e):
        console.print_note(note)


def _print_slices(e: Evaluation, as_json: bool) -> None:
    """Print the figures by slice and their notes."""
    from embedstore.reports import slice_text

    if e.slices is None:
        return
    if not as_json:
        console.print_line()
        console.print_line(slice_text.slice_title(e.slices))
        console.print_table(*slice_text.slice_table(e.slices))
    for note in slice_text.slice_notes(e.slices):
        console.print_note(note)

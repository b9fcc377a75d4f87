"""Print evaluations, learning curves and comparisons, and write them to files."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.cli import console
from embedstore.cli import options as o

if TYPE_CHECKING:
    from embedstore.classify.evaluation import Evaluation
    from embedstore.classify.evaluation.compare_heads import HeadComparison
    from embedstore.classify.evaluation.learning_curve import LearningCurve
    from embedstore.store import Store

MAX_TABLE_ROWS = 30  # classes and mistakes that are printed; --json and -o report.html have all of them


def print_evaluation(
    store: Store,
    evaluation: Evaluation,
    output: Sequence[Path],
    as_json: bool,
    *,
    curve: LearningCurve | None = None,
) -> None:
    """Print an evaluation and write it to files."""
    from embedstore.reports import evaluation_page as page

    uris = store.item_uris([m.item for m in evaluation.mistakes])
    writers = {
        ".html": o.text_writer(lambda: page.evaluation_page(evaluation, uris, curve=curve)),
        ".png": lambda path: page.evaluation_png(evaluation, path),
    }
    o.write_outputs(output, writers)
    if as_json:
        facts = evaluation.to_json()
        facts["mistakes"] = [m | {"uri": uris.get(m["item"])} for m in facts["mistakes"]]
        console.print_json(facts | ({"curve": curve.to_json()["points"]} if curve else {}))
    else:
        _print_figures(evaluation)
        if curve:
            print()
            _print_points(curve)
    for note in page.evaluation_notes(evaluation):
        console.print_note(note)
    _print_near_duplicates(store, evaluation)
    sys.stdout.flush()


def print_curve(curve: LearningCurve, output: Sequence[Path], as_json: bool) -> None:
    """Print a learning curve and write it to files."""
    from embedstore.reports import evaluation_page as page

    writers = {
        ".html": o.text_writer(lambda: page.learning_curve_page(curve)),
        ".png": lambda path: page.learning_curve_png(curve, path),
    }
    o.write_outputs(output, writers)
    if as_json:
        console.print_json(curve.to_json())
        return
    print(f"{curve.head} on {curve.label}: {curve.n_held_out} held-out items ({curve.split}), {curve.seconds:.2f} s")
    _print_points(curve)


def print_comparison(comparison: HeadComparison, output: Sequence[Path], as_json: bool) -> None:
    """Print a comparison, best first, and write it to files."""
    from embedstore.reports import evaluation_page as page

    o.write_outputs(output, {".html": o.text_writer(lambda: page.comparison_page(comparison))})
    if as_json:
        console.print_json(comparison.to_json())
        return
    c = comparison
    print(f"{c.label}: {c.n_held_out} held-out items ({c.split}), {c.n_train} training items; best first")
    console.print_table(page.COMPARISON_COLUMNS, page.comparison_rows(c))
    names, rows = page.learning_curve_table(c)
    if rows:
        print()
        console.print_table(names, rows)
    for note in page.comparison_notes(c):
        console.print_note(note)


def _print_figures(e: Evaluation) -> None:
    """Print metrics and classes."""
    from embedstore.reports import evaluation_page as page

    print(page.evaluation_summary(e))
    rows = [(name, s.value, f"[{s.low:.3f}, {s.high:.3f}]") for name, s in e.scores.items()]
    console.print_table(("metric", "value", "95% interval"), rows)
    if e.fold_accuracy:
        print("accuracy of the folds: " + ", ".join(f"{a:.3f}" for a in e.fold_accuracy))
    print()
    per_class = [
        (c.name, c.support, _finite(c.precision), _finite(c.recall), _finite(c.f1)) for c in e.report.per_class
    ]
    console.print_table(("class", "items", "precision", "recall", "f1"), per_class[:MAX_TABLE_ROWS])
    if len(per_class) > MAX_TABLE_ROWS:
        console.print_note(f"… {len(per_class) - MAX_TABLE_ROWS} more classes: --json or -o report.html")


def _print_points(curve: LearningCurve) -> None:
    """Print the points of a learning curve."""
    rows = [
        ("all" if p.labels_per_class is None else str(p.labels_per_class), p.n_train, p.mean, p.std, len(p.values))
        for p in curve.points
    ]
    console.print_table(("labels per class", "training items", curve.metric, "std", "draws"), rows)
    for labels, reason in curve.skipped_budgets:
        console.print_note(f"{labels} per class was skipped: {reason}")


def _print_near_duplicates(store: Store, e: Evaluation) -> None:
    """Print the first near-duplicates across the split with their uris."""
    pairs = e.near_duplicates.pairs[:5] if e.near_duplicates else ()
    uris = store.item_uris([i for p in pairs for i in (p.train_item, p.held_out_item)])
    for p in pairs:
        console.print_note(f"  {p.cosine:.4f}  {uris.get(p.train_item)}  ~  {uris.get(p.held_out_item)}")
    if e.near_duplicates and e.near_duplicates.count > len(pairs):
        console.print_note(f"  … {e.near_duplicates.count - len(pairs)} more: --json")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Judgements as words, JSON, HTML and PNG."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from embedstore.cli import console

if TYPE_CHECKING:
    from embedstore.classify.evaluation import Evaluation
    from embedstore.classify.evaluation.compare_heads import HeadComparison
    from embedstore.classify.evaluation.learning_curve import LearningCurve
    from embedstore.cli.option_groups import OutputOptionGroup
    from embedstore.store import Store

MAX_TABLE_ROWS = 30  # classes and mistakes printed; --json and --html have all of them


def print_evaluation(
    store: Store, evaluation: Evaluation, shown: OutputOptionGroup, *, curve: LearningCurve | None = None
) -> None:
    """Print an evaluation and write the files that were requested."""
    from embedstore.reports import evaluation_page, evaluation_png, evaluation_text

    uris = store.uris([m.item for m in evaluation.mistakes])
    if shown.html:
        _write(shown.html, evaluation_page.evaluation_page(evaluation, uris, curve=curve))
    if shown.png:
        evaluation_png.evaluation_png(evaluation, shown.png)
        console.print_note(f"wrote {shown.png}")
    if shown.as_json:
        found = evaluation.to_json()
        found["mistakes"] = [m | {"uri": uris.get(m["item"])} for m in found["mistakes"]]
        console.print_json(found | ({"curve": curve.to_json()["points"]} if curve else {}))
    else:
        _print(evaluation)
        if curve:
            print()
            _print_curve(curve)
    for note in evaluation_text.evaluation_notes(evaluation):
        console.print_note(note)
    _list_near(store, evaluation)
    sys.stdout.flush()


def print_curve(curve: LearningCurve, shown: OutputOptionGroup) -> None:
    """Print a learning curve and write the files that were requested."""
    from embedstore.reports import evaluation_page, evaluation_png, evaluation_text

    if shown.html:
        _write(shown.html, evaluation_page.learning_curve_page(curve))
    if shown.png:
        evaluation_png.learning_curve_png(curve, shown.png)
        console.print_note(f"wrote {shown.png}")
    if shown.as_json:
        console.print_json(curve.to_json())
    else:
        print(f"{evaluation_text.curve_title(curve)}, {evaluation_text.curve_summary(curve)}")
        _print_curve(curve)


def print_comparison(comparison: HeadComparison, as_json: bool, *, html: Path | None = None) -> None:
    """Print a comparison of heads, the best first, and write its page where it was requested."""
    from embedstore.reports import evaluation_page, evaluation_text

    if html:
        _write(html, evaluation_page.comparison_page(comparison))
    if as_json:
        console.print_json(comparison.to_json())
        return
    print(f"{evaluation_text.comparison_summary(comparison)}; best first")
    console.print_table(*evaluation_text.comparison_table(comparison))
    curves = evaluation_text.comparison_curve_table(comparison)
    if curves.rows:
        print()
        console.print_table(*curves)
    for note in evaluation_text.comparison_notes(comparison):
        console.print_note(note)


def _print(e: Evaluation) -> None:
    """Print the metrics and the classes."""
    from embedstore.reports import evaluation_text

    print(evaluation_text.evaluation_summary(e))
    console.print_table(*evaluation_text.score_table(e))
    if e.fold_accuracy:
        print("accuracy of the folds: " + ", ".join(f"{a:.3f}" for a in e.fold_accuracy))
    print()
    columns, rows = evaluation_text.class_table(e)
    console.print_table(columns, rows[:MAX_TABLE_ROWS])
    if len(rows) > MAX_TABLE_ROWS:
        console.print_note(f"… {len(rows) - MAX_TABLE_ROWS} more classes: --json or --html")


def _print_curve(curve: LearningCurve) -> None:
    from embedstore.reports import evaluation_text

    console.print_table(*evaluation_text.curve_table(curve))
    for note in evaluation_text.curve_notes(curve):
        console.print_note(note)


def _list_near(store: Store, e: Evaluation) -> None:
    """The first near-duplicates across the split, by name."""
    pairs = e.near_duplicates.pairs[:5] if e.near_duplicates else ()
    uris = store.uris([i for p in pairs for i in (p.train_item, p.held_out_item)])
    for p in pairs:
        console.print_note(f"  {p.cosine:.4f}  {uris.get(p.train_item)}  ~  {uris.get(p.held_out_item)}")
    if e.near_duplicates and e.near_duplicates.count > len(pairs):
        console.print_note(f"  … {e.near_duplicates.count - len(pairs)} more: --json")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    console.print_note(f"wrote {path}")

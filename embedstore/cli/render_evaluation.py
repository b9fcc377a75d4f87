"""Judgements as words, JSON, HTML and PNG."""

from __future__ import annotations

import math
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
    """A report, in every form that was asked for."""
    from embedstore.reports import evaluation_page

    uris = store.uris([m.item for m in evaluation.mistakes])
    if shown.html:
        _write(shown.html, evaluation_page.evaluation_page(evaluation, uris, curve=curve))
    if shown.png:
        evaluation_page.evaluation_png(evaluation, shown.png)
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
    for note in evaluation_page.evaluation_notes(evaluation):
        console.print_note(note)
    _list_near(store, evaluation)
    sys.stdout.flush()


def print_curve(curve: LearningCurve, shown: OutputOptionGroup) -> None:
    """A learning curve."""
    from embedstore.reports import evaluation_page

    if shown.html:
        _write(shown.html, evaluation_page.learning_curve_page(curve))
    if shown.png:
        evaluation_page.learning_curve_png(curve, shown.png)
        console.print_note(f"wrote {shown.png}")
    if shown.as_json:
        console.print_json(curve.to_json())
    else:
        print(
            f"{curve.head} on {curve.label}: {curve.n_held_out} held-out items ({curve.split}), {curve.seconds:.2f} s"
        )
        _print_curve(curve)


def print_comparison(comparison: HeadComparison, as_json: bool, *, html: Path | None = None) -> None:
    """A comparison, best first."""
    from embedstore.reports import evaluation_page

    if html:
        _write(html, evaluation_page.comparison_page(comparison))
    if as_json:
        console.print_json(comparison.to_json())
        return
    c = comparison
    print(f"{c.label}: {c.n_held_out} held-out items ({c.split}), {c.n_train} trained on; best first")
    console.print_table(evaluation_page.COMPARISON_COLUMNS, evaluation_page.comparison_rows(c))
    names, rows = evaluation_page.learning_curve_table(c)
    if rows:
        print()
        console.print_table(names, rows)
    for note in evaluation_page.comparison_notes(c):
        console.print_note(note)


def _print(e: Evaluation) -> None:
    """Figures and classes."""
    from embedstore.reports import evaluation_page

    print(evaluation_page.evaluation_summary(e))
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
        console.print_note(f"… {len(per_class) - MAX_TABLE_ROWS} more classes: --json or --html")


def _print_curve(curve: LearningCurve) -> None:
    rows = [
        ("all" if p.labels_per_class is None else str(p.labels_per_class), p.n_train, p.mean, p.std, len(p.values))
        for p in curve.points
    ]
    console.print_table(("labels a class", "trained on", curve.metric, "sd", "seeds"), rows)
    for shots, why in curve.skipped_budgets:
        console.print_note(f"{shots} a class was left out: {why}")


def _list_near(store: Store, e: Evaluation) -> None:
    """The first near-duplicates across the split, by name."""
    pairs = e.near_duplicates.pairs[:5] if e.near_duplicates else ()
    uris = store.uris([i for p in pairs for i in (p.train_item, p.held_out_item)])
    for p in pairs:
        console.print_note(f"  {p.cosine:.4f}  {uris.get(p.train_item)}  ~  {uris.get(p.held_out_item)}")
    if e.near_duplicates and e.near_duplicates.count > len(pairs):
        console.print_note(f"  … {e.near_duplicates.count - len(pairs)} more: --json")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    console.print_note(f"wrote {path}")

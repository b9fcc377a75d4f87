"""Parts that evaluations of classes and of numbers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedstore.cli import console

if TYPE_CHECKING:
    from embedstore.classify.data.split_leaks import SplitNearDuplicates
    from embedstore.classify.evaluation.learning_curve import LearningCurve
    from embedstore.store import Store


def print_points(curve: LearningCurve) -> None:
    """Print the points of a learning curve."""
    from embedstore.reports import evaluation_text

    console.print_table(*evaluation_text.curve_table(curve))
    for note in evaluation_text.curve_notes(curve):
        console.print_note(note)


def print_near_duplicates(store: Store, near: SplitNearDuplicates | None) -> None:
    """Print the first near-duplicates across the split with their uris."""
    pairs = near.pairs[:5] if near else ()
    uris = store.item_uris([i for p in pairs for i in (p.train_item, p.held_out_item)])
    for p in pairs:
        console.print_note(f"  {p.cosine:.4f}  {uris.get(p.train_item)}  ~  {uris.get(p.held_out_item)}")
    if near and near.count > len(pairs):
        console.print_note(f"  … {near.count - len(pairs)} more: --json")

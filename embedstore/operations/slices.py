"""Evaluations by the values of a column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from embedstore.classify.data.slices import load_slices
from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.slice_report import SliceOptions
from embedstore.classify.evaluation.slices import slice_report
from embedstore.operations.session import Session


def evaluate_by(
    session: Session, options: SliceOptions, where: str | None, evaluate: Callable[[], Evaluation]
) -> Callable[[], Evaluation]:
    """Return an evaluation that also has figures by slice; the same one if no column is given.

    Args:
        session: the store.
        options: the column and the figure.
        where: the filter of the items that are evaluated.
        evaluate: evaluates the head.
    """
    if options.by is None:
        return evaluate
    by = options.by

    def evaluate_slices() -> Evaluation:
        values = load_slices(session.storage, by, where=where)  # refuses a wrong column before anything is fitted
        result = evaluate()
        return replace(result, slices=slice_report(result.held_out_predictions, values, options.metric))

    return evaluate_slices

"""What else is computed of the held-out rows of an evaluation."""

from __future__ import annotations

from dataclasses import replace

from embedstore.classify.data.slices import load_slices
from embedstore.classify.evaluation.settings import EvaluationSettings, HeldOutFigures
from embedstore.classify.evaluation.slice_report import SliceOptions
from embedstore.operations.session import Session


def with_figures(
    session: Session, settings: EvaluationSettings, slices: SliceOptions, where: str | None, *, weighted: bool = False
) -> EvaluationSettings:
    """Return settings with further figures; a wrong column is refused before anything is fitted.

    Args:
        session: the store.
        settings: how the head is evaluated.
        slices: the column whose values split the figures, and the figure that ranks them.
        where: the filter of the items that are evaluated.
        weighted: compute metrics over weighted rows too.

    Raises:
        UnknownColumn: if the items have no such column.
        LabelError: if the column cannot split them.
    """
    values = None if slices.by is None else load_slices(session.storage, slices.by, where=where)
    return replace(settings, figures=HeldOutFigures(weighted, values, slices.metric))

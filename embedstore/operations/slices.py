"""Evaluations by the values of a column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from embedstore.classify.data.slices import load_slices
from embedstore.classify.evaluation import ProbeResult
from embedstore.classify.evaluation.regression.evaluation import RegressionEvaluation
from embedstore.classify.evaluation.regression.slice_report import numeric_slice_report
from embedstore.classify.evaluation.slice_report import SliceOptions
from embedstore.classify.evaluation.slices import slice_report
from embedstore.classify.metrics import MetricName
from embedstore.errors import LabelError
from embedstore.operations.session import Session

Result = TypeVar("Result", bound=ProbeResult)


def evaluate_by(
    session: Session, options: SliceOptions, where: str | None, evaluate: Callable[[], Result]
) -> Callable[[], Result]:
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

    def evaluate_slices() -> Result:
        values = load_slices(session.storage, by, where=where)  # refuses a wrong column before anything is fitted
        result = evaluate()
        if isinstance(result, RegressionEvaluation):
            if options.metric != MetricName.ACCURACY:
                raise LabelError(
                    "slices of predicted numbers are ranked by their mean absolute error; leave out by_metric"
                )
            return replace(result, slices=numeric_slice_report(result.held_out_predictions, values))
        return replace(result, slices=slice_report(result.held_out_predictions, values, options.metric))

    return evaluate_slices

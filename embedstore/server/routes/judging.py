"""What to label next, and how good a classifier is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from numpy.typing import NDArray
from pydantic import Field

from embedstore.classify.data.slices import SliceValues, load_slices
from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.compare_heads import HeadComparison
from embedstore.classify.evaluation.regression.compare import RegressionComparison
from embedstore.errors import LabelError
from embedstore.reports.comparison_text import comparison_leak_headline, comparison_notes
from embedstore.reports.evaluation_text import evaluation_notes, leak_headline
from embedstore.reports.regression_text import (
    regression_comparison_leak_headline,
    regression_comparison_notes,
    regression_notes,
)
from embedstore.server.context import Context, ServerContext
from embedstore.server.models import MAX_TEXT, ItemBody, Model, SelectionBody
from embedstore.server.reports import KeptReport
from embedstore.server.routes.items import item_body
from embedstore.tables import to_json_value

router = APIRouter(tags=["judge"])

ColumnName = Annotated[str, Query(min_length=1, max_length=200)]
Where = Annotated[str | None, Query(max_length=MAX_TEXT)]
Heads = Annotated[list[str], Query(max_length=20)]
ReportName = Literal["probe", "knn", "zero-shot"]


class SuggestionBody(Model):
    """An item that is worth a label."""

    item: ItemBody
    predicted: str | None = Field(description="The label that a classifier would give; null before there is one.")
    confidence: float | None


class SuggestionsBody(Model):
    """Items to label next, the most useful first."""

    column: str
    strategy: str = Field(description="typical (diverse and typical) or uncertain (uncertain and diverse).")
    unlabelled: int
    seconds: float
    suggestions: list[SuggestionBody]


class EstimateBody(Model):
    """A figure with its 95% interval."""

    value: float | None
    low: float | None
    high: float | None


class ReportBody(Model):
    """How good a classifier is on items that it did not learn from."""

    handle: str = Field(description="For the items of a cell of the confusion matrix.")
    head: str
    column: str
    space: str
    held_out: int
    trained_on: int
    metric: str
    score: EstimateBody
    seconds: float
    classes: list[str]
    leak: str | None = Field(description="How many held-out items have a near copy in training, and what that does.")
    notes: list[str] = Field(description="What limits the figures, one sentence per fact.")
    report: dict[str, Any] = Field(description="All figures, as `--json` of the command line.")


class ForecastBody(Model):
    """What more labels are worth."""

    column: str
    labels: int = Field(description="Items with a label; copies count once.")
    accuracy: EstimateBody
    at_twice: EstimateBody = Field(description="The accuracy to expect with twice as many labels.")
    gain: EstimateBody = Field(description="The difference, with an interval of its own.")
    labels_for_a_point: int | None = Field(description="What one point is expected to cost; null if nothing is gained.")
    pays: bool = Field(description="Whether at least one point is expected from twice the labels.")
    sentence: str


class ComparedBody(Model):
    """One classifier of a comparison."""

    space: str
    head: str
    score: EstimateBody
    behind: EstimateBody | None = Field(description="How far behind the best; null for the best, and for numbers.")
    p_value: float | None = Field(description="p-value of the test against the best, corrected for all comparisons.")
    is_best: bool


class ComparisonBody(Model):
    """Spaces and classifiers on the same items."""

    column: str
    metric: str
    held_out: int
    rows: list[ComparedBody]
    leak: str | None = Field(description="How many held-out items have a near copy in training, and what that does.")
    notes: list[str] = Field(description="How to read the comparison, one sentence per fact.")
    comparison: dict[str, Any] = Field(description="All figures, as `--json` of the command line.")


class ProbeRequest(Model):
    """Which column to predict, and how."""

    column: Annotated[str, Field(min_length=1, max_length=200)] = "label"
    where: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    space: str | None = None
    head: Annotated[str, Field(max_length=100)] | None = None
    separator: Annotated[str, Field(min_length=1, max_length=8)] | None = None


@router.get("/suggestions")
def get_suggestions(
    context: Context,
    column: ColumnName = "label",
    n: Annotated[int, Query(ge=1, le=500)] = 20,
    where: Where = None,
    space: str | None = None,
) -> SuggestionsBody:
    """Return items to label next: from zero labels on."""
    found = context.store.suggest_labels(column, k=n, where=where, space=space)
    rows = context.browser.rows(np.array([s.item for s in found.suggestions], np.int64))
    by_item = {row["item"]: item_body(row) for row in rows}
    return SuggestionsBody(
        column=column,
        strategy=found.strategy.value,
        unlabelled=found.n_candidates,
        seconds=round(found.seconds, 3),
        suggestions=[
            SuggestionBody(item=by_item[s.item], predicted=s.predicted, confidence=s.confidence)
            for s in found.suggestions
            if s.item in by_item
        ],
    )


@router.post("/probe")
def probe(request: ProbeRequest, context: Context) -> ReportBody:
    """Fit a classifier on the labels so far, and judge it on items that it did not learn from."""
    options: dict[str, Any] = {"where": request.where, "space": request.space, "separator": request.separator}
    return _report(context, context.store.probe(request.column, head=request.head, **options))


@router.get("/forecast")
def get_forecast(
    context: Context, column: ColumnName = "label", where: Where = None, space: str | None = None
) -> ForecastBody:
    """Return what more labels are worth: the accuracy to expect at twice the labels, and what a point costs."""
    found = context.store.forecast_labels(column, where=where, space=space)
    return ForecastBody(
        column=column,
        labels=found.labels,
        accuracy=_estimate(found.accuracy),
        at_twice=_estimate(found.at_twice),
        gain=_estimate(found.gain),
        labels_for_a_point=found.labels_for_a_point,
        pays=found.pays,
        sentence=str(found),
    )


@router.get("/reports/{name}")
def get_report(
    name: ReportName,
    context: Context,
    column: ColumnName = "label",
    where: Where = None,
    space: str | None = None,
    by: Annotated[str | None, Query(max_length=200, description="A column to split the figures by.")] = None,
) -> ReportBody:
    """Return the report of a probe, of nearest neighbors, or of a zero-shot classifier of the labels as words."""
    store = context.store
    slices = None if by is None else load_slices(context.session.storage, by, where=where)
    if name == "probe":
        found = store.probe(column, where=where, space=space, by=by)
    elif name == "knn":
        found = store.knn(column, where=where, space=space, by=by)
    else:
        classes = store.distinct_labels(column, where=where, space=space)
        found = store.zero_shot(classes, space=space).evaluate(column, where=where, by=by)
    return _report(context, found, slices)


@router.get("/comparison")
def get_comparison(
    context: Context,
    column: ColumnName = "label",
    where: Where = None,
    heads: Heads = ["logistic", "knn"],  # noqa: B006
) -> ComparisonBody:
    """Compare classifiers in every space on the same held-out items."""
    compared = context.store.compare_heads(column, heads=heads, where=where)
    rows = [_compared(result) for result in compared.results]
    evaluation = compared.results[0].evaluation
    return ComparisonBody(
        column=column,
        metric=next(iter(evaluation.scores)),
        held_out=evaluation.n_held_out,
        rows=rows,
        leak=(
            comparison_leak_headline(compared)
            if isinstance(compared, HeadComparison)
            else regression_comparison_leak_headline(compared)
        ),
        notes=_comparison_notes(compared),
        comparison=to_json_value(compared.to_json()),
    )


@router.get("/reports/{handle}/cell")
def get_cell(
    handle: str,
    context: Context,
    true: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
    predicted: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
) -> SelectionBody:
    """Keep the held-out items of a cell of the confusion matrix as a selection."""
    return _selection(context, context.reports.cell(handle, true, predicted))


@router.get("/reports/{handle}/slice")
def get_slice(
    handle: str,
    context: Context,
    value: Annotated[str | None, Query(max_length=MAX_TEXT, description="Left out: the items without a value.")] = None,
    wrong: bool = False,
) -> SelectionBody:
    """Keep the held-out items with a value of the column `by` as a selection; with `wrong` only the mistakes."""
    return _selection(context, context.reports.slice(handle, value, only_wrong=wrong))


@router.get("/reports/{handle}/bin")
def get_bin(
    handle: str, context: Context, number: Annotated[int, Query(ge=0, le=100)], wrong: bool = False
) -> SelectionBody:
    """Keep the held-out items of a bin of `reliability` as a selection; with `wrong` only the mistakes."""
    return _selection(context, context.reports.bin(handle, number, only_wrong=wrong))


def _selection(context: ServerContext, items: NDArray[np.int64]) -> SelectionBody:
    """Keep items as a selection."""
    return SelectionBody(
        handle=context.selections.add(items), count=len(items), generation=context.browser.generation()
    )


def _compared(result: Any) -> ComparedBody:
    """Return one row of a comparison."""
    gap = getattr(result, "accuracy_gap", None)
    score = next(iter(result.evaluation.scores.values()))
    return ComparedBody(
        space=result.evaluation.space,
        head=result.evaluation.head,
        score=_estimate(score),
        behind=None if gap is None else _estimate(gap),
        p_value=to_json_value(getattr(result, "p_value", None)),
        is_best=gap is None and hasattr(result, "accuracy_gap"),
    )


def _comparison_notes(compared: HeadComparison | RegressionComparison) -> list[str]:
    """Return how to read a comparison."""
    if isinstance(compared, HeadComparison):
        return comparison_notes(compared)
    return regression_comparison_notes(compared)


def _estimate(estimate: Any) -> EstimateBody:
    """Return a figure with its interval."""
    return EstimateBody(
        value=to_json_value(estimate.value), low=to_json_value(estimate.low), high=to_json_value(estimate.high)
    )


def _report(context: ServerContext, result: Any, slices: SliceValues | None = None) -> ReportBody:
    """Return an evaluation as the body of an answer."""
    metric, estimate = next(iter(result.scores.items()), (None, None))
    if metric is None or estimate is None:
        raise LabelError("the report has no figures: too few items have a label; label more of them")
    is_classifier = isinstance(result, Evaluation)
    return ReportBody(
        handle=context.reports.add(KeptReport(result, slices)),
        head=result.head,
        column=result.label,
        space=result.space,
        held_out=result.n_held_out,
        trained_on=result.n_train,
        metric=metric,
        score=_estimate(estimate),
        seconds=round(result.seconds, 3),
        classes=list(result.classes) if is_classifier else [],
        leak=leak_headline(result.leak),
        notes=evaluation_notes(result) if is_classifier else regression_notes(result),
        report=to_json_value(result.to_json()),
    )

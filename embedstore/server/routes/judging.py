"""What to label next, and how good a classifier is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query
from pydantic import Field

from embedstore.classify.evaluation import Evaluation
from embedstore.errors import LabelError
from embedstore.server.context import Context, ServerContext
from embedstore.server.models import MAX_TEXT, ItemBody, Model, SelectionBody
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
    report: dict[str, Any] = Field(description="All figures, as `--json` of the command line.")


class ComparisonBody(Model):
    """Spaces and classifiers on the same items, as `--json` of the command line."""

    comparison: dict[str, Any]


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


@router.get("/reports/{name}")
def get_report(
    name: ReportName, context: Context, column: ColumnName = "label", where: Where = None, space: str | None = None
) -> ReportBody:
    """Return the report of a probe, of nearest neighbors, or of a zero-shot classifier of the labels as words."""
    store = context.store
    if name == "probe":
        return _report(context, store.probe(column, where=where, space=space))
    if name == "knn":
        return _report(context, store.knn(column, where=where, space=space))
    classes = store.distinct_labels(column, where=where, space=space)
    return _report(context, store.zero_shot(classes, space=space).evaluate(column, where=where))


@router.get("/comparison")
def get_comparison(
    context: Context,
    column: ColumnName = "label",
    where: Where = None,
    heads: Heads = ["logistic", "knn"],  # noqa: B006
) -> ComparisonBody:
    """Compare classifiers in every space on the same held-out items."""
    compared = context.store.compare_heads(column, heads=heads, where=where)
    return ComparisonBody(comparison=to_json_value(compared.to_json()))


@router.get("/reports/{handle}/cell")
def get_cell(
    handle: str,
    context: Context,
    true: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
    predicted: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
) -> SelectionBody:
    """Keep the held-out items of a cell of the confusion matrix as a selection."""
    items = context.reports.cell(handle, true, predicted)
    return SelectionBody(
        handle=context.selections.add(items), count=len(items), generation=context.browser.generation()
    )


def _report(context: ServerContext, result: Any) -> ReportBody:
    """Return an evaluation as the body of an answer."""
    metric, estimate = next(iter(result.scores.items()), (None, None))
    if metric is None or estimate is None:
        raise LabelError("the report has no figures: too few items have a label; label more of them")
    return ReportBody(
        handle=context.reports.add(result),
        head=result.head,
        column=result.label,
        space=result.space,
        held_out=result.n_held_out,
        trained_on=result.n_train,
        metric=metric,
        score=EstimateBody(
            value=to_json_value(estimate.value), low=to_json_value(estimate.low), high=to_json_value(estimate.high)
        ),
        seconds=round(result.seconds, 3),
        classes=list(result.classes) if isinstance(result, Evaluation) else [],
        report=to_json_value(result.to_json()),
    )

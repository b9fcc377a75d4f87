"""Set values, undo and redo them, and say who changed what."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query

from embedstore.operations import change_values
from embedstore.operations.change_values import Change, Expectation, NewValue, ValueOperation
from embedstore.server.context import Context, ServerContext
from embedstore.server.errors import Refusal
from embedstore.server.models import (
    ChangeBody,
    ChangeDone,
    HistoryBody,
    LabelRequest,
    SelectionValues,
    UndoRequest,
    ValueCount,
)
from embedstore.server.rights import Writable
from embedstore.tables import to_json_value

router = APIRouter(tags=["labels"])

MAX_VALUES = 50  # of a selection that are listed
ColumnName = Annotated[str, Query(min_length=1, max_length=200)]


@router.post("/labels")
def set_labels(request: LabelRequest, context: Writable) -> ChangeDone:
    """Set a value for items, unless they have another one by now than the page showed (409)."""
    if (request.ids is None) == (request.selection is None):
        raise Refusal(400, "the items are either ids or a selection", "give one of the two")
    if request.expected is None and request.digest is None and not request.overwrite:
        raise Refusal(400, "the request does not say what the items showed", "give expected, digest or overwrite")
    ids = np.array(request.ids, np.int64) if request.ids is not None else context.selected(request.selection)
    new = NewValue(
        request.column,
        np.empty(0, np.int64) if ids is None else ids,
        request.value,
        ValueOperation(request.operation),
        request.separator,
        request.create_column,
    )
    expected = Expectation() if request.overwrite else Expectation(request.expected, request.digest)
    return _done(context, change_values.set_value(context.session, new, expected, request.who))


@router.post("/undo")
def undo(request: UndoRequest, context: Writable) -> ChangeDone:
    """Take back the last change of a person, or one by its number."""
    return _done(context, change_values.undo(context.session, request.who, request.change))


@router.post("/redo")
def redo(request: UndoRequest, context: Writable) -> ChangeDone:
    """Take back the last undo of a person, or one by its number."""
    return _done(context, change_values.redo(context.session, request.who, request.change))


@router.get("/history")
def get_history(
    context: Context,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    column: ColumnName | None = None,
    item: Annotated[int | None, Query(ge=0, le=2**63 - 1)] = None,
) -> HistoryBody:
    """Return who changed what and when, the newest first: of everything, of a column, or of an item."""
    changes = change_values.history(context.session, limit=limit, column=column, item=item)
    return HistoryBody(changes=[change_body(change) for change in changes])


@router.get("/selections/{handle}/values")
def get_selection_values(handle: str, context: Context, column: ColumnName = "label") -> SelectionValues:
    """Return the values of a column within a selection, and the digest that a change of them gives back."""
    shown = change_values.values(context.session, column, context.selections.items(handle), limit=MAX_VALUES)
    values = [ValueCount(value=to_json_value(v), count=n) for v, n in shown.values.values]
    return SelectionValues(column=shown.values.column, values=values, absent=shown.values.absent, digest=shown.digest)


def change_body(change: Change) -> ChangeBody:
    """Return a change as the body of an answer."""
    return ChangeBody(
        change=change.number,
        operation=change.operation,
        column=change.column,
        items=change.items,
        who=change.who,
        when=change.when.replace(tzinfo=UTC).isoformat(timespec="seconds"),
        value=change.value,
        undone=change.is_undone,
    )


def _done(context: ServerContext, change: Change) -> ChangeDone:
    """Return the answer for a change that was made."""
    return ChangeDone(change=change_body(change), generation=context.browser.generation())

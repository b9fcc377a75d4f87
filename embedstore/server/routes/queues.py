"""Queues of what a person should look at, and what was decided."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query
from pydantic import Field

from embedstore.operations.queues import Decision, QueueKind, QueueRow, QueueSettings, possible_decisions
from embedstore.server.context import Context, ServerContext
from embedstore.server.errors import Refusal
from embedstore.server.models import MAX_TEXT, ChangeBody, ChangeDone, Ids, ItemBody, Model
from embedstore.server.rights import Writable
from embedstore.server.routes.items import item_body
from embedstore.server.routes.labelling import change_body

router = APIRouter(prefix="/queues", tags=["queues"])

ColumnName = Annotated[str, Query(min_length=1, max_length=200)]
DecisionName = Literal["keep", "remove", "skip"]


class QueueBody(Model):
    """A queue, and what can be decided on its rows."""

    kind: QueueKind
    decisions: list[DecisionName]
    decided: int = Field(description="How many items have a decision.")


class QueuesBody(Model):
    """The queues."""

    queues: list[QueueBody]


class QueueRowBody(Model):
    """What a person should look at together: an item, copies of one image, or a file that is no item."""

    items: list[ItemBody]
    reason: str
    score: float | None
    suggested: str | None
    uri: str | None


class QueueRowsBody(Model):
    """A part of a queue, the worst first."""

    kind: QueueKind
    total: int
    decisions: list[DecisionName]
    rows: list[QueueRowBody]
    note: str | None = Field(description="What the look left out; `refresh` goes on with it.")


class DecisionRequest(Model):
    """A decision on items of a queue."""

    ids: Ids
    decision: DecisionName
    who: Annotated[str, Field(max_length=100)] = "unknown"


class RemovalRequest(Model):
    """Who removes items."""

    who: Annotated[str, Field(max_length=100)] = "unknown"


class RemovedBody(Model):
    """How many items were removed."""

    items: int
    change: ChangeBody | None = Field(description="For an undo; null if there was nothing to remove.")
    generation: int


@router.get("")
def list_queues(context: Context) -> QueuesBody:
    """Return the queues; what they hold is found when they are opened."""
    found = [
        QueueBody(kind=kind, decisions=_names(kind), decided=len(context.queues.decided(kind))) for kind in QueueKind
    ]
    return QueuesBody(queues=found)


@router.get("/{kind}")
def get_queue(
    kind: QueueKind,
    context: Context,
    column: ColumnName = "label",
    where: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
    space: str | None = None,
    offset: Annotated[int, Query(ge=0, le=10**6)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    refresh: bool = False,
) -> QueueRowsBody:
    """Return what a queue holds, the worst first, without what was decided or changed already.

    A queue is found when it is opened first, and again after ten minutes or with `refresh`.
    """
    found = context.queues.rows(kind, QueueSettings(column, where, space), refresh=refresh)
    shown = _row_bodies(context, found.rows[offset : offset + limit])
    return QueueRowsBody(kind=kind, total=len(found.rows), decisions=_names(kind), rows=shown, note=found.note)


@router.post("/{kind}/decisions")
def decide(kind: QueueKind, request: DecisionRequest, context: Writable) -> ChangeDone:
    """Remember a decision on items; `POST /undo` takes it back. A new label or split is set by `POST /labels`."""
    if not request.ids:
        raise Refusal(400, "a decision is on one item at least", "give ids")
    known = context.browser.known(np.array(request.ids, np.int64))
    if len(known) != len(set(request.ids)):
        raise Refusal(404, "one of the items does not exist")
    change = context.queues.decide(kind, known.tolist(), Decision(request.decision), request.who)
    return ChangeDone(change=change_body(change), generation=context.browser.generation())


@router.post("/{kind}/removal")
def remove_decided(kind: QueueKind, context: Writable, request: RemovalRequest | None = None) -> RemovedBody:
    """Take the items of a queue on which `remove` was decided out of the store; `POST /undo` brings them back.

    They are in no list and no search any more, and their files stay. `embedstore delete STORE "not present"` deletes
    them and their vectors for good.
    """
    change = context.queues.remove(kind, (request or RemovalRequest()).who)
    return RemovedBody(
        items=0 if change is None else change.items,
        change=None if change is None else change_body(change),
        generation=context.browser.generation(),
    )


def _names(kind: QueueKind) -> list[DecisionName]:
    """Return the decisions of a queue."""
    return [decision.value for decision in possible_decisions(kind)]


def _row_bodies(context: ServerContext, rows: list[QueueRow]) -> list[QueueRowBody]:
    """Return rows with the facts of their items."""
    ids = np.unique(np.array([item for row in rows for item in row.items], np.int64))
    items = {row["item"]: item_body(row) for row in context.browser.rows(ids)}
    return [
        QueueRowBody(
            items=[items[i] for i in row.items if i in items],
            reason=row.reason,
            score=row.score,
            suggested=row.suggested,
            uri=row.uri,
        )
        for row in rows
    ]

"""Set values as a person on the page does: with what was expected, a history, undo and redo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.operations.session import Session
from embedstore.storage import decision_changes, removal_changes, value_changes
from embedstore.storage.queries import browse, change_history
from embedstore.storage.queries.browse import ColumnValues
from embedstore.storage.queries.change_history import QUEUE_PREFIX, REDO, REMOVAL_PREFIX, UNDO, Change
from embedstore.storage.sql import utc_now
from embedstore.storage.value_changes import Expectation, NewValue, Person, ValueOperation

__all__ = ["Change", "Expectation", "NewValue", "ValueOperation", "history", "redo", "set_value", "undo", "values"]

WRITE_WAIT = 10.0  # seconds for another writer; an embedding run holds the store for longer


@dataclass(frozen=True)
class ShownValues:
    """The values of a column within some items.

    Attributes:
        values: the values with their counts.
        digest: the digest of all of them; a change that gives it is refused if they are others by then.
    """

    values: ColumnValues
    digest: str


def set_value(session: Session, new: NewValue, expected: Expectation, who: str) -> Change:
    """Set a value for a column of some items, and record what it replaced.

    Args:
        session: the open store.
        new: the value, the column and the items.
        expected: what the items showed before.
        who: the name of the person.

    Raises:
        EditConflict: if an item has another value than expected by now; nothing is changed.
        ItemNotFound: if an item does not exist.
        UnknownColumn: if the column does not exist.
        QueryError: if the column cannot be set, or the value does not fit it.
        StoreBusy: if another process is still writing after ten seconds.
    """
    person = Person(who, utc_now())
    with session.storage.writer("label", wait=WRITE_WAIT) as writer:
        return value_changes.set_value(writer, new, expected, person)


def undo(session: Session, who: str, number: int | None) -> Change:
    """Take back a change: that of a number, or the last one of a person.

    Raises:
        ItemNotFound: if there is none.
        EditConflict: if an item has another value by now; nothing is changed.
        StoreBusy: if another process is still writing after ten seconds.
    """
    return _reverse(session, UNDO, who, number)


def redo(session: Session, who: str, number: int | None) -> Change:
    """Take back an undo: that of a number, or the last one of a person.

    Raises:
        ItemNotFound: if there is none.
        EditConflict: if an item has another value by now; nothing is changed.
        StoreBusy: if another process is still writing after ten seconds.
    """
    return _reverse(session, REDO, who, number)


def history(session: Session, *, limit: int, column: str | None = None, item: int | None = None) -> list[Change]:
    """Return the last changes, the newest first.

    Args:
        session: the open store.
        limit: how many.
        column: only changes of this column.
        item: only changes of this item; their ``value`` is what the item had afterwards.
    """
    with session.storage.catalog.read() as con:
        return change_history.changes(con, limit=limit, column=column, item=item)


def values(session: Session, column: str, items: NDArray[np.int64], *, limit: int) -> ShownValues:
    """Return the values of a column within some items, and their digest.

    Raises:
        UnknownColumn: if the items lack the column.
        QueryError: if the column is one that cannot be set.
    """
    with session.storage.catalog.read() as con:
        found = browse.values_of_items(con, column, items, limit=limit)
        return ShownValues(found, value_changes.values_digest(con, column, items))


def _reverse(session: Session, operation: str, who: str, number: int | None) -> Change:
    """Take back a change or an undo."""
    person = Person(who, utc_now())
    with session.storage.writer(operation, wait=WRITE_WAIT) as writer:
        with session.storage.catalog.read() as con:
            found = change_history.last_reversible(con, who, operation) if number is None else number
            change = change_history.changed_values(con, found)
        return _reversal(change.column)(writer, change, operation, found, person)


def _reversal(column: str) -> Callable[..., Change]:
    """Return what takes back a change of a column, a decision or a removal."""
    if column.startswith(QUEUE_PREFIX):
        return decision_changes.reverse
    return removal_changes.reverse if column.startswith(REMOVAL_PREFIX) else value_changes.reverse

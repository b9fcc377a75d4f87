"""Items that a person removed on the page: they are in no list and no search, and an undo brings them back.

They are marked as not present, as items whose files are gone; `embedstore delete STORE "not present"` deletes them for
good, with their vectors.
"""

from __future__ import annotations

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage.queries.change_history import (
    REMOVAL_PREFIX,
    REMOVE,
    Change,
    ChangedValues,
    ValueGroup,
)
from embedstore.storage.value_changes import Person, record_change
from embedstore.storage.writer import Writer

PRESENT, REMOVED = "present", "removed"


def remove(writer: Writer, queue: str, items: NDArray[np.int64], person: Person) -> Change | None:
    """Remove items; None if all of them are removed or deleted already.

    Args:
        writer: the writer of the store.
        queue: its name.
        items: int64 ``(n,)`` ids, ascending.
        person: who removes them.
    """
    with writer.transaction() as con:
        changed = _mark(con, items, is_present=False)
        if not len(changed):
            return None
        groups = [ValueGroup.of(PRESENT, REMOVED, changed)]
        return record_change(con, REMOVE, ChangedValues(f"{REMOVAL_PREFIX}{queue}", groups, REMOVED), person, {})


def reverse(writer: Writer, change: ChangedValues, operation: str, number: int, person: Person) -> Change:
    """Bring removed items back, or remove them again; items that were deleted since are left out.

    Args:
        writer: the writer of the store.
        change: what was changed.
        operation: ``undo`` or ``redo``.
        number: the number of the run that recorded the change.
        person: who reverses it.
    """
    with writer.transaction() as con:
        for group in change.groups:
            _mark(con, group.items(), is_present=group.old == PRESENT)
        return record_change(con, operation, change.reversed(), person, {"reverses": number})


def _mark(con: duckdb.DuckDBPyConnection, items: NDArray[np.int64], *, is_present: bool) -> NDArray[np.int64]:
    """Set whether items are present, and return those that were changed: int64 ``(n,)``, ascending."""
    wanted = {"item": items}  # noqa: F841 - read by SQL
    found = con.execute(
        "UPDATE items SET present = ? WHERE present <> ? AND item IN (SELECT item FROM wanted) RETURNING item",
        [is_present, is_present],
    ).fetchall()
    return np.array(sorted(item for (item,) in found), np.int64)

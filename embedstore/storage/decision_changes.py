"""Decisions on the queues of the page, such as to keep a blurred image: they are runs, and change no column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EditConflict
from embedstore.storage.queries.change_history import (
    DECIDE,
    QUEUE_PREFIX,
    Change,
    ChangedValues,
    ValueGroup,
    decisions,
)
from embedstore.storage.value_changes import Person, record_change
from embedstore.storage.writer import Writer


def decide(writer: Writer, queue: str, items: NDArray[np.int64], decision: str, person: Person) -> Change:
    """Record a decision on items of a queue.

    Args:
        writer: the writer of the store.
        queue: its name.
        items: int64 ``(n,)`` ids.
        decision: what was decided.
        person: who decided.
    """
    with writer.transaction() as con:
        before = decisions(con, queue)
        groups = _groups({item: (before.get(item), decision) for item in np.unique(items).tolist()})
        return record_change(con, DECIDE, ChangedValues(f"{QUEUE_PREFIX}{queue}", groups, decision), person, {})


def reverse(writer: Writer, change: ChangedValues, operation: str, number: int, person: Person) -> Change:
    """Take a decision back; see :func:`embedstore.storage.value_changes.reverse`.

    Raises:
        EditConflict: if there is another decision on an item by now.
    """
    with writer.transaction() as con:
        now = decisions(con, change.column.removeprefix(QUEUE_PREFIX))
        changed = [i for group in change.groups for i in group.items().tolist() if now.get(i) != group.new]
        if changed:
            raise EditConflict(
                f"item {changed[0]} has another decision by now; nothing was changed: look again", changed
            )
        return record_change(con, operation, change.reversed(), person, {"reverses": number})


def _groups(pairs: Mapping[int, tuple[str | None, str]]) -> list[ValueGroup]:
    """Return items by what replaced what."""
    found: dict[tuple[str | None, str], list[int]] = defaultdict(list)
    for item, pair in pairs.items():
        found[pair].append(item)
    return [ValueGroup.of(old, new, np.array(items, np.int64)) for (old, new), items in found.items()]

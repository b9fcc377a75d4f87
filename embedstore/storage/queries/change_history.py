"""The changes of values among the runs: who set what, what it replaced, and what was undone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ItemNotFound, StoreDamaged

CHANGE, DECIDE, REMOVE, UNDO, REDO = "label", "decide", "remove", "undo", "redo"  # operations of runs with an undo
QUEUE_PREFIX = "queue:"  # of the column in the record of a decision: no column of the items is changed
REMOVAL_PREFIX = "removal:"  # of the column in the record of a removal by a queue
_OPERATIONS = f"verb IN ('{CHANGE}', '{DECIDE}', '{REMOVE}', '{UNDO}', '{REDO}')"
_REVERSED_BY = "(SELECT (settings->>'$.reverses')::BIGINT FROM runs WHERE verb IN ('undo', 'redo'))"


@dataclass(frozen=True)
class ValueGroup:
    """Items whose value was changed in the same way.

    Attributes:
        old: the value before, as text; None is no value.
        new: the value after.
        spans: first and last id of each run of consecutive ids.
    """

    old: str | None
    new: str | None
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, old: str | None, new: str | None, items: NDArray[np.int64]) -> ValueGroup:
        """Return the group of some ids, int64 ``(n,)``, ascending."""
        breaks = np.flatnonzero(np.diff(items) != 1)
        first, last = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(items) - 1]])
        return cls(old, new, tuple(zip(items[first].tolist(), items[last].tolist(), strict=True)))

    @property
    def count(self) -> int:
        """How many items there are."""
        return sum(last - first + 1 for first, last in self.spans)

    def items(self) -> NDArray[np.int64]:
        """Return the ids: int64 ``(n,)``."""
        return np.concatenate([np.arange(first, last + 1, dtype=np.int64) for first, last in self.spans])


@dataclass(frozen=True)
class ChangedValues:
    """What a change did.

    Attributes:
        column: the column.
        groups: what replaced what.
        value: the value that a person gave.
    """

    column: str
    groups: Sequence[ValueGroup]
    value: Any

    @property
    def count(self) -> int:
        """How many items it set."""
        return sum(group.count for group in self.groups)

    def reversed(self) -> ChangedValues:
        """Return the change that takes this one back."""
        return ChangedValues(self.column, [ValueGroup(g.new, g.old, g.spans) for g in self.groups], self.value)


@dataclass(frozen=True)
class Change:
    """An entry of the history.

    Attributes:
        number: the number of the run that recorded it.
        operation: ``label``, ``decide``, ``remove``, ``undo`` or ``redo``.
        column: the column; ``queue:NAME`` for decisions on a queue, ``removal:NAME`` for items removed by one.
        items: how many items it set.
        who: the name that the browser gave.
        when: UTC.
        value: the value that was set, by the change itself or the one that was reversed.
        is_undone: whether a later entry took it back.
    """

    number: int
    operation: str
    column: str
    items: int
    who: str
    when: datetime
    value: Any
    is_undone: bool


def json_groups(groups: Sequence[ValueGroup]) -> list[list[Any]]:
    """Return groups as the table ``runs`` stores them."""
    return [[g.old, g.new, [list(span) for span in g.spans]] for g in groups]


def changes(
    con: duckdb.DuckDBPyConnection, *, limit: int, column: str | None = None, item: int | None = None
) -> list[Change]:
    """Return the last changes, the newest first.

    Args:
        con: the open catalog.
        limit: how many.
        column: only changes of this column.
        item: only changes of this item; their ``value`` is what the item had afterwards.
    """
    if item is not None:
        return _changes_of(con, item, limit, column)
    rows = con.execute(
        "SELECT run, verb, settings->>'$.column', (result->>'$.items')::BIGINT, settings->>'$.who', started, "
        f"settings->'$.value', run IN {_REVERSED_BY} FROM runs WHERE {_OPERATIONS} "
        "AND (? IS NULL OR settings->>'$.column' = ?) ORDER BY run DESC LIMIT ?",
        [column, column, limit],
    ).fetchall()
    return [
        Change(number, verb, name, count, who, when, None if value is None else json.loads(value), bool(undone))
        for number, verb, name, count, who, when, value, undone in rows
    ]


def _changes_of(con: duckdb.DuckDBPyConnection, item: int, limit: int, column: str | None) -> list[Change]:
    """Return the last changes of one item."""
    span = "list_filter(from_json(g->'$[2]', '[[\"BIGINT\"]]'), lambda s: ? BETWEEN s[1] AND s[2])"
    rows = con.execute(
        "SELECT run, verb, settings->>'$.column', settings->>'$.who', started, g->>'$[1]', "
        f"run IN {_REVERSED_BY} FROM (SELECT *, unnest(from_json(result->'$.groups', '[\"JSON\"]')) AS g FROM runs "
        f"WHERE {_OPERATIONS} AND (? IS NULL OR settings->>'$.column' = ?)) WHERE len({span}) > 0 "
        "ORDER BY run DESC LIMIT ?",
        [column, column, item, limit],
    ).fetchall()
    return [
        Change(number, verb, name, 1, who, when, value, bool(undone))
        for number, verb, name, who, when, value, undone in rows
    ]


def last_reversible(con: duckdb.DuckDBPyConnection, who: str, operation: str) -> int:
    """Return the number of the last change of a person that an undo, or a redo, would take back.

    Only what the person did since the last new change can be redone, as in an editor.

    Raises:
        ItemNotFound: if there is none.
    """
    new = (CHANGE, DECIDE, REMOVE)
    wanted = (*new, REDO) if operation == UNDO else (UNDO,)
    rows = con.execute(
        f"SELECT run, verb FROM runs WHERE {_OPERATIONS} AND settings->>'$.who' = ? AND run NOT IN "
        f"(SELECT r FROM {_REVERSED_BY} t(r) WHERE r IS NOT NULL) ORDER BY run DESC",
        [who],
    )
    while (row := rows.fetchone()) is not None:
        if row[1] in wanted:
            return int(row[0])
        if operation == REDO and row[1] in new:
            break
    raise ItemNotFound(f"{who!r} has no change to {operation}")


def decisions(con: duckdb.DuckDBPyConnection, queue: str) -> dict[int, str]:
    """Return the decision on each item of a queue that has one."""
    rows = con.execute(
        f"SELECT result->'$.groups' FROM runs WHERE {_OPERATIONS} AND settings->>'$.column' = ? ORDER BY run",
        [f"{QUEUE_PREFIX}{queue}"],
    ).fetchall()
    decided: dict[int, str | None] = {}
    for (groups,) in rows:
        for _, new, spans in json.loads(groups):
            for first, last in spans:
                decided.update(dict.fromkeys(range(first, last + 1), new))
    return {item: decision for item, decision in decided.items() if decision is not None}


def changed_items(con: duckdb.DuckDBPyConnection, *, after: int) -> set[int]:
    """Return the items with another value than after the run of a number; what was set and taken back is none."""
    rows = con.execute(
        f"SELECT run, (settings->>'$.reverses')::BIGINT, result->'$.groups' FROM runs WHERE {_OPERATIONS} AND run > ? "
        f"AND NOT starts_with(settings->>'$.column', '{QUEUE_PREFIX}') AND NOT (verb IN ('{UNDO}', '{REDO}') "
        f"AND starts_with(settings->>'$.column', '{REMOVAL_PREFIX}'))",
        [after],
    ).fetchall()
    reverses = {run: reversed_run for run, reversed_run, _ in rows}
    taken_back = {run for (run,) in con.execute(f"SELECT r FROM {_REVERSED_BY} t(r)").fetchall()}
    lasting = [groups for run, _, groups in rows if run not in taken_back and _is_change(run, reverses)]
    spans = [span for groups in lasting for *_, spans in json.loads(groups) for span in spans]
    return {item for first, last in spans for item in range(first, last + 1)}


def _is_change(run: int | None, reverses: Mapping[int, int | None]) -> bool:
    """Return whether a run, the one that it reverses, the one that this reverses and so on are an odd number."""
    count = 0
    while run is not None and run in reverses:
        count, run = count + 1, reverses[run]
    return count % 2 == 1


def changed_values(con: duckdb.DuckDBPyConnection, number: int) -> ChangedValues:
    """Return what a change did.

    Raises:
        ItemNotFound: if there is no such change, or it was taken back already.
        StoreDamaged: if its record is not one that embedstore writes.
    """
    row = con.execute(
        f"SELECT settings, result, run IN (SELECT r FROM {_REVERSED_BY} t(r) WHERE r IS NOT NULL) "
        f"FROM runs WHERE run = ? AND {_OPERATIONS}",
        [number],
    ).fetchone()
    if row is None or row[2]:
        raise ItemNotFound(f"there is no change {number} that could be taken back")
    try:
        settings, result = json.loads(row[0]), json.loads(row[1])
        groups = [
            ValueGroup(old, new, tuple((int(a), int(b)) for a, b in spans)) for old, new, spans in result["groups"]
        ]
        return ChangedValues(str(settings["column"]), groups, settings.get("value"))
    except (ValueError, KeyError, TypeError) as e:
        raise StoreDamaged(
            f"run {number} is not a change that embedstore records; run `embedstore verify STORE`"
        ) from e

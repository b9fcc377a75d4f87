"""Values that people set on the page: what they replace is checked and recorded, so that a change can be undone.

A change and its record in ``runs`` are one transaction: after a crash there are both or neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EditConflict, ItemNotFound, QueryError
from embedstore.storage.column_names import find_item_column
from embedstore.storage.item_changes import create_column, editable_column, normalize_splits
from embedstore.storage.queries import computed_columns, runs
from embedstore.storage.queries.change_history import Change, ChangedValues, ValueGroup, json_groups
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import column_types, error_message, fetch_column, object_array, temp_tables
from embedstore.storage.writer import Writer

_MAX_SHOWN = 5  # ids in a message
_MAX_LISTED = 1000  # ids in an error
_VALUE_ERRORS = (duckdb.DataError, duckdb.ConversionException, duckdb.InvalidInputException)


class ValueOperation(StrEnum):
    """How a given value becomes the new one."""

    SET = "set"
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True)
class NewValue:
    """A value for a column of some items.

    Attributes:
        column: the column.
        items: int64 ``(n,)`` ids.
        value: the value; None is no value.
        operation: whether it replaces the value, or is added to or removed from several labels in one text.
        separator: what separates these labels.
        create_column: whether a column that does not exist is created.
    """

    column: str
    items: NDArray[np.int64]
    value: str | float | bool | None
    operation: ValueOperation = ValueOperation.SET
    separator: str = ";"
    create_column: bool = False


@dataclass(frozen=True)
class Expectation:
    """What the items showed when a person decided; None does not look.

    Attributes:
        values: the value of each item, in their order.
        digest: the digest of the values of all items, see :func:`values_digest`.
    """

    values: Sequence[Any] | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Person:
    """Who makes a change, and when it began (UTC)."""

    name: str
    started: datetime


def set_value(writer: Writer, new: NewValue, expected: Expectation, person: Person) -> Change:
    """Set a value, and record who replaced what.

    Args:
        writer: the writer of the store.
        new: the value.
        expected: what the items showed before.
        person: who sets it.

    Returns:
        The change, as the history lists it.

    Raises:
        EditConflict: if an item has another value than expected by now; nothing is changed.
        ItemNotFound: if an item does not exist.
        UnknownColumn: if the column does not exist.
        QueryError: if the column cannot be set, or the value does not fit it.
    """
    with writer.transaction() as con, temp_tables(con, "wanted", "before") as (wanted, before):
        column, kind = _target(con, new)
        _stage(con, wanted, new.items, expected.values)
        con.execute(
            f"CREATE TEMP TABLE {before} AS SELECT w.item, w.expected, i.{quote_identifier(column)} AS old, "
            f"i.item AS found FROM {wanted} w LEFT JOIN items i ON i.item = w.item"
        )
        _require_items(con, before)
        if expected.values is not None:
            _require_expected(con, before, kind)
        if expected.digest is not None and expected.digest != _digest_of(con, before):
            raise EditConflict(
                f"values of {column!r} changed since the selection was shown; nothing was changed: look again"
            )
        groups = _replace(con, before, column, kind, new)
        return record_change(con, "label", ChangedValues(column, groups, new.value), person, {})


def reverse(writer: Writer, change: ChangedValues, operation: str, number: int, person: Person) -> Change:
    """Give items the values back that a change replaced, where they still have the values that it set.

    Args:
        writer: the writer of the store.
        change: what was changed.
        operation: ``undo`` or ``redo``.
        number: the number of the run that recorded the change.
        person: who reverses it.

    Raises:
        EditConflict: if an item has another value by now; nothing is changed.
    """
    with writer.transaction() as con, temp_tables(con, "wanted") as (wanted,):
        column = editable_column(change.column, column_types(con, "items"))
        kind = column_types(con, "items")[column]
        items = np.concatenate([g.items() for g in change.groups]) if change.groups else np.empty(0, np.int64)
        sizes = [g.count for g in change.groups]
        now = object_array(np.repeat(object_array([g.new for g in change.groups]), sizes).tolist())
        old = object_array(np.repeat(object_array([g.old for g in change.groups]), sizes).tolist())
        rows = {"item": items, "now": now, "old": old}  # noqa: F841 - read by SQL
        con.execute(
            f"CREATE TEMP TABLE {wanted} AS SELECT item::BIGINT AS item, now::VARCHAR::{kind} AS now, "
            f"old::VARCHAR::{kind} AS old FROM rows"
        )
        name = quote_identifier(column)
        changed = fetch_column(
            con,
            f"SELECT w.item FROM {wanted} w JOIN items i ON i.item = w.item "
            f"WHERE i.{name} IS DISTINCT FROM w.now ORDER BY 1 LIMIT {_MAX_LISTED}",
        )
        if changed:
            raise _conflict(column, changed)
        con.execute(f"UPDATE items SET {name} = w.old FROM {wanted} w WHERE w.item = items.item")
        computed_columns.mark_edited(con, [column])
        return record_change(con, operation, change.reversed(), person, {"reverses": number})


def values_digest(con: duckdb.DuckDBPyConnection, column: str, items: NDArray[np.int64]) -> str:
    """Return a digest of the values that some items have in a column, whatever the order of the items.

    Raises:
        UnknownColumn: if the items lack the column.
    """
    column = editable_column(column, column_types(con, "items"))
    wanted = {"item": items}  # noqa: F841 - read by SQL
    (digest,) = con.execute(
        f"SELECT {_DIGEST.format(value=f'i.{quote_identifier(column)}')} FROM wanted w JOIN items i ON i.item = w.item"
    ).fetchall()[0]
    return str(digest)


# One text per item is hashed: DuckDB joins the hashes of several arguments by XOR, which cancel each other.
_DIGEST = "coalesce(sum(hash(i.item || coalesce('=' || {value}::VARCHAR, ''))), 0)::VARCHAR || '-' || count(*)"


def _digest_of(con: duckdb.DuckDBPyConnection, before: str) -> str:
    """Return the digest of the values that were staged."""
    (digest,) = con.execute(f"SELECT {_DIGEST.format(value='i.old')} FROM {before} i").fetchall()[0]
    return str(digest)


def _target(con: duckdb.DuckDBPyConnection, new: NewValue) -> tuple[str, str]:
    """Return the column to set and its type; create it if that is wanted."""
    existing = column_types(con, "items")
    if new.create_column and find_item_column(new.column, existing) is None:
        kind = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}.get(type(new.value), "VARCHAR")
        return create_column(con, new.column, kind), kind
    column = editable_column(new.column, existing)
    if existing[column].endswith(("]", ")")) and not existing[column].startswith("DECIMAL"):
        raise QueryError(f"the column {column!r} holds {existing[column]}, of which the page sets no values")
    return column, existing[column]


def _stage(
    con: duckdb.DuckDBPyConnection, table: str, items: NDArray[np.int64], expected: Sequence[Any] | None
) -> None:
    """Create a temporary table of the items and what they are expected to have."""
    if expected is not None and len(expected) != len(items):
        raise QueryError(f"there are {len(items):,} items and {len(expected):,} expected values; give one per item")
    texts = [None if v is None else _text(v) for v in expected or [None] * len(items)]
    rows = {"item": items, "expected": object_array(texts)}  # noqa: F841 - read by SQL
    con.execute(
        f"CREATE TEMP TABLE {table} AS SELECT item::BIGINT AS item, any_value(expected::VARCHAR) AS expected "
        "FROM rows GROUP BY 1"
    )


def _require_items(con: duckdb.DuckDBPyConnection, before: str) -> None:
    """Raise if an item does not exist."""
    missing = fetch_column(con, f"SELECT item FROM {before} WHERE found IS NULL ORDER BY 1 LIMIT {_MAX_SHOWN}")
    if missing:
        raise ItemNotFound(f"there is no item {', '.join(map(str, missing))}; nothing was changed")


def _require_expected(con: duckdb.DuckDBPyConnection, before: str, kind: str) -> None:
    """Raise if an item has another value than expected."""
    changed = fetch_column(
        con,
        f"SELECT item FROM {before} WHERE old IS DISTINCT FROM try_cast(expected AS {kind}) "
        f"OR (expected IS NOT NULL AND try_cast(expected AS {kind}) IS NULL) ORDER BY 1 LIMIT {_MAX_LISTED}",
    )
    if changed:
        raise _conflict("", changed)


def _conflict(column: str, items: Sequence[int]) -> EditConflict:
    """Return the error for items that have another value by now."""
    shown = ", ".join(map(str, items[:_MAX_SHOWN])) + (" …" if len(items) > _MAX_SHOWN else "")
    where = f" in {column!r}" if column else ""
    return EditConflict(f"items {shown} have another value{where} by now; nothing was changed: look again", items)


def _replace(con: duckdb.DuckDBPyConnection, before: str, column: str, kind: str, new: NewValue) -> list[ValueGroup]:
    """Set the new values, and return what replaced what."""
    name, value = quote_identifier(column), None if new.value is None else _text(new.value)
    expression, parameters = _new_value(kind, value, new)
    try:
        con.execute(f"ALTER TABLE {before} ADD COLUMN fresh {kind}")
        con.execute(f"UPDATE {before} SET fresh = {expression}", parameters)
    except _VALUE_ERRORS as e:
        raise QueryError(f"the value does not fit {column!r}: {error_message(e)}; nothing was changed") from e
    con.execute(f"UPDATE items SET {name} = b.fresh FROM {before} b WHERE b.item = items.item")
    if column == "split":
        normalize_splits(con, before)
    computed_columns.mark_edited(con, [column])
    found = con.execute(
        f"SELECT b.old::VARCHAR, i.{name}::VARCHAR, list(b.item ORDER BY b.item) FROM {before} b "
        "JOIN items i ON i.item = b.item GROUP BY 1, 2 ORDER BY 1, 2"
    ).fetchall()
    return [ValueGroup.of(old, fresh, np.array(items, np.int64)) for old, fresh, items in found]


def _new_value(kind: str, value: str | None, new: NewValue) -> tuple[str, list[Any]]:
    """Return the SQL of a new value over ``old``, and its parameters."""
    if new.operation is ValueOperation.SET:
        return f"?::VARCHAR::{kind}", [value]
    if kind != "VARCHAR" or not value:
        raise QueryError("a label is added to or removed from text, and is not empty; use the operation set")
    if new.separator in value:
        raise QueryError(f"the label {value!r} holds the separator {new.separator!r}; set another separator")
    trimmed = "list_transform(string_split(coalesce(old, ''), ?), lambda x: trim(x))"
    parts = f"list_filter({trimmed}, lambda x: x <> '' AND x <> ?)"
    parts = f"list_append({parts}, ?)" if new.operation is ValueOperation.ADD else parts
    values = [new.separator, value] + ([value] if new.operation is ValueOperation.ADD else [])
    return f"nullif(array_to_string({parts}, ?), '')", [*values, new.separator]


def record_change(
    con: duckdb.DuckDBPyConnection, operation: str, change: ChangedValues, person: Person, more: dict[str, int]
) -> Change:
    """Record a change among the runs, and return it."""
    settings = {"column": change.column, "value": change.value, "who": person.name} | more
    result = {"items": change.count, "groups": json_groups(change.groups)}
    number = runs.insert_run(con, operation, None, settings, result, person.started)
    return Change(
        number, operation, change.column, change.count, person.name, person.started, change.value, is_undone=False
    )


def _text(value: Any) -> str:
    """Return a value as DuckDB reads it from text."""
    return str(value).lower() if isinstance(value, bool) else str(value)

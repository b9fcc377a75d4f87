"""The table ``computed_columns``: which columns of the items the package computed, and whether they still hold.

A computed value belongs to the content that it was computed from: when the file of an item changes, its values become
NULL. The marks of a group of duplicates belong to its kept copy: when that is deleted, changed or missing, the marks of
the whole group become NULL, so that a deletion by the marks never removes the last copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.storage import filters
from embedstore.storage.column_names import ITEM_COLUMNS, find_column, first_double, name_problem, stored_name
from embedstore.storage.queries import counters
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import column_types, fetch_value, first_row, temp_tables

_CATALOG_HAS_TABLE = (
    "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'cat' AND table_name = 'computed_columns'"
)


class ColumnRole(StrEnum):
    """What a computed column says of an item."""

    CLUSTER = "cluster"
    OUTLIER = "outlier"
    DUPLICATE_GROUP = "duplicate_group"
    DUPLICATE_KEEP = "duplicate_keep"

    @property
    def option(self) -> str:
        """The option of the command line that names another column."""
        return {
            ColumnRole.CLUSTER: "--cluster-column",
            ColumnRole.OUTLIER: "--outlier-column",
            ColumnRole.DUPLICATE_GROUP: "--group-column",
            ColumnRole.DUPLICATE_KEEP: "--keep-column",
        }[self]


@dataclass(frozen=True)
class ComputedColumn:
    """One computed column.

    Attributes:
        name: the name of the column.
        run: the number of the run that computed it.
        role: what it says.
        filled: how many items it had a value for.
        next_item: the id of the first item that was added after it.
        cleared: how many values were cleared since, because the content of their item or its kept copy changed.
        edited: whether a person changed a value since.
    """

    name: str
    run: int
    role: ColumnRole
    filled: int
    next_item: int
    cleared: int
    edited: bool


@dataclass(frozen=True)
class ComputedValues:
    """Computed columns of some items, to write.

    Attributes:
        items: int64 ``(n,)`` ids.
        columns: ``(n,)`` numbers or booleans.
        names: the names of the columns.
    """

    items: NDArray[np.int64]
    columns: Mapping[ColumnRole, NDArray[Any]]
    names: Mapping[ColumnRole, str]


@dataclass(frozen=True)
class ComputedColumnState:
    """A computed column as ``info`` shows it.

    Attributes:
        column: its name.
        run: the number of the run that computed it.
        verb: the operation of that run.
        computed: when it began, UTC.
        items: how many items have a value now.
        cleared: how many values were cleared since, because an item changed or the kept copy of its group is gone.
        added: how many items were added since; they have no value.
        edited: whether a person changed a value since.
        stale: whether values were cleared or items were added since.
    """

    column: str
    run: int
    verb: str
    computed: datetime | None
    items: int
    cleared: int
    added: int
    edited: bool
    stale: bool

    @property
    def note(self) -> str:
        """What a person who uses a stale column should know."""
        added = f"{self.added:,} added item{'s' * (self.added != 1)}"
        cleared = f"{self.cleared:,} cleared value{'s' * (self.cleared != 1)}"
        command = self.verb + (" STORE --write-columns" if self.verb == "duplicates" else " STORE")
        return (
            f"the column {self.column} is stale: there are {added} and {cleared} since run {self.run} computed it; "
            f"`embedstore {command}` computes it again"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return vars(self) | {"computed": self.computed and self.computed.isoformat(timespec="seconds")}


def computed_columns(con: duckdb.DuckDBPyConnection) -> list[ComputedColumn]:
    """Return every computed column, oldest first; none in a catalog from before their table."""
    if not fetch_value(con, _CATALOG_HAS_TABLE):
        return []
    rows = con.execute(
        "SELECT name, run, role, filled, next_item, cleared, edited FROM computed_columns ORDER BY run, name"
    ).fetchall()
    users = column_types(con, "items").keys() - set(ITEM_COLUMNS)
    return [
        ComputedColumn(name, run, ColumnRole(role), *rest)
        for name, run, role, *rest in rows
        if name in users and role in list(ColumnRole)
    ]


def require_writable(con: duckdb.DuckDBPyConnection, names: Mapping[ColumnRole, str]) -> dict[ColumnRole, str]:
    """Check that columns can be computed: they are new, or computed for the same purpose and not edited since.

    Args:
        con: an open catalog.
        names: the names of the columns.

    Returns:
        The names as the items have them.

    Raises:
        QueryError: if a column is the user's own or was edited, or a name cannot be used.
    """
    existing, computed = column_types(con, "items"), {c.name: c for c in computed_columns(con)}
    if double := first_double(names.values()):
        raise QueryError(f"{double[0]!r} and {double[1]!r} are one column; name two with {_options(names)}")
    return {role: _writable_column(name, role, existing, computed) for role, name in names.items()}


def _writable_column(
    name: str, role: ColumnRole, existing: Mapping[str, str], computed: Mapping[str, ComputedColumn]
) -> str:
    """Return the column that a name means if it may be overwritten, or the name of a new one; else raise QueryError."""
    column, another = find_column(name, existing), f"name another one with {role.option}"
    if column is None:
        if problem := name_problem(name):
            raise QueryError(f"the column {name!r} has {problem}, or {another}")
        return stored_name(name)
    before = computed.get(column)
    if before is None:
        raise QueryError(f"the items have a column {column!r} of your own, which is not overwritten; {another}")
    if before.role is not role:
        raise QueryError(f"run {before.run} computed the column {column!r} for another purpose; {another}")
    if before.edited:
        raise QueryError(f"the column {column!r} was edited since run {before.run} computed it; {another}")
    return column


def _options(names: Iterable[ColumnRole]) -> str:
    """Return the options that name columns."""
    return " and ".join(role.option for role in names)


def replace_values(con: duckdb.DuckDBPyConnection, values: ComputedValues, run: int) -> None:
    """Write computed columns of some items; all other items get NULL in them.

    Args:
        con: a transaction.
        values: the items and the columns.
        run: the number of the run that computed them.

    Raises:
        QueryError: see :func:`require_writable`.
    """
    names = require_writable(con, values.names)
    scratch = {f"c{n}": values.columns[role] for n, role in enumerate(names)}
    rows = {"item": values.items, **scratch}  # noqa: F841 - read by SQL
    next_item = counters.next_item(con)
    with temp_tables(con, "computed") as (table,):
        con.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM rows")
        kinds, existing = column_types(con, table), column_types(con, "items")
        for number, (role, column) in enumerate(names.items()):
            name = quote_identifier(column)
            if column not in existing:
                con.execute(f"ALTER TABLE items ADD COLUMN {name} {kinds[f'c{number}']}")
            con.execute(f"UPDATE items SET {name} = NULL WHERE {name} IS NOT NULL")
            con.execute("DELETE FROM computed_columns WHERE name = ?", [column])
            row = [column, run, role.value, len(values.items), next_item, 0, False]
            con.execute("INSERT INTO computed_columns VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        sets = ", ".join(f"{quote_identifier(column)} = t.c{n}" for n, column in enumerate(names.values()))
        con.execute(f"UPDATE items SET {sets} FROM {table} t WHERE items.item = t.item")


def mark_edited(con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """Record that a person changed values of some columns, if they are computed."""
    con.execute("UPDATE computed_columns SET edited = true WHERE list_contains(?, name)", [list(names)])


def clear_items(con: duckdb.DuckDBPyConnection, items: Sequence[int]) -> None:
    """Clear the computed values of items whose content changed."""
    columns = computed_columns(con)
    if columns and items:
        changed = {"item": np.asarray(items, np.int64)}  # noqa: F841 - read by SQL
        for name in [c.name for c in columns]:
            column = quote_identifier(name)
            cleared = con.execute(
                f"UPDATE items SET {column} = NULL WHERE {column} IS NOT NULL AND item IN (SELECT item FROM changed)"
            )
            _count_cleared(con, [name], int(first_row(cleared)[0]))


def clear_orphaned_marks(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Clear the marks of groups of duplicates whose kept copy is not present any more.

    Returns:
        One sentence per pair of columns that lost marks.
    """
    notices = []
    for group, keep in _mark_columns(con):
        g, k = quote_identifier(group), quote_identifier(keep)
        kept = f"SELECT {g} FROM items WHERE present AND {k} AND {g} IS NOT NULL"
        count = fetch_value(
            con, f"UPDATE items SET {g} = NULL, {k} = NULL WHERE {g} IS NOT NULL AND {g} NOT IN ({kept})"
        )
        if count:
            _count_cleared(con, [group, keep], count)
            notices.append(
                f"the marks of {count} duplicates in {group} and {keep} were cleared, because the kept copy of their "
                "group is gone; run `embedstore duplicates STORE --write-columns` to mark again"
            )
    return notices


def stale_notes(
    con: duckdb.DuckDBPyConnection, where: str | None, known: Sequence[ComputedColumn] | None = None
) -> list[str]:
    """Return one sentence for each computed column that a filter names and that does not cover all items any more.

    Args:
        con: the open catalog.
        where: a filter that was compiled before.
        known: the computed columns, where they were read before.
    """
    text = (where or "").lower()
    if not text:
        return []
    columns = [c for c in (computed_columns(con) if known is None else known) if c.name.lower() in text]
    if not columns:
        return []
    named = filters.named_columns(where or "", column_types(con, "items"))
    states = [_state(con, c) for c in columns if c.name in named]
    return [state.note for state in states if state.stale]


def column_states(con: duckdb.DuckDBPyConnection) -> list[ComputedColumnState]:
    """Return every computed column with the run that computed it, and what changed since."""
    return [_state(con, c) for c in computed_columns(con)]


def _state(con: duckdb.DuckDBPyConnection, column: ComputedColumn) -> ComputedColumnState:
    """Return one column with its run and what changed since."""
    items, added = first_row(
        con.execute(
            f"SELECT count({quote_identifier(column.name)}), count(*) FILTER (WHERE items.item >= ?) FROM items",
            [column.next_item],
        )
    )
    run = con.execute("SELECT verb, started FROM runs WHERE run = ?", [column.run]).fetchone()
    verb, started = run or ("", None)
    stale = bool(column.cleared or added)
    return ComputedColumnState(
        column.name, column.run, verb, started, items, column.cleared, added, edited=column.edited, stale=stale
    )


def _count_cleared(con: duckdb.DuckDBPyConnection, names: Sequence[str], count: int) -> None:
    """Record that some values of columns were cleared."""
    con.execute("UPDATE computed_columns SET cleared = cleared + ? WHERE list_contains(?, name)", [count, list(names)])


def _mark_columns(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Return the columns ``(group, keep)`` of every run that marked duplicates."""
    columns = computed_columns(con)
    keep = {c.run: c.name for c in columns if c.role is ColumnRole.DUPLICATE_KEEP}
    return [(c.name, keep[c.run]) for c in columns if c.role is ColumnRole.DUPLICATE_GROUP and c.run in keep]

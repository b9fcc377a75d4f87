"""Items changed by their owner: deleted, forgotten, edited, renamed. Each change is one transaction.

``delete`` takes items out; the vectors of their contents stay until ``compact`` (embedding the files again costs
nothing until then). ``forget`` takes contents out, with every item that has them: nothing finds them any more, and
``compact`` removes their vectors from the disk.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest, QueryError, UnknownColumn, did_you_mean
from embedstore.storage import filters as item_filter
from embedstore.storage.sql import error_message, first_row, quote_identifier
from embedstore.storage.storage import ITEM_COLUMNS
from embedstore.storage.writer import Writer

EDITABLE_COLUMNS = ("label", "split", "group_id")  # of our own columns; the others say what a file is
_READERS = {".csv": "read_csv", ".tsv": "read_csv", ".parquet": "read_parquet", ".jsonl": "read_json_auto"}


@dataclass(frozen=True)
class ItemSelection:
    """Items by a filter, by their ids, or both (then they must match both).

    Raises:
        QueryError: neither; "all" has to be said as ``where="true"``.
    """

    where: str | None = None
    items: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.where is None and self.items is None:
            raise QueryError("say which items: a filter or ids; all of them are `--where true`")

    def stage_items(self, con: duckdb.DuckDBPyConnection) -> int:
        """Make the table ``memory.main.changed (item, content)``; how many.

        Raises:
            QueryError: an id that does not exist. BadFilter, UnknownColumn: the filter cannot be used.
        """
        condition = item_filter.compile_filter(con, self.where)
        ids = None if self.items is None else [int(i) for i in self.items]
        chosen = "" if ids is None else "AND list_contains($ids, item)"
        with item_filter.filter_errors(self.where):
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE changed AS SELECT item, content FROM items WHERE ({condition}) {chosen}",
                {} if ids is None else {"ids": ids},
            )
        if ids is not None:
            known = {i for (i,) in con.execute("SELECT item FROM items WHERE list_contains(?, item)", [ids]).fetchall()}
            missing = sorted(set(ids) - known)
            if missing:
                raise QueryError(f"there is no item {', '.join(map(str, missing[:5]))}; nothing was changed")
        return int(first_row(con.execute("SELECT count(*) FROM changed"))[0])


def delete(writer: Writer, selection: ItemSelection) -> dict[str, int]:
    """Take items out of the store.

    Returns:
        ``{"items"}``: how many.
    """
    with writer.transaction() as con:
        items = selection.stage_items(con)
        _remove_items(con)
    return {"items": items}


def purge(writer: Writer, selection: ItemSelection) -> dict[str, int]:
    """Take the contents of items out of the store, with every item that has one of them.

    Returns:
        ``{"items", "contents", "vectors"}``: how many. The vectors leave the disk with ``compact``.
    """
    with writer.transaction() as con:
        selection.stage_items(con)
        con.execute("CREATE OR REPLACE TEMP TABLE forgotten AS SELECT DISTINCT content FROM changed")
        con.execute(
            "CREATE OR REPLACE TEMP TABLE changed AS SELECT item, content FROM items "
            "WHERE content IN (SELECT content FROM forgotten)"
        )
        found = con.execute(
            "SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM forgotten), "
            "(SELECT count(*) FROM vectors WHERE content IN (SELECT content FROM forgotten))"
        )
        items, contents, vectors = first_row(found)
        con.execute("DELETE FROM vectors WHERE content IN (SELECT content FROM forgotten)")
        con.execute("DELETE FROM contents WHERE content IN (SELECT content FROM forgotten)")
        _remove_items(con)
    return {"items": items, "contents": contents, "vectors": vectors}


def edit(
    writer: Writer, assignments: Mapping[str, str], selection: ItemSelection, *, create_columns: bool = False
) -> dict[str, int]:
    """Set columns of items to expressions.

    Args:
        writer: of the store.
        assignments: SQL expressions over the items' columns, by column, e.g. ``{"label": "lower(label)"}``.
        chosen: which items.
        new: make columns that do not exist, with the type of their expression.

    Returns:
        ``{"items"}``: how many.

    Raises:
        UnknownColumn, BadFilter: a column or an expression that cannot be used.
        QueryError: a column that may not be edited, or a value that does not fit it.
    """
    if not assignments:
        raise QueryError("say what to set, e.g. --set \"label = 'cat'\"")
    with writer.transaction() as con:
        items = selection.stage_items(con)
        columns = {r[0].lower(): r[0] for r in con.execute("DESCRIBE items").fetchall()}
        expressions = {c: item_filter.compile_filter(con, e) for c, e in assignments.items()}
        for column, expression in expressions.items():
            if column.lower() not in columns and create_columns and _is_name(column):
                with item_filter.filter_errors(expression):
                    kind = con.execute(f"DESCRIBE SELECT ({expression}) AS x FROM items").fetchall()[0][1]
                con.execute(
                    f"ALTER TABLE items ADD COLUMN {quote_identifier(column)} {kind.replace('NULL', 'VARCHAR')}"
                )
            else:
                _check_editable(column, columns.values())
        sets = ", ".join(f"{quote_identifier(c)} = ({e})" for c, e in expressions.items())
        try:
            con.execute(f"UPDATE items SET {sets} WHERE item IN (SELECT item FROM changed)")
        except item_filter.VALUE_ERRORS as e:
            raise QueryError(f"a value does not fit its column: {error_message(e)}; nothing was changed") from e
    return {"items": items}


def edit_from_table(writer: Writer, table: Path, *, key: str | None = None) -> dict[str, int]:
    """Set columns of items from a table: CSV, TSV, Parquet or JSON lines with ``item`` or ``uri`` and columns to set.

    An empty cell sets NULL; columns that do not exist are made.

    Returns:
        ``{"items", "unknown"}``: rows used, and rows whose item or uri the store does not have.

    Raises:
        BadManifest: no such file, no key column, a key twice, nothing to set, or a value that does not fit.
        QueryError: a column that may not be edited.
    """
    reader = _READERS.get(table.suffix.lower())
    if reader is None:
        raise BadManifest(f"a table is {', '.join(_READERS)}, not {table.name!r}")
    if not table.is_file():
        raise BadManifest(f"there is no table at {table}")
    with writer.transaction() as con:
        try:
            con.execute(f"CREATE OR REPLACE TEMP TABLE given AS SELECT * FROM {reader}(?)", [str(table)])
        except duckdb.Error as e:
            raise BadManifest(f"cannot read {table}: {error_message(e)}") from e
        given = {r[0]: r[1] for r in con.execute("DESCRIBE given").fetchall()}
        key = _key(table, given, key)
        columns = {r[0].lower(): r[0] for r in con.execute("DESCRIBE items").fetchall()}
        to_set = {c: kind for c, kind in given.items() if c.lower() not in ("item", "uri")}
        if not to_set:
            raise BadManifest(f"{table} has no column to set beside {key}")
        for column, kind in to_set.items():
            if column.lower() not in columns:
                con.execute(f"ALTER TABLE items ADD COLUMN {quote_identifier(column)} {kind}")
            else:
                _check_editable(column, columns.values())
        return _apply(con, table, key, list(to_set))


def rename(writer: Writer, old: str, new: str) -> dict[str, int]:
    """Give items another uri: the one called ``old``, or, if ``old`` ends in ``/``, all below that folder.

    The files themselves are not touched. A later scan finds the items under their new names.

    Returns:
        ``{"items"}``: how many.

    Raises:
        QueryError: nothing is called so, or a new uri is taken.
    """
    if old.endswith("/") != new.endswith("/"):
        raise QueryError("rename a uri to a uri, or a folder (with / at its end) to a folder (likewise)")
    which = "starts_with(uri, $old)" if old.endswith("/") else "uri = $old"
    with writer.transaction() as con:
        con.execute(
            "CREATE OR REPLACE TEMP TABLE renamed AS SELECT item, $new || substring(uri, length($old) + 1) AS uri, "
            f"path FROM items WHERE {which}",
            {"old": old, "new": new},
        )
        count = int(first_row(con.execute("SELECT count(*) FROM renamed"))[0])
        if not count:
            raise QueryError(f"no item's uri is {old!r}" if not old.endswith("/") else f"no item is below {old!r}")
        taken = con.execute(
            "SELECT r.uri FROM renamed r JOIN items i ON i.uri = r.uri AND i.item NOT IN (SELECT item FROM renamed)"
        ).fetchone()
        if taken:
            raise QueryError(f"{taken[0]!r} is the uri of another item; nothing was renamed")
        for item, path in con.execute("SELECT item, path FROM renamed WHERE path IS NOT NULL").fetchall():
            raw = new.encode() + bytes(path)[len(old.encode()) :]
            con.execute("UPDATE renamed SET path = ? WHERE item = ?", [raw, item])
        con.execute("UPDATE items SET uri = r.uri, path = r.path FROM renamed r WHERE items.item = r.item")
    return {"items": count}


def _remove_items(con: duckdb.DuckDBPyConnection) -> None:
    """Take the rows of ``changed`` out, and what was predicted of them."""
    con.execute("DELETE FROM predictions WHERE item IN (SELECT item FROM changed)")
    con.execute("DELETE FROM items WHERE item IN (SELECT item FROM changed)")


def _key(table: Path, given: Mapping[str, str], key: str | None) -> str:
    """The column that says which item a row is about."""
    lower = {c.lower(): c for c in given}
    for name in (key,) if key else ("item", "uri"):
        if name.lower() in lower:
            return lower[name.lower()]
    raise BadManifest(f"{table} needs a column item or uri; it has {', '.join(given)}")


def _apply(con: duckdb.DuckDBPyConnection, table: Path, key: str, columns: Sequence[str]) -> dict[str, int]:
    """Update the items from the table ``given``."""
    name = "item" if key.lower() == "item" else "uri"
    kind = "BIGINT" if name == "item" else "VARCHAR"
    k = quote_identifier(key)
    try:
        con.execute(f"CREATE OR REPLACE TEMP TABLE given AS SELECT * REPLACE ({k}::{kind} AS {k}) FROM given")
        twice = con.execute(f"SELECT {k} FROM given GROUP BY 1 HAVING count(*) > 1 LIMIT 1").fetchone()
        if twice:
            raise BadManifest(f"{table} has {key} {twice[0]} more than once; nothing was changed")
        found = con.execute(f"SELECT count(*), count(i.item) FROM given g LEFT JOIN items i ON i.{name} = g.{k}")
        rows, used = first_row(found)
        sets = ", ".join(f"{quote_identifier(c)} = g.{quote_identifier(c)}" for c in columns)
        con.execute(f"UPDATE items SET {sets} FROM given g WHERE items.{name} = g.{k}")
    except duckdb.ConversionException as e:
        raise BadManifest(f"a value in {table} does not fit its column: {error_message(e)}; nothing was changed") from e
    return {"items": used, "unknown": rows - used}


def _check_editable(column: str, columns: Collection[str]) -> None:
    """Refuse a column that is not there or not the user's to set."""
    known = list(columns)
    if column.lower() not in {c.lower() for c in known}:
        raise UnknownColumn(f"the items have no column {column!r}{did_you_mean(column, known)}; --new makes one")
    if column.lower() in ITEM_COLUMNS and column.lower() not in EDITABLE_COLUMNS:
        raise QueryError(f"{column} says what the file is and cannot be set; `rename` changes uris")


def _is_name(column: str) -> bool:
    """A name that can be a new column's."""
    return bool(column.strip()) and column.lower() not in (*ITEM_COLUMNS, "pred")


def set_columns(writer: Writer, items: NDArray[np.int64], columns: Mapping[str, NDArray[Any]]) -> int:
    """Write computed columns of items; all other items get NULL in them.

    Args:
        writer: of the store. items: int64 ``(n,)``. columns: ``(n,)`` numbers, booleans or text, by name.

    Raises:
        QueryError: a name that is one of ours.
    """
    with writer.transaction() as con:
        have = {r[0].lower() for r in con.execute("DESCRIBE items").fetchall()}
        computed = {"item": items, **columns}  # noqa: F841 - read by SQL
        con.execute("CREATE OR REPLACE TEMP TABLE given AS SELECT * FROM computed")
        for name, kind, *_ in con.execute("DESCRIBE given").fetchall()[1:]:
            if not _is_name(name):
                raise QueryError(f"{name!r} cannot be a column of your own; choose another name")
            if name.lower() not in have:
                con.execute(f"ALTER TABLE items ADD COLUMN {quote_identifier(name)} {kind}")
            con.execute(f"UPDATE items SET {quote_identifier(name)} = NULL")
        sets = ", ".join(f"{quote_identifier(n)} = g.{quote_identifier(n)}" for n in columns)
        con.execute(f"UPDATE items SET {sets} FROM given g WHERE items.item = g.item")
    return len(items)

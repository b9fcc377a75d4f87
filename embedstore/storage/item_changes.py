"""Changes that a user makes to items: delete, edit, rename. Each change is one transaction.

:func:`delete` removes items; the vectors of their contents stay until ``compact``, so embedding the files again until
then computes nothing. :func:`embedstore.storage.purge.purge` removes contents with every item that has one of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from embedstore.errors import BadFilter, QueryError, UnknownColumn, did_you_mean
from embedstore.storage import filters
from embedstore.storage.column_names import (
    EDITABLE_COLUMNS,
    ITEM_COLUMNS,
    find_item_column,
    first_double,
    name_problem,
    stored_name,
)
from embedstore.storage.queries import computed_columns
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import (
    column_types,
    error_message,
    fetch_column,
    fetch_value,
    temp_tables,
)  # fmt: skip
from embedstore.storage.writer import Writer
from embedstore.text_form import is_absent, known_split, split_words


@dataclass(frozen=True)
class ItemSelection:
    """Items by a filter, by their ids, or both (then an item must match both).

    Attributes:
        where: a filter, as in search.
        items: ids.

    Raises:
        QueryError: if neither is given; ``where="true"`` selects all items.
    """

    where: str | None = None
    items: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.where is None and self.items is None:
            raise QueryError("select items by a filter or by ids; `--where true` selects all of them")


def delete(writer: Writer, selection: ItemSelection) -> dict[str, int]:
    """Remove items.

    Args:
        writer: the writer of the store.
        selection: the items.

    Returns:
        ``{"items"}``: how many were removed.

    Raises:
        QueryError: if an id does not exist.
        BadFilter: if the filter is not valid.
        UnknownColumn: if the filter names a column that the items do not have.
    """
    with writer.transaction() as con, selected_items(con, selection) as (table, count):
        notices = computed_columns.stale_notes(con, selection.where)
        notices += delete_items(con, f"SELECT item FROM {table}")
    writer.notify(notices)
    return {"items": count}


def edit(
    writer: Writer, assignments: Mapping[str, str], selection: ItemSelection, *, create_columns: bool = False
) -> dict[str, int]:
    """Set columns of items to expressions.

    Args:
        writer: the writer of the store.
        assignments: SQL expressions over the items' columns, by column, e.g. ``{"label": "lower(label)"}``.
        selection: the items.
        create_columns: whether to create columns that do not exist, with the type of their expression.

    Returns:
        ``{"items"}``: how many were changed.

    Raises:
        UnknownColumn: if a column does not exist.
        BadFilter: if the filter or an expression is not valid.
        QueryError: if an id does not exist, a column cannot be edited, or a value does not fit its column.
    """
    if not assignments:
        raise QueryError("name the columns to set, e.g. --set \"label = 'cat'\"")
    if double := first_double(assignments):
        raise QueryError(f"{double[0]!r} and {double[1]!r} are one column; set it once")
    with writer.transaction() as con, selected_items(con, selection) as (table, count):
        existing = column_types(con, "items")
        expressions = {}
        for name, text in assignments.items():
            expression = _compile_value(con, name, text)
            if create_columns and find_item_column(name, existing) is None:
                with filters.filter_errors(con, expression):
                    kind = column_types(con, f"SELECT ({expression}) AS x FROM items")["x"]
                column = create_column(con, name, kind.replace("NULL", "VARCHAR"))
            else:
                column = editable_column(name, existing)
            expressions[column] = expression
        sets = ", ".join(f"{quote_identifier(c)} = ({e})" for c, e in expressions.items())
        try:
            with filters.time_limit(con, ", ".join(assignments.values())):
                con.execute(f"UPDATE items SET {sets} WHERE item IN (SELECT item FROM {table})")
        except filters.VALUE_ERRORS as e:
            raise QueryError(f"a value does not fit its column: {error_message(e)}; nothing was changed") from e
        if any(column.lower() == "split" for column in expressions):
            normalize_splits(con, table)
        notices = computed_columns.stale_notes(con, selection.where)
        computed_columns.mark_edited(con, list(expressions))
    writer.notify(notices)
    return {"items": count}


def _compile_value(con: duckdb.DuckDBPyConnection, column: str, expression: str) -> str:
    """Return the SQL of what a column is set to.

    Raises:
        BadFilter: if the expression cannot be read, or contains something that is not allowed.
        UnknownColumn: if it names a column that the items lack, as text without quotes does.
    """
    if not expression.strip():
        raise BadFilter(f"{column} is set to nothing; NULL removes the values: --set {shlex.quote(f'{column}=NULL')}")
    try:
        return filters.compile_filter(con, expression)
    except (BadFilter, UnknownColumn) as e:
        text = expression.strip().strip("\"'")
        raise type(e)(f"{e}; to set the text itself, write --set {_in_shell(f'{column}={quote_literal(text)}')}") from e


def _in_shell(text: str) -> str:
    """Return a text as one word of a shell's command, in double quotes where these change nothing in it."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def rename(writer: Writer, old: str, new: str) -> dict[str, int]:
    """Change the uri of an item, or, if ``old`` ends in ``/``, of all items below that folder.

    The files are not touched. A later scan finds the items under their new names.

    Args:
        writer: the writer of the store.
        old: a uri, or a folder that ends in ``/``.
        new: the new uri or folder.

    Returns:
        ``{"items"}``: how many were renamed.

    Raises:
        QueryError: if no item has the uri, or a new uri belongs to another item.
    """
    is_folder = old.endswith("/")
    if is_folder != new.endswith("/"):
        raise QueryError("rename a uri to a uri, or a folder to a folder, both with / at the end")
    with writer.transaction() as con, temp_tables(con, "renamed") as (table,):
        con.execute(
            f"CREATE TEMP TABLE {table} AS SELECT item, $new || substring(uri, length($old) + 1) AS uri, path "
            f"FROM items WHERE {'starts_with(uri, $old)' if is_folder else 'uri = $old'}",
            {"old": old, "new": new},
        )
        count = int(fetch_value(con, f"SELECT count(*) FROM {table}"))
        if not count:
            raise QueryError(f"no item is below {old!r}" if is_folder else f"no item has the uri {old!r}")
        others = f"items i ON i.uri = t.uri AND i.item NOT IN (SELECT item FROM {table})"
        taken = fetch_column(con, f"SELECT t.uri FROM {table} t JOIN {others} LIMIT 1")
        if taken:
            raise QueryError(f"{taken[0]!r} is the uri of another item; nothing was renamed")
        for item, path in con.execute(f"SELECT item, path FROM {table} WHERE path IS NOT NULL").fetchall():
            new_path = new.encode() + bytes(path)[len(old.encode()) :]
            con.execute(f"UPDATE {table} SET path = ? WHERE item = ?", [new_path, item])
        update_items(con, table, {"uri": "uri", "path": "path"}, "items.item = t.item")
    return {"items": count}


@contextmanager
def selected_items(con: duckdb.DuckDBPyConnection, selection: ItemSelection) -> Iterator[tuple[str, int]]:
    """Yield the name of a temporary table ``(item, content)`` of the selected items, and their number."""
    condition = filters.compile_filter(con, selection.where)
    ids = None if selection.items is None else [int(i) for i in selection.items]
    with temp_tables(con, "selected") as (table,):
        with filters.filter_errors(con, selection.where):
            con.execute(
                f"CREATE TEMP TABLE {table} AS SELECT item, content FROM items WHERE ({condition})"
                + ("" if ids is None else " AND list_contains($ids, item)"),
                {} if ids is None else {"ids": ids},
            )
        if ids is not None:
            known = fetch_column(con, "SELECT item FROM items WHERE list_contains(?, item)", [ids])
            missing = sorted(set(ids) - set(known))
            if missing:
                raise QueryError(f"there is no item {', '.join(map(str, missing[:5]))}; nothing was changed")
        yield table, int(fetch_value(con, f"SELECT count(*) FROM {table}"))


def delete_items(con: duckdb.DuckDBPyConnection, items: str) -> list[str]:
    """Delete the items that a query returns, and their predictions; return which marks were cleared because of that."""
    con.execute(f"DELETE FROM predictions WHERE item IN ({items})")
    con.execute(f"DELETE FROM items WHERE item IN ({items})")
    return computed_columns.clear_orphaned_marks(con)


def normalize_splits(con: duckdb.DuckDBPyConnection, table: str) -> None:
    """Give the splits of selected items their usual names, and refuse a word that does not name a split."""
    selected = f"item IN (SELECT item FROM {table})"
    for (word,) in con.execute(f"SELECT DISTINCT split FROM items WHERE split IS NOT NULL AND {selected}").fetchall():
        split = known_split(word)
        if split is None and not is_absent(word):
            raise QueryError(f"{word!r} is not a split that is understood; use {split_words()}; nothing was changed")
        con.execute(f"UPDATE items SET split = ? WHERE split = ? AND {selected}", [split and split.value, word])


def update_items(con: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, str], match: str) -> None:
    """Set columns of the items, the values of ``columns``, to those of the table ``t``, its keys, where they match."""
    sets = ", ".join(f"{quote_identifier(c)} = t.{quote_identifier(given)}" for given, c in columns.items())
    con.execute(f"UPDATE items SET {sets} FROM {table} t WHERE {match}")


def editable_column(name: str, existing: Collection[str]) -> str:
    """Return the column that a name means; raise if it does not exist or is not the user's to set."""
    column = find_item_column(name, existing)
    if column is None:
        raise UnknownColumn(
            f"the items have no column {name!r}{did_you_mean(name, list(existing))}; --add-columns creates one"
        )
    if describes_file(column):
        raise QueryError(f"{column} describes the file and cannot be set; `rename` changes uris")
    return column


def describes_file(column: str) -> bool:
    """Return whether a column of the items is the store's and cannot be set."""
    return column in ITEM_COLUMNS and column not in EDITABLE_COLUMNS


def create_column(con: duckdb.DuckDBPyConnection, name: str, kind: str) -> str:
    """Add a column of the user's own to the items, and return its name."""
    if problem := name_problem(name):
        raise QueryError(f"the column {name!r} has {problem}")
    column = stored_name(name)
    con.execute(f"ALTER TABLE items ADD COLUMN {quote_identifier(column)} {kind}")
    return column

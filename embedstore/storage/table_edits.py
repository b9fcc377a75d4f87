"""Edits of the items from a table: the item of each row is found by id or uri, and its columns are set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from embedstore.errors import BadManifest, QueryError
from embedstore.storage.column_names import find_item_column
from embedstore.storage.item_changes import create_column, describes_file, editable_column, update_items
from embedstore.storage.queries import computed_columns, item_rows
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import (
    column_types,
    error_message,
    fetch_column,
    fetch_value,
    parquet_source,
    temp_tables,
)  # fmt: skip
from embedstore.storage.writer import Writer


@dataclass(frozen=True)
class EditRows:
    """A table of edits that was read and typed.

    Attributes:
        name: the table's name in messages.
        parquet: the columns to set, ``embedstore_row``, ``embedstore_key``, ``embedstore_uri``, the uri as it is
            written, and ``embedstore_absolute``, the uri as an absolute path; both NULL where a row has none.
        key: ``item`` or ``uri``.
        columns: the DuckDB type of each column to set, by name.
    """

    name: str
    parquet: Path
    key: str
    columns: Mapping[str, str]


def edit_from_table(writer: Writer, rows: EditRows) -> dict[str, int]:
    """Set columns of items from a table; an empty cell sets NULL, and columns that do not exist are created.

    Args:
        writer: the writer of the store.
        rows: the table, which was read and typed before.

    Returns:
        ``{"items", "unknown"}``: rows that were used, and rows whose item the store does not have.

    Raises:
        BadManifest: if the table has a key twice, a value that does not fit its column, or names no item of the store.
        QueryError: if a column cannot be edited or created.
    """
    with writer.transaction() as con, temp_tables(con, "edits") as (edits,):
        casts = ", ".join(f"{quote_identifier(c)}::{kind} AS {quote_identifier(c)}" for c, kind in rows.columns.items())
        con.execute(f"CREATE TEMP TABLE {edits} AS SELECT * REPLACE ({casts}) FROM {parquet_source(rows.parquet)}")
        try:
            targets = _prepare_columns(con, _columns_to_set(con, edits, rows))
            return _apply_edits(con, edits, rows, targets)
        except duckdb.ConversionException as e:
            message = f"a value in {rows.name} does not fit its column: {error_message(e)}; nothing was changed"
            raise BadManifest(message) from e


def _columns_to_set(con: duckdb.DuckDBPyConnection, edits: str, rows: EditRows) -> dict[str, str]:
    """Return the columns of a table but those of the store that describe the file, as exports have them.

    Raises:
        QueryError: if one of these has another value than the store, or no other column is left.
    """
    existing = column_types(con, "items")
    fixed = {c: own for c in rows.columns if (own := find_item_column(c, existing)) and describes_file(own)}
    for given, own in fixed.items():
        item = "i.item = try_cast(t.embedstore_key AS BIGINT)" if rows.key == "item" else _SAME_URI
        changed = con.execute(
            f"SELECT t.embedstore_row FROM {edits} t JOIN items i ON {item} WHERE t.{quote_identifier(given)}::VARCHAR "
            f"IS DISTINCT FROM i.{quote_identifier(own)}::VARCHAR ORDER BY 1 LIMIT 1"
        ).fetchone()
        if changed:
            raise QueryError(
                f"{rows.name}: row {changed[0] + 1} has another {own} than the store; {own} describes the file and "
                "cannot be set (`rename` changes uris); nothing was changed"
            )
    left = {c: kind for c, kind in rows.columns.items() if c not in fixed}
    if not left:
        raise QueryError(f"{rows.name} has no column to set besides {', '.join(fixed)}; nothing was changed")
    return left


def _prepare_columns(con: duckdb.DuckDBPyConnection, columns: Mapping[str, str]) -> dict[str, str]:
    """Create the columns to set that do not exist, and check the others; return the column of the items by name."""
    existing = column_types(con, "items")
    targets = {}
    for name, kind in columns.items():
        if find_item_column(name, existing) is None:
            targets[name] = create_column(con, name, kind)
            continue
        targets[name] = editable_column(name, existing)
        item_rows.retype(con, targets[name], existing[targets[name]], kind)
    computed_columns.mark_edited(con, list(targets.values()))
    return targets


def _apply_edits(
    con: duckdb.DuckDBPyConnection, edits: str, rows: EditRows, columns: Mapping[str, str]
) -> dict[str, int]:
    """Update the items from a table of edits; ``columns`` gives the column of the items that each of it fills."""
    count = int(fetch_value(con, f"SELECT count(*) FROM {edits}"))
    with temp_tables(con, "matched") as (matched,):
        if rows.key == "item":
            _check_ids(con, edits, rows.name)
        match = _MATCH_ITEM if rows.key == "item" else _MATCH_URI
        con.execute(match.format(matched=matched, edits=edits))
        twice = fetch_column(
            con,
            f"SELECT any_value(t.embedstore_key) FROM {edits} t JOIN {matched} m USING (embedstore_row) "
            "GROUP BY m.embedstore_item HAVING count(*) > 1 LIMIT 1",
        )
        if twice:
            raise BadManifest(f"{rows.name} has {rows.key} {twice[0]} more than once; nothing was changed")
        used = int(fetch_value(con, f"SELECT count(*) FROM {matched}"))
        if not used:
            first = con.execute(f"SELECT * FROM {edits} ORDER BY embedstore_row LIMIT 1").fetchone()
            raise BadManifest(_no_match(rows, count, first))
        if rows.key == "item":
            _check_uris(con, edits, matched, rows.name)
        edited = f"(SELECT * FROM {edits} JOIN {matched} USING (embedstore_row))"
        update_items(con, edited, columns, "items.item = t.embedstore_item")
    return {"items": used, "unknown": count - used}


def _check_ids(con: duckdb.DuckDBPyConnection, edits: str, name: str) -> None:
    """Raise if a row names an item by anything but a whole number."""
    bad = con.execute(
        f"SELECT embedstore_row, embedstore_key::VARCHAR FROM {edits} WHERE TRY_CAST(embedstore_key AS BIGINT) IS NULL "
        "OR TRY_CAST(embedstore_key AS DOUBLE) <> TRY_CAST(embedstore_key AS BIGINT) ORDER BY 1 LIMIT 1"
    ).fetchone()
    if bad:
        value = "nothing" if bad[1] is None else repr(bad[1])
        raise BadManifest(f"{name}: row {bad[0] + 1} has {value} as item, not a whole number; nothing was changed")


def _check_uris(con: duckdb.DuckDBPyConnection, edits: str, matched: str, name: str) -> None:
    """Raise if a row has the id of one item and the uri of another, as tables of another store have."""
    other = con.execute(
        f"SELECT t.embedstore_row, i.item, i.uri, t.embedstore_uri FROM {edits} t JOIN {matched} m "
        "USING (embedstore_row) JOIN items i ON i.item = m.embedstore_item WHERE t.embedstore_absolute IS NOT NULL "
        "AND i.uri <> t.embedstore_uri AND i.uri <> t.embedstore_absolute ORDER BY 1 LIMIT 1"
    ).fetchone()
    if other:
        row, item, uri, given = other
        raise BadManifest(
            f"{name}: row {row + 1} is item {item} with uri {given}, and in this store item {item} is {uri}; "
            "nothing was changed. Is the table of another store? --uri-column uri goes by the uris, "
            "--uri-column item by the ids"
        )


def _no_match(rows: EditRows, count: int, first: Sequence[Any] | None) -> str:
    """Say that no row of a table names an item."""
    if first is None:
        return f"{rows.name} has no rows; nothing was changed"
    looked = "" if rows.key == "item" else f" (looked for {first[2]}); --root names the folder that uris start from"
    return (
        f"none of the {count} rows of {rows.name} names an item of the store: the first names {rows.key} {first[1]}"
        f"{looked}; nothing was changed"
    )


_MATCH_ITEM = """
CREATE TEMP TABLE {matched} AS
SELECT t.embedstore_row, i.item AS embedstore_item FROM {edits} t JOIN items i ON i.item = t.embedstore_key::BIGINT
"""

# The uri as an absolute path comes first, then the uri as it is written.
_MATCH_URI = """
CREATE TEMP TABLE {matched} AS
WITH path AS (
    SELECT t.embedstore_row, i.item AS embedstore_item FROM {edits} t JOIN items i ON i.uri = t.embedstore_absolute
)
FROM path UNION ALL
SELECT t.embedstore_row, i.item AS embedstore_item FROM {edits} t JOIN items i ON i.uri = t.embedstore_key
WHERE t.embedstore_row NOT IN (SELECT embedstore_row FROM path)
"""

_SAME_URI = "(i.uri = t.embedstore_absolute OR i.uri = t.embedstore_key::VARCHAR)"

"""Changes of the tables ``items``, ``contents`` and ``failures`` that a commit makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest
from embedstore.storage.column_names import find_column, stored_name
from embedstore.storage.commit import FailureRow
from embedstore.storage.item_columns import ItemColumns
from embedstore.storage.queries import computed_columns, counters
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import (
    CONTENT,
    Column,
    column_types,
    count_values,
    digest_columns,
    encode_paths,
    fetch_value,
    first_row,
    object_array,
    parquet_source,
    utc_now,
)  # fmt: skip
from embedstore.storage.wider_types import conversion, every_value_survives, wider_type
from embedstore.types import ContentInfo

_ITEM_VALUES = (
    f"r.item AS item, r.uri AS uri, {CONTENT} AS content, r.label::VARCHAR AS label, r.split::VARCHAR AS split, "
    'r."group"::VARCHAR AS group_id, r.size AS size, r.mtime_ns AS mtime_ns, true AS present, '
    "$now::TIMESTAMP AS added, r.path::BLOB AS path"
)
_NUMBER_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE")  # narrow to wide


def insert_contents(con: duckdb.DuckDBPyConnection, content_info: Mapping[str, tuple[int, ContentInfo | None]]) -> None:
    """Insert the contents that the catalog does not have yet.

    Args:
        con: a transaction.
        content_info: for each content its size in bytes, and what is known of it.
    """
    if not content_info:
        return
    infos = [info for _, info in content_info.values()]
    sizes = np.array([size for size, _ in content_info.values()], dtype=np.int64)
    rows: dict[str, NDArray[Any]] = {**digest_columns(content_info), "bytes": sizes}
    facts = "NULL, NULL, NULL"
    if any(infos):
        facts = "width::INTEGER, height::INTEGER, format::VARCHAR"
        rows |= {
            "width": object_array([i and (i.width or None) for i in infos]),
            "height": object_array([i and (i.height or None) for i in infos]),
            "format": object_array([i.format if i else None for i in infos]),
        }
    con.execute(
        f"INSERT INTO contents SELECT {CONTENT}, bytes, {facts} FROM rows "
        f"WHERE {CONTENT} NOT IN (SELECT content FROM contents)"
    )


def insert_items(con: duckdb.DuckDBPyConnection, items: ItemColumns, attributes: Path | None) -> None:
    """Insert new items, numbered in the given order.

    Args:
        con: a transaction.
        items: the new items.
        attributes: Parquet of ``uri`` and the user's own columns, or None.
    """
    if not len(items):
        return
    first = counters.next_item(con)
    ids = np.arange(first, first + len(items), dtype=np.int64)
    rows = {"item": ids, **digest_columns(items.content), **items.files.as_dict()}  # noqa: F841 - read by SQL
    columns = _attribute_columns(con, attributes) if attributes else {}
    extra = "".join(f", a.{quote_identifier(a)} AS {quote_identifier(c)}" for a, c in columns.items())
    join = f"LEFT JOIN {parquet_source(attributes)} a ON a.uri = r.uri" if attributes else ""
    con.execute(
        f"INSERT INTO items BY NAME SELECT {_ITEM_VALUES}{extra} FROM rows r {join} ORDER BY r.item", {"now": utc_now()}
    )
    con.execute("UPDATE counters SET next_item = ?", [first + len(items)])


def update_items(con: duckdb.DuckDBPyConnection, items: ItemColumns, attributes: Path | None) -> None:
    """Update existing items to what the source says now; a label, split or group it does not state is kept.

    Args:
        con: a transaction.
        items: the items, each with its id.
        attributes: Parquet of ``uri`` and the user's own columns, or None.
    """
    if not len(items):
        return
    rows = {"item": items.item, **digest_columns(items.content), **items.files.as_dict()}  # noqa: F841 - read by SQL
    changed = con.execute(f"SELECT i.item FROM items i JOIN rows r ON r.item = i.item WHERE {CONTENT} <> i.content")
    computed_columns.clear_items(con, [item for (item,) in changed.fetchall()])
    con.execute(
        f"UPDATE items SET uri = r.uri, content = {CONTENT}, size = r.size, mtime_ns = r.mtime_ns, "
        "path = r.path::BLOB, present = true, label = coalesce(r.label::VARCHAR, items.label), "
        'split = coalesce(r.split::VARCHAR, items.split), group_id = coalesce(r."group"::VARCHAR, items.group_id) '
        "FROM rows r WHERE items.item = r.item"
    )
    if attributes:
        update_attributes(con, attributes, items.files.uri)


def add_columns(con: duckdb.DuckDBPyConnection, columns: Mapping[str, str]) -> None:
    """Add the user's own columns to the items; a column that holds no value yet takes the new type.

    Args:
        con: a transaction.
        columns: the DuckDB type of each column, by name.

    Raises:
        BadManifest: see :func:`check_columns`.
    """
    check_columns(con, columns)
    existing = column_types(con, "items")
    for name, kind in columns.items():
        column = find_column(name, existing)
        if column is None:
            con.execute(f"ALTER TABLE items ADD COLUMN {quote_identifier(stored_name(name))} {kind}")
        else:
            retype(con, column, existing[column], kind)


def retype(con: duckdb.DuckDBPyConnection, column: str, present: str, kind: str) -> None:
    """Give a column the type of new values if it holds no value yet, or if theirs holds every stored one, too.

    An empty list stays one where the new type is a list, and is no value of any other type.
    """
    name = quote_identifier(column)
    if present == kind:
        return
    if not _holds_values(con, column):
        empty = f"CASE WHEN {name} IS NOT NULL THEN []::{kind} END" if kind.endswith("[]") else f"NULL::{kind}"
        con.execute(f"ALTER TABLE items ALTER COLUMN {name} SET DATA TYPE {kind} USING {empty}")
    elif _can_widen(con, column, present, kind):
        values = conversion(name, present, kind)
        con.execute(f"ALTER TABLE items ALTER COLUMN {name} SET DATA TYPE {kind} USING {values}")


def check_columns(con: duckdb.DuckDBPyConnection, columns: Mapping[str, str]) -> None:
    """Check that the items can take columns of a user's table.

    Args:
        con: an open catalog.
        columns: the DuckDB type of each column, by name.

    Raises:
        BadManifest: if a column has the name of a computed one, or exists with a type that the new values do not fit.
    """
    existing = column_types(con, "items")
    computed = {c.name: c for c in computed_columns.computed_columns(con)}
    for name, kind in columns.items():
        column = find_column(name, existing)
        if column in computed:
            raise BadManifest(
                f"column {name!r} has the name of a column that run {computed[column].run} computed; rename it, for "
                f"example to {'my_' + name!r}"
            )
        if column is None or existing[column] == kind or _fits(kind, existing[column]):
            continue
        if _holds_values(con, column) and not _can_widen(con, column, existing[column], kind):
            raise BadManifest(
                f"column {name!r} is {kind} here and {existing[column]} in the store; rename it, or convert it to "
                f"{existing[column]}"
            )


def update_attributes(con: duckdb.DuckDBPyConnection, attributes: Path, uris: Column | None = None) -> int:
    """Update the user's own columns of existing items; an empty cell states nothing, and the stored value stays.

    Args:
        con: a transaction.
        attributes: Parquet of ``uri`` and the columns.
        uris: the items to update; None is all that the file names.

    Returns:
        How many stored values stay because their cells are empty.
    """
    columns = _attribute_columns(con, attributes)
    if not columns:
        return 0
    kept = count_kept_values(con, attributes, uris)
    stored = column_types(con, "items")
    selected = {"uri": object_array(() if uris is None else uris)}  # noqa: F841 - read by SQL
    condition = "AND a.uri IN (SELECT uri::VARCHAR FROM selected)" if uris is not None else ""
    pairs = [(f"a.{quote_identifier(a)}::{stored[c]}", quote_identifier(c)) for a, c in columns.items()]
    sets = ", ".join(f"{c} = coalesce({given}, items.{c})" for given, c in pairs)
    con.execute(f"UPDATE items SET {sets} FROM {parquet_source(attributes)} a WHERE items.uri = a.uri {condition}")
    return kept


def count_kept_values(con: duckdb.DuckDBPyConnection, attributes: Path, uris: Column | None = None) -> int:
    """Return how many stored values :func:`update_attributes` leaves because the cells for them are empty."""
    columns = _attribute_columns(con, attributes)
    selected = {"uri": object_array(() if uris is None else uris)}  # noqa: F841 - read by SQL
    condition = "AND a.uri IN (SELECT uri::VARCHAR FROM selected)" if uris is not None else ""
    kept = [
        f"count(*) FILTER (a.{quote_identifier(a)} IS NULL AND items.{quote_identifier(c)} IS NOT NULL)"
        for a, c in columns.items()
    ]
    source = f"items, {parquet_source(attributes)} a WHERE items.uri = a.uri {condition}"
    return int(first_row(con.execute(f"SELECT {' + '.join(kept)} FROM {source}"))[0]) if kept else 0


def _attribute_columns(con: duckdb.DuckDBPyConnection, attributes: Path) -> dict[str, str]:
    """Return the column of the items that each column of a Parquet file of attributes fills, without ``uri``."""
    existing = column_types(con, "items")
    given = column_types(con, f"FROM {parquet_source(attributes)}")
    return {name: find_column(name, existing) or name for name in given if name != "uri"}


def delete_failures(con: duckdb.DuckDBPyConnection, *uris: Column) -> None:
    """Delete the failures of files that were processed again, by one or more sequences of their uris."""
    if fetch_value(con, "SELECT NOT EXISTS (FROM failures)"):
        return
    processed = {"uri": np.concatenate([object_array(part) for part in uris])}  # noqa: F841 - read by SQL
    con.execute("DELETE FROM failures WHERE uri IN (SELECT uri FROM processed)")


def insert_failures(con: duckdb.DuckDBPyConnection, rows: Sequence[FailureRow], *, decoder: str, space: str) -> None:
    """Insert failures; an existing item whose file can no longer be read is not ``present`` any more.

    Args:
        con: a transaction.
        rows: the failures.
        decoder: the version of the decoder: the failures of another version are tried again.
        space: the key of the space, which a vector that is not finite is a failure of.
    """
    if not rows:
        return
    failures = [r.failure for r in rows]
    columns = {  # noqa: F841 - read by SQL
        "uri": object_array([f.uri for f in failures]),
        "reason": object_array([f.reason.value for f in failures]),
        "detail": object_array([f.detail for f in failures]),
        "size": np.array([f.size for f in failures], dtype=np.int64),
        "mtime_ns": np.array([f.mtime_ns for f in failures], dtype=np.int64),
        "path": encode_paths([(f.uri, f.path) for f in failures]),
    }
    con.execute(
        "INSERT INTO failures BY NAME SELECT uri, reason, detail, size, mtime_ns, ? AS decoder, CASE WHEN reason = "
        "'not_finite' THEN ? END AS space, ?::TIMESTAMP AS failed, path::BLOB AS path FROM columns",
        [decoder, space, utc_now()],
    )
    unreadable = [r.item for r in rows if r.item is not None]
    if unreadable:
        con.execute("UPDATE items SET present = false WHERE list_contains(?, item)", [unreadable])


def _holds_values(con: duckdb.DuckDBPyConnection, column: str) -> bool:
    """Return whether any item has a value in a column; one without takes the type of the first values."""
    return bool(fetch_value(con, f"SELECT {count_values(column, column_types(con, 'items')[column])} FROM items"))


def _can_widen(con: duckdb.DuckDBPyConnection, column: str, present: str, kind: str) -> bool:
    """Return whether a type holds what a column holds now and every value of another type."""
    return wider_type(present, kind) == kind and every_value_survives(con, "items", column, present, kind)


def _fits(kind: str, column_kind: str) -> bool:
    """Return whether values of one type fit a column of another."""
    if column_kind == "VARCHAR":
        return True
    both = kind in _NUMBER_TYPES and column_kind in _NUMBER_TYPES
    return both and _NUMBER_TYPES.index(kind) <= _NUMBER_TYPES.index(column_kind)

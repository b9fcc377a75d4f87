"""What an import of precomputed vectors asks about items that exist."""

from __future__ import annotations

from collections.abc import Collection

import duckdb

from embedstore.storage.column_names import STORED_ROLES
from embedstore.storage.item_columns import FileColumns
from embedstore.storage.sql import Column, content_hex, fetch_value, first_row, object_array


def has_items(con: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the store has an item."""
    return bool(fetch_value(con, "SELECT EXISTS (FROM items)"))


def items_by_uri(
    con: duckdb.DuckDBPyConnection, space: str, uris: Column
) -> list[tuple[str, int, str, int | None, int | None]]:
    """Return uri, item, content, and shard and row of the content's vector in the space, for the uris that exist."""
    wanted = {"uri": object_array(uris)}  # noqa: F841 - read by SQL
    rows = con.execute(
        'SELECT i.uri, i.item, i.content::VARCHAR, v.shard, v."row" FROM items i '
        "LEFT JOIN vectors v ON v.content = i.content AND v.space = ? "
        "WHERE i.uri IN (SELECT uri FROM wanted)",
        [space],
    ).fetchall()
    return [(uri, item, content_hex(content), shard, row) for uri, item, content, shard, row in rows]


def count_kept_names(con: duckdb.DuckDBPyConnection, files: FileColumns, stated: Collection[str]) -> int:
    """Return how many stored labels, splits and groups stay although the table has a column for them.

    Args:
        con: an open catalog.
        files: the rows of the table.
        stated: which of ``label``, ``split`` and ``group`` the table has a column for.
    """
    if not stated:
        return 0
    rows = files.as_dict()  # noqa: F841 - read by SQL
    counts = [
        f'count(*) FILTER (r."{role}" IS NULL AND i.{STORED_ROLES.get(role, role)} IS NOT NULL)' for role in stated
    ]
    joined = "FROM rows r JOIN items i ON i.uri = r.uri::VARCHAR"
    return int(first_row(con.execute(f"SELECT {' + '.join(counts)} {joined}"))[0])

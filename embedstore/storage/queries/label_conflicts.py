"""Items of equal bytes with different labels: at least one label of each is wrong."""

from __future__ import annotations

import duckdb

from embedstore.storage.queries.features import text_or_null
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import column_types

Conflict = tuple[list[int], list[str], list[str]]  # items, uris and labels, in the order of the items


def _conflicts(column: str) -> str:
    """Return SQL for the contents whose items have several values in a column."""
    text, raw = text_or_null(column), f"{quote_identifier(column)}::VARCHAR"
    shared = f"SELECT content FROM items WHERE present GROUP BY content HAVING count(DISTINCT {raw}) > 1"
    return (
        "SELECT list(item ORDER BY item) AS items, list(uri ORDER BY item) AS uris, list(text ORDER BY item) AS labels "
        f"FROM (SELECT item, uri, content, {text} AS text FROM items WHERE present AND content IN ({shared})) "
        "WHERE text IS NOT NULL GROUP BY content HAVING count(DISTINCT text) > 1"
    )


def label_conflicts(con: duckdb.DuckDBPyConnection, column: str) -> list[Conflict]:
    """Return the contents with several labels, those with the most items first; none if there is no such column."""
    if column not in column_types(con, "items"):
        return []
    rows = con.execute(f"SELECT items, uris, labels FROM ({_conflicts(column)}) ORDER BY len(items) DESC, items[1]")
    return [(items, uris, labels) for items, uris, labels in rows.fetchall()]

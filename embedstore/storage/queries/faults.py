"""Catalog queries of what is probably wrong with items: copies that contradict each other, odd images."""

from __future__ import annotations

from typing import Any

import duckdb

from embedstore.storage.queries.search import item_columns, require_item_column
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import fetch_value

Row = tuple[Any, ...]


def conflicting_copies(con: duckdb.DuckDBPyConnection, column: str, limit: int) -> list[Row]:
    """Return ``(items, values)`` of contents whose items have different values of a column, as lists.

    Raises:
        UnknownColumn: if the items lack the column.
    """
    name = quote_identifier(require_item_column(column, item_columns(con)))
    return con.execute(
        f"SELECT list(item ORDER BY item), list(DISTINCT {name}::VARCHAR ORDER BY {name}::VARCHAR) FROM items "
        f"WHERE present GROUP BY content HAVING count(DISTINCT {name}) > 1 ORDER BY min(item) LIMIT ?",
        [limit],
    ).fetchall()


def tiny_images(con: duckdb.DuckDBPyConnection, *, min_side: int, limit: int) -> list[Row]:
    """Return ``(item, width, height)`` of images whose shorter side has few pixels, the smallest first.

    Args:
        con: the open catalog.
        min_side: pixels below which an image is tiny.
        limit: how many to return.
    """
    return con.execute(
        "SELECT i.item, c.width, c.height FROM items i JOIN contents c USING (content) WHERE i.present AND c.width > 0 "
        "AND c.height > 0 AND least(c.width, c.height) < ? ORDER BY least(c.width, c.height), i.item LIMIT ?",
        [min_side, limit],
    ).fetchall()


def long_images(con: duckdb.DuckDBPyConnection, *, max_aspect: float, limit: int) -> list[Row]:
    """Return ``(item, width, height)`` of very long or high images, the most extreme first.

    Args:
        con: the open catalog.
        max_aspect: the longer side over the shorter one above which a shape is odd.
        limit: how many to return.
    """
    return con.execute(
        "SELECT i.item, c.width, c.height FROM items i JOIN contents c USING (content) WHERE i.present AND c.width > 0 "
        "AND c.height > 0 AND greatest(c.width, c.height) > ? * least(c.width, c.height) "
        "ORDER BY greatest(c.width, c.height) / least(c.width, c.height) DESC, i.item LIMIT ?",
        [max_aspect, limit],
    ).fetchall()


def content_count(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many different contents the present items have."""
    return int(fetch_value(con, "SELECT count(DISTINCT content) FROM items WHERE present"))


def failed_source(con: duckdb.DuckDBPyConnection) -> str | None:
    """Return what the latest run embedded that has files among the failures below it; the latest of all if none has.

    It is the description of a source, such as a folder; None if nothing was embedded.
    """
    row = con.execute("""
        SELECT r.source FROM (SELECT run, settings->>'$.source' AS source FROM runs WHERE verb = 'embed') r
        ORDER BY (SELECT count(*) FROM failures f WHERE starts_with(f.uri, rtrim(r.source, '/') || '/')) > 0 DESC,
                 r.run DESC LIMIT 1
    """).fetchone()
    return None if row is None else row[0]

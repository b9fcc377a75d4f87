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


def odd_images(con: duckdb.DuckDBPyConnection, *, min_side: int, max_aspect: float, limit: int) -> list[Row]:
    """Return ``(item, width, height)`` of images that are tiny, or very long or high, the most extreme first.

    Args:
        con: the open catalog.
        min_side: pixels of the shorter side below which an image is tiny.
        max_aspect: the longer side over the shorter one above which a shape is odd.
        limit: how many to return.
    """
    return con.execute(
        "SELECT i.item, c.width, c.height FROM items i JOIN contents c USING (content) WHERE i.present AND c.width > 0 "
        "AND c.height > 0 AND (least(c.width, c.height) < $side OR greatest(c.width, c.height) > "
        "$aspect * least(c.width, c.height)) ORDER BY greatest($side / least(c.width, c.height), "
        "greatest(c.width, c.height) / least(c.width, c.height) / $aspect) DESC, i.item LIMIT $limit",
        {"side": min_side, "aspect": max_aspect, "limit": limit},
    ).fetchall()


def content_count(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many different contents the present items have."""
    return int(fetch_value(con, "SELECT count(DISTINCT content) FROM items WHERE present"))

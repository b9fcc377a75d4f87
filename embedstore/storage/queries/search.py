"""Catalog queries of search, duplicates, clusters and maps. Each takes a connection that has the catalog open."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import UnknownColumn, did_you_mean
from embedstore.storage import filters
from embedstore.storage.column_names import find_item_column
from embedstore.storage.python_values import described, exact_query, execute_exact
from embedstore.storage.queries.features import text_or_null
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import column_types, fetch_value, int64_column

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Placements:
    """Items and where their vectors are stored.

    Attributes:
        items: int64 ``(n,)``.
        shards: int64 ``(n,)`` numbers of vector files.
        rows: int64 ``(n,)`` rows within these files.
    """

    items: NDArray[np.int64]
    shards: NDArray[np.int64]
    rows: NDArray[np.int64]


def item_columns(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Return the DuckDB type of every column of the items, by name."""
    return column_types(con, "items")


def require_item_column(column: str, columns: Collection[str]) -> str:
    """Return the column of the items that a name means, whatever the case of its letters.

    Raises:
        UnknownColumn: if they do not.
    """
    if (found := find_item_column(column, columns)) is None:
        raise UnknownColumn(
            f"the items have no column {column!r}{did_you_mean(column, columns)}; they have "
            f"{', '.join(sorted(columns))}"
        )
    return found


def matching_items(con: duckdb.DuckDBPyConnection, where: str) -> NDArray[np.int64]:
    """Return the ids of the present items that match a filter: int64 ``(n,)``.

    Raises:
        BadFilter: if the filter is not a boolean expression over the items, or fails on their values.
        UnknownColumn: if the filter names a column that the items lack.
    """
    condition = filters.compile_filter(con, where)
    with filters.filter_errors(con, where):
        return int64_column(con.execute(f"SELECT item FROM items WHERE present AND ({condition})").fetchnumpy()["item"])


def placements(con: duckdb.DuckDBPyConnection, space: str, where: str | None = None) -> Placements:
    """Return the present items that have a vector in a space, in any order.

    Args:
        con: the open catalog.
        space: key of the space.
        where: only items that match this filter.

    Raises:
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the filter names a column that the items lack.
    """
    with filters.filter_errors(con, where):
        condition = filters.compile_filter(con, where)
        rows = con.execute(
            f'SELECT i.item, v.shard, v."row"::BIGINT AS r FROM (SELECT * FROM items WHERE present AND ({condition})) '
            "i JOIN vectors v ON v.content = i.content AND v.space = ?",
            [space],
        ).fetchnumpy()
    return Placements(int64_column(rows["item"]), int64_column(rows["shard"]), int64_column(rows["r"]))


def item_placement(con: duckdb.DuckDBPyConnection, space: str, item: int) -> tuple[int, int] | None:
    """Return ``(shard, row)`` of the vector of an item, or None if it has no vector in the space."""
    return con.execute(
        'SELECT v.shard, v."row" FROM items i JOIN vectors v ON v.content = i.content AND v.space = ? WHERE i.item = ?',
        [space, item],
    ).fetchone()


def items_at(
    con: duckdb.DuckDBPyConnection, space: str, shards: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the present items whose vectors are at some rows.

    Args:
        con: the open catalog.
        space: key of the space.
        shards: int64 ``(n,)`` numbers of vector files.
        rows: int64 ``(n,)`` rows within these files.

    Returns:
        ``(items, which)``, int64 ``(m,)`` each: ``items[i]`` is at row ``which[i]`` of the arguments, ``which``
        ascending.
    """
    near = {"shard": shards, "place": rows, "n": np.arange(len(rows))}  # noqa: F841 - read by SQL
    found = con.execute(
        "WITH c AS (SELECT v.content, near.n FROM vectors v JOIN near ON v.shard = near.shard "
        'AND v."row" = near.place WHERE v.space = ?) '
        "SELECT i.item, c.n FROM items i JOIN c ON i.content = c.content WHERE i.present ORDER BY c.n, i.item",
        [space],
    ).fetchnumpy()
    return int64_column(found["item"]), int64_column(found["n"])


def hit_rows(con: duckdb.DuckDBPyConnection, items: NDArray[np.int64], columns: Sequence[str]) -> list[Row]:
    """Return some columns of some items, in any order."""
    names = ", ".join(quote_identifier(c) for c in columns)
    wanted = {"item": items}  # noqa: F841 - read by SQL
    query = f"SELECT {names} FROM items WHERE item IN (SELECT item FROM wanted)"
    result = con.execute(query)
    if (exact := exact_query(query, described(result))) != query:
        result = con.execute(exact)
    return result.fetchall()


def column_values(con: duckdb.DuckDBPyConnection, items: NDArray[np.int64], column: str) -> list[str | None]:
    """Return a column of some items as text, in their order."""
    wanted = {"item": items, "n": np.arange(len(items))}  # noqa: F841 - read by SQL
    rows = con.execute(
        f"SELECT i.{quote_identifier(column)}::VARCHAR FROM wanted w JOIN items i ON i.item = w.item ORDER BY w.n"
    ).fetchall()
    return [value for (value,) in rows]


def present_items(con: duckdb.DuckDBPyConnection) -> NDArray[np.int64]:
    """Return the ids of all present items, ascending: int64 ``(n,)``."""
    return int64_column(con.execute("SELECT item FROM items WHERE present ORDER BY item").fetchnumpy()["item"])


def read_column(con: duckdb.DuckDBPyConnection, column: str) -> duckdb.DuckDBPyConnection | None:
    """Return a cursor over one column ``v`` of the present items by ascending id, or None if all values are NULL."""
    name = quote_identifier(column)
    if not fetch_value(con, f"SELECT count({name}) FROM items WHERE present"):
        return None
    return execute_exact(con, f"SELECT {name} AS v FROM items WHERE present ORDER BY item")


def map_rows(con: duckdb.DuckDBPyConnection, space: str, column: str, where: str | None) -> list[Row]:
    """Return ``(item, uri, text of a column, shard, row)`` of the items of a map, by ascending id.

    Args:
        con: the open catalog.
        space: key of the space.
        column: a column of the items; blank text becomes None.
        where: only items that match this filter.

    Raises:
        UnknownColumn: if the items lack the column, or a column that the filter names.
        BadFilter: if the filter cannot be used.
    """
    column = require_item_column(column, item_columns(con))
    with filters.filter_errors(con, where):
        condition = filters.compile_filter(con, where)
        return con.execute(
            'SELECT i.item, i.uri, i.color, v.shard, v."row"::BIGINT FROM (SELECT item, uri, content, '
            f"{text_or_null(column)} AS color FROM items "
            f"WHERE present AND ({condition})) i "
            "JOIN vectors v ON v.content = i.content AND v.space = ? ORDER BY i.item",
            [space],
        ).fetchall()


_TRAIN_FIRST = "CASE i.split WHEN 'train' THEN 0 WHEN 'val' THEN 1 WHEN 'test' THEN 2 ELSE 3 END, "
_PIXELS, _BYTES = "coalesce(c.width::BIGINT * c.height, 0) DESC, ", "coalesce(c.bytes, i.size, 0) DESC, "
_KEEP_ORDERS = {
    "first": "", "largest": _BYTES + _PIXELS, "resolution": _PIXELS + _BYTES,
    "oldest": "nullif(i.mtime_ns, 0) NULLS LAST, ", "train-first": _TRAIN_FIRST,
}  # fmt: skip


def duplicate_rows(
    con: duckdb.DuckDBPyConnection, items: NDArray[np.int64], groups: NDArray[np.int64], keep: str
) -> list[Row]:
    """Return the items of groups of duplicates, by group, the item to keep first.

    Args:
        con: the open catalog.
        items: int64 ``(n,)`` ids.
        groups: int64 ``(n,)`` the group of each.
        keep: the order within a group: ``first``, ``largest``, ``resolution``, ``oldest`` or ``train-first``; then by
            id.

    Returns:
        ``(group, rank, item, uri, label, split, given group)``; groups are numbered from 1 by their lowest id, ranks
        from 1.
    """
    grouped = {"item": items, "g": groups}  # noqa: F841 - read by SQL
    return con.execute(
        "WITH g AS (SELECT grouped.*, min(grouped.item) OVER (PARTITION BY g) AS head FROM grouped) "
        "SELECT dense_rank() OVER (ORDER BY g.head), row_number() OVER (PARTITION BY g.g "
        f"ORDER BY {_KEEP_ORDERS[keep]}i.item) AS place, i.item, i.uri, i.label, i.split, g.g "
        "FROM g JOIN items i USING (item) LEFT JOIN contents c USING (content) ORDER BY 1, 2"
    ).fetchall()


def item_splits(con: duckdb.DuckDBPyConnection, items: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Return the split of some items, in their order: numbers, -1 for none, and the text of each number as stored."""
    names = [name for (name,) in con.execute("SELECT DISTINCT split FROM items WHERE split IS NOT NULL").fetchall()]
    names.sort()
    wanted = {"item": items, "n": np.arange(len(items))}  # noqa: F841 - read by SQL
    known = {"split": np.array(names, object), "code": np.arange(len(names))}  # noqa: F841 - read by SQL
    if not names:
        return np.full(len(items), -1, np.int64), names
    rows = con.execute(
        "SELECT coalesce(k.code, -1) AS code FROM wanted w JOIN items i ON i.item = w.item "
        "LEFT JOIN known k ON k.split = i.split ORDER BY w.n"
    ).fetchnumpy()
    return int64_column(rows["code"]), names


def item_files(con: duckdb.DuckDBPyConnection, items: Sequence[int]) -> dict[int, tuple[str, bytes | None]]:
    """Return ``(uri, path bytes)`` of each item; the bytes are None unless the file's name is not UTF-8."""
    wanted = {"item": np.array(items, np.int64)}  # noqa: F841 - read by SQL
    rows = con.execute("SELECT item, uri, path FROM items WHERE item IN (SELECT item FROM wanted)").fetchall()
    return {item: (uri, path_bytes) for item, uri, path_bytes in rows}

"""Catalog queries of the page: items in an order, their facts, values with counts, codes of a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage import filters
from embedstore.storage.python_values import described, exact_query, execute_exact
from embedstore.storage.queries.search import item_columns, require_item_column
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import column_types, content_hex, first_row, int64_column

Row = tuple[Any, ...]
_ROW_COLUMNS = ("item", "uri", "label", "split")
TAGS = "tags"  # the column whose texts are several values
SEPARATOR = ";"  # what separates them


@dataclass(frozen=True)
class ListOrder:
    """Which items are listed, and in which order.

    Attributes:
        where: a filter; None lists all items.
        column: the column that they are sorted by; None sorts by id.
        descending: whether the greatest value comes first. Items without a value come last in either case.
    """

    where: str | None = None
    column: str | None = None
    descending: bool = False


@dataclass(frozen=True)
class ColumnValues:
    """The values of one column among some items.

    Attributes:
        column: its name.
        values: ``(value, count)``, the most frequent first.
        distinct: how many different values there are.
        absent: how many items have no value.
        low: the least value of a number or date.
        high: the greatest.
    """

    column: str
    values: list[tuple[Any, int]]
    distinct: int
    absent: int
    low: Any = None
    high: Any = None


def ordered_items(con: duckdb.DuckDBPyConnection, order: ListOrder) -> NDArray[np.int64]:
    """Return the ids of the present items that match a filter, in an order: int64 ``(n,)``.

    Args:
        con: the open catalog.
        order: the filter, and the column to sort by. Items with equal values are sorted by id.

    Raises:
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the items lack the column, or a column that the filter names.
    """
    keys = ["items.item DESC" if order.descending else "items.item"]
    if order.column is not None:
        column = quote_identifier(require_item_column(order.column, item_columns(con)))
        keys = [f"items.{column} {'DESC' if order.descending else 'ASC'} NULLS LAST", "items.item"]
    condition = filters.compile_filter(con, order.where)
    query = f"SELECT item FROM items WHERE present AND ({condition}) ORDER BY {', '.join(keys)}"
    with filters.filter_errors(con, order.where):
        return int64_column(con.execute(query).fetchnumpy()["item"])


def item_rows(
    con: duckdb.DuckDBPyConnection, items: NDArray[np.int64], columns: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return ``item``, ``uri``, ``label``, ``split`` and some further columns of items, in their order.

    Args:
        con: the open catalog.
        items: int64 ``(n,)`` ids; those of items that do not exist are left out.
        columns: further columns.

    Raises:
        UnknownColumn: if the items lack a column.
    """
    existing = item_columns(con)
    names = list(dict.fromkeys([*_ROW_COLUMNS, *(require_item_column(c, existing) for c in columns)]))
    wanted = {"item": items, "n": np.arange(len(items))}  # noqa: F841 - read by SQL
    listed = ", ".join(f"i.{quote_identifier(name)}" for name in names)
    query = f"SELECT {listed} FROM items i JOIN wanted w ON w.item = i.item ORDER BY w.n"
    result = con.execute(query)
    if (exact := exact_query(query, described(result))) != query:
        result = con.execute(exact)
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def item_facts(con: duckdb.DuckDBPyConnection, item: int) -> dict[str, Any] | None:
    """Return every column of an item except its raw path, with the facts about its content; None if it is unknown.

    Returns:
        The columns, and ``width``, ``height``, ``format`` and ``bytes`` of the content under the key ``image``.
    """
    names = [name for name in item_columns(con) if name != "path"]
    listed = ", ".join(f"i.{quote_identifier(name)}" for name in names)
    row = execute_exact(
        con,
        f"SELECT c.width, c.height, c.format, c.bytes, {listed} FROM items i LEFT JOIN contents c USING (content) "
        "WHERE i.item = ?",
        [item],
    ).fetchone()
    if row is None:
        return None
    facts = dict(zip(names, row[4:], strict=True))
    return facts | {"image": dict(zip(("width", "height", "format", "bytes"), row[:4], strict=True))}


def item_predictions(con: duckdb.DuckDBPyConnection, item: int) -> list[Row]:
    """Return ``(head, label, score)`` of the predictions for the present content of an item."""
    return con.execute(
        "SELECT p.head, p.label, p.score FROM predictions p JOIN items i USING (item) WHERE p.item = ? "
        "AND p.content IS NOT DISTINCT FROM i.content ORDER BY p.head, p.score DESC, p.label",
        [item],
    ).fetchall()


def item_failures(con: duckdb.DuckDBPyConnection, item: int) -> list[Row]:
    """Return ``(reason, detail)`` of the failures of an item's file."""
    return con.execute(
        "SELECT f.reason, f.detail FROM failures f JOIN items i ON i.uri = f.uri WHERE i.item = ?", [item]
    ).fetchall()


def item_content(con: duckdb.DuckDBPyConnection, item: int) -> tuple[str, str, bytes | None] | None:
    """Return content (32 hexadecimal digits), uri and raw path of an item, None if there is no such item."""
    row = con.execute("SELECT content::VARCHAR, uri, path FROM items WHERE item = ?", [item]).fetchone()
    return None if row is None else (content_hex(row[0]), row[1], row[2])


def item_format(con: duckdb.DuckDBPyConnection, item: int) -> str | None:
    """Return the format of an item's content; None if it was not decoded, or there is no such item."""
    query = "SELECT c.format FROM items i JOIN contents c USING (content) WHERE i.item = ?"
    row = con.execute(query, [item]).fetchone()
    return None if row is None else row[0]


def column_values(
    con: duckdb.DuckDBPyConnection,
    column: str,
    where: str | None,
    *,
    limit: int,
    is_ordered: bool,
    within: NDArray[np.int64] | None = None,
) -> ColumnValues:
    """Return the values of a column among the present items that match a filter.

    Each tag of the text column ``tags`` is a value of its own.

    Args:
        con: the open catalog.
        column: the column.
        where: the filter.
        limit: how many values to return.
        is_ordered: whether the least and the greatest value are wanted.
        within: int64 ``(n,)`` ids of the items to count among; None counts among all.

    Raises:
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the items lack the column, or a column that the filter names.
    """
    types = column_types(con, "items")
    found = require_item_column(column, item_columns(con))
    name = f"items.{quote_identifier(found)}"
    condition = filters.compile_filter(con, where)
    if found.lower() == TAGS and types[found] == "VARCHAR":
        name = f"unnest(coalesce(list_distinct(string_split({name}, '{SEPARATOR}')), [NULL]))"
    wanted = {"item": within}  # noqa: F841 - read by SQL
    among = "true" if within is None else "item IN (SELECT item FROM wanted)"
    rows = f"(SELECT {name} AS v FROM items WHERE present AND ({condition}) AND {among})"
    ends = "min(v), max(v)" if is_ordered else "NULL, NULL"
    with filters.filter_errors(con, where):
        distinct, absent, low, high = first_row(
            con.execute(f"SELECT count(DISTINCT v), count(*) FILTER (v IS NULL), {ends} FROM {rows}")
        )
        values = con.execute(
            f"SELECT v, count(*) AS n FROM {rows} WHERE v IS NOT NULL GROUP BY 1 ORDER BY n DESC, v LIMIT ?",
            [limit],
        ).fetchall()
    return ColumnValues(found, values, distinct, absent, low, high)


def values_with_prefix(con: duckdb.DuckDBPyConnection, column: str, prefix: str, limit: int) -> list[str]:
    """Return the most frequent values of a column, as text, that begin with some letters in either case.

    Raises:
        UnknownColumn: if the items lack the column.
    """
    name = f"{quote_identifier(require_item_column(column, item_columns(con)))}::VARCHAR"
    rows = con.execute(
        f"SELECT {name} AS v, count(*) AS n FROM items WHERE present AND starts_with(lower({name}), lower(?)) "
        "GROUP BY 1 ORDER BY n DESC, v LIMIT ?",
        [prefix, limit],
    ).fetchall()
    return [value for value, _ in rows]


def contents_of(con: duckdb.DuckDBPyConnection, items: NDArray[np.int64]) -> list[str]:
    """Return the digest of the content of each of some items that exist, in their order."""
    wanted = {"item": items, "n": np.arange(len(items))}  # noqa: F841 - read by SQL
    found = con.execute("SELECT i.content FROM wanted w JOIN items i ON i.item = w.item ORDER BY w.n").fetchall()
    return [content for (content,) in found]


def column_codes(
    con: duckdb.DuckDBPyConnection, column: str, items: NDArray[np.int64], limit: int
) -> tuple[NDArray[np.uint16], list[tuple[str, int]]]:
    """Return a code per item for its value of a column, and what the codes mean.

    Args:
        con: the open catalog.
        column: the column; values are compared as text.
        items: int64 ``(n,)`` ids.
        limit: how many values have a code of their own.

    Returns:
        uint16 ``(n,)``: 0 is no value or a rarer one, ``k`` the ``k``-th of the values; and ``(value, count)`` of
        those, the most frequent first.

    Raises:
        UnknownColumn: if the items lack the column.
    """
    name = f"i.{quote_identifier(require_item_column(column, item_columns(con)))}::VARCHAR"
    wanted = {"item": items, "n": np.arange(len(items))}  # noqa: F841 - read by SQL
    joined = "wanted w LEFT JOIN items i ON i.item = w.item"
    legend = con.execute(
        f"SELECT {name} AS v, count(*) AS n FROM {joined} WHERE {name} IS NOT NULL GROUP BY 1 ORDER BY n DESC, v "
        "LIMIT ?",
        [limit],
    ).fetchall()
    texts = np.empty(len(legend), dtype=object)
    texts[:] = [value for value, _ in legend]
    codes = {"v": texts, "code": np.arange(1, len(legend) + 1, dtype=np.uint16)}  # noqa: F841 - read by SQL
    found = con.execute(
        f"SELECT coalesce(c.code, 0)::USMALLINT AS code FROM {joined} LEFT JOIN codes c ON c.v::VARCHAR = {name} "
        "ORDER BY w.n"
    ).fetchnumpy()["code"]
    return np.asarray(found, np.uint16), legend


def values_of_items(
    con: duckdb.DuckDBPyConnection, column: str, items: NDArray[np.int64], *, limit: int
) -> ColumnValues:
    """Return the values of a column among some items.

    Args:
        con: the open catalog.
        column: the column.
        items: int64 ``(n,)`` ids.
        limit: how many values to return.

    Raises:
        UnknownColumn: if the items lack the column.
    """
    found = require_item_column(column, item_columns(con))
    wanted = {"item": items}  # noqa: F841 - read by SQL
    rows = con.execute(
        f"SELECT i.{quote_identifier(found)} AS v, count(*) AS n FROM wanted w JOIN items i ON i.item = w.item "
        "GROUP BY 1 ORDER BY n DESC, v"
    ).fetchall()
    absent = sum(n for value, n in rows if value is None)
    values = [(value, n) for value, n in rows if value is not None]
    return ColumnValues(found, values[:limit], len(values), absent)

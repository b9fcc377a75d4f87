"""The tables behind a stream of vectors: which contents of which items, in the order of their rows on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage import filters
from embedstore.storage.sql import fetch_value, first_row, int64_column

_CREATE = """
CREATE TABLE {items} AS SELECT item, content FROM items WHERE present AND ({condition});
CREATE TABLE {contents} AS
SELECT row_number() OVER (ORDER BY v.shard, v."row") - 1 AS n, v.shard, v."row" AS place, v.content, i.item
FROM (SELECT * FROM vectors WHERE space = '{space}') v
JOIN (SELECT content, min(item) AS item FROM {items} GROUP BY content) i ON i.content = v.content
"""


@dataclass(frozen=True)
class StreamTables:
    """Two tables of the private connection.

    Attributes:
        contents: a table ``(n, shard, place, content, item)``; ``item`` is the first item of the content.
        items: a table ``(item, content)``.
        rows: the number of contents.
    """

    contents: str
    items: str
    rows: int


def create_stream_tables(
    con: duckdb.DuckDBPyConnection, names: tuple[str, str], *, space: str, condition: str
) -> StreamTables:
    """Create the tables of the present items that match a condition and have a vector in the space.

    Args:
        con: a reader's connection.
        names: the names of the two tables: contents and items.
        space: the key of the space.
        condition: SQL over ``items``.
    """
    contents, items = names
    con.execute(_CREATE.format(contents=contents, items=items, condition=condition, space=space))
    return StreamTables(contents, items, int(fetch_value(con, f"SELECT count(*) FROM {contents}")))


def stream_rows(
    con: duckdb.DuckDBPyConnection, tables: StreamTables, begin: int, end: int
) -> dict[str, NDArray[np.int64]]:
    """Return the columns ``item``, ``shard`` and ``row`` of the contents from ``begin`` to ``end``."""
    query = f'SELECT item, shard, place::BIGINT AS "row" FROM {tables.contents} WHERE n >= ? AND n < ? ORDER BY n'
    return con.execute(query, [begin, end]).fetchnumpy()


def sampled_rows(
    con: duckdb.DuckDBPyConnection, tables: StreamTables, numbers: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    """Return the columns ``item``, ``shard`` and ``row`` of the contents of these numbers, in ascending order."""
    query = f"""
        SELECT item, shard, place::BIGINT AS "row" FROM {tables.contents}
        WHERE n IN (SELECT unnest(?::BIGINT[])) ORDER BY n
    """
    return con.execute(query, [numbers.tolist()]).fetchnumpy()


class SpaceState(NamedTuple):
    """What tells whether items or vectors were added to a space.

    Attributes:
        space: its key.
        vectors: how many it has.
        last_shard: the number of its last vector file.
        last_item: the id of the last item of the store.
    """

    space: str
    vectors: int
    last_shard: int
    last_item: int


def space_state(con: duckdb.DuckDBPyConnection, space: str) -> SpaceState:
    """Return what a space holds now."""
    vectors, last_shard = first_row(
        con.execute("SELECT count(*), coalesce(max(shard), 0) FROM vectors WHERE space = ?", [space])
    )
    return SpaceState(space, vectors, last_shard, fetch_value(con, "SELECT coalesce(max(item), 0) FROM items"))


def matching_item_ids(con: duckdb.DuckDBPyConnection, where: str | None, extra_condition: str) -> NDArray[np.int64]:
    """Return the ids of the present items that match, int64 ``(n,)``, ascending.

    Args:
        con: a reader's connection.
        where: a filter of the user.
        extra_condition: SQL that the caller vouches for.

    Raises:
        BadFilter: if the filter is not valid.
        UnknownColumn: if the filter names a column that the items do not have.
    """
    with filters.filter_errors(con, where):
        condition = f"({filters.compile_filter(con, where)}) AND ({extra_condition})"
        found = con.execute(f"SELECT item FROM items WHERE present AND ({condition})").fetchnumpy()
    return np.sort(int64_column(found["item"]))

"""The tables ``shards`` and ``vectors``: vector files, and the row of each content in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.storage.shard import ShardHeader
from embedstore.storage.sql import (
    CONTENT,
    content_hex,
    digest_columns,
    fetch_column,
    fetch_value,
    first_row,
    int64_column,
    object_array,
    utc_now,
)


@dataclass(frozen=True)
class ShardUsage:
    """One vector file: its number, its rows, and how many of them the catalog refers to."""

    number: int
    rows: int
    referenced_rows: int


@dataclass(frozen=True)
class ShardRecord:
    """One vector file as the catalog records it."""

    space: str
    number: int
    rows: int
    bytes: int
    checksum: str


def all_shards(con: duckdb.DuckDBPyConnection) -> list[ShardRecord]:
    """Return every vector file, ordered by space and number."""
    rows = con.execute('SELECT space, shard, "rows", coalesce(bytes, 0), checksum FROM shards ORDER BY ALL').fetchall()
    _require_numbers([row[1:4] for row in rows])
    return [ShardRecord(*row) for row in rows]


def shard_rows(con: duckdb.DuckDBPyConnection, space: str) -> list[tuple[int, int]]:
    """Return ``(number, rows)`` of every vector file of a space, by number."""
    rows = con.execute('SELECT shard, "rows" FROM shards WHERE space = ? ORDER BY shard', [space]).fetchall()
    _require_numbers(rows)
    return rows


def space_dim(con: duckdb.DuckDBPyConnection, space: str) -> int:
    """Return the dimension of the vectors of a space."""
    return int(fetch_value(con, "SELECT dim FROM spaces WHERE space = ?", [space]))


def shard_usage(con: duckdb.DuckDBPyConnection, space: str) -> list[ShardUsage]:
    """Return every vector file of a space, by number, with the rows that are in use."""
    rows = con.execute(
        'SELECT s.shard, s."rows", coalesce(v.used, 0) FROM shards s LEFT JOIN '
        "(SELECT shard, count(*) AS used FROM vectors WHERE space = $s GROUP BY shard) v USING (shard) "
        "WHERE s.space = $s ORDER BY s.shard",
        {"s": space},
    ).fetchall()
    _require_numbers(rows)
    return [ShardUsage(*row) for row in rows]


def _require_numbers(rows: Sequence[tuple[int, ...]]) -> None:
    """Require numbers and sizes of vector files: a catalog of somebody else may hold anything.

    Raises:
        StoreDamaged: if one is missing or negative.
    """
    if any(not isinstance(number, int) or number < 0 for row in rows for number in row):
        raise StoreDamaged("the catalog has vector files without a number or a size; run `embedstore verify STORE`")


def has_shard(con: duckdb.DuckDBPyConnection, space: str, number: int) -> bool:
    """Return whether the catalog has a vector file of that number."""
    return bool(fetch_value(con, "SELECT count(*) FROM shards WHERE space = ? AND shard = ?", [space, number]))


def shard_contents(con: duckdb.DuckDBPyConnection, space: str, number: int) -> list[str]:
    """Return the contents, 32 hexadecimal digits each, whose vector is in a file."""
    query = "SELECT content::VARCHAR FROM vectors WHERE space = ? AND shard = ?"
    return [content_hex(content) for content in fetch_column(con, query, [space, number])]


def referenced_rows(
    con: duckdb.DuckDBPyConnection, space: str, numbers: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``(shard numbers, rows)``, int64 ``(n,)`` each and ordered, that are in use in some vector files."""
    columns = con.execute(
        'SELECT shard, "row"::BIGINT AS n FROM vectors WHERE space = ? AND list_contains(?::BIGINT[], shard) '
        "ORDER BY shard, n",
        [space, list(numbers)],
    ).fetchnumpy()
    return int64_column(columns["shard"]), int64_column(columns["n"])


def misplaced_rows(con: duckdb.DuckDBPyConnection, space: str, number: int, contents: Sequence[str]) -> int:
    """Return how many rows of a vector file hold another content than the catalog records.

    Args:
        con: an open catalog.
        space: the key of the space.
        number: the number of the file.
        contents: the content of each row of the file.
    """
    rows = {"content": object_array(contents), "n": np.arange(len(contents))}  # noqa: F841 - read by SQL
    query = (
        'SELECT count(*) FROM vectors v LEFT JOIN rows r ON r.n = v."row" '
        "WHERE v.space = ? AND v.shard = ? AND (r.content IS NULL OR r.content::UUID <> v.content)"
    )
    return int(first_row(con.execute(query, [space, number]))[0])


def shards_of_contents(con: duckdb.DuckDBPyConnection, space: str, contents: Sequence[str]) -> list[int]:
    """Return the numbers of the vector files that the catalog names for some contents, ascending."""
    rows = {"content": object_array(contents)}  # noqa: F841 - read by SQL
    query = (
        "SELECT DISTINCT shard FROM vectors WHERE space = ? AND content IN (SELECT content::UUID FROM rows) "
        "ORDER BY shard"
    )
    return [number for (number,) in con.execute(query, [space]).fetchall()]


def contents_without_vector(
    con: duckdb.DuckDBPyConnection, space: str, contents: Sequence[str], *, of_items: bool
) -> set[str]:
    """Return the contents that have no vector in a space.

    Args:
        con: an open catalog.
        space: the key of the space.
        contents: the contents to look up.
        of_items: whether only contents count that an item has.
    """
    rows = {"content": object_array(contents)}  # noqa: F841 - read by SQL
    query = (
        "SELECT content FROM rows WHERE content::UUID NOT IN (SELECT content FROM vectors WHERE space = ?) "
        "AND (NOT ? OR content::UUID IN (SELECT content FROM items))"
    )
    return {content for (content,) in con.execute(query, [space, of_items]).fetchall()}


def has_unique_contents(
    con: duckdb.DuckDBPyConnection, space: str, contents: Sequence[str], others: Sequence[int], *, of_items: bool
) -> bool:
    """Return whether some of the contents have no vector in any of the other files.

    Args:
        con: an open catalog.
        space: the key of the space.
        contents: the contents of a file.
        others: the numbers of the other files.
        of_items: whether only contents count that an item has.
    """
    rows = {"content": object_array(contents)}  # noqa: F841 - read by SQL
    query = (
        "SELECT count(*) FROM rows WHERE content::UUID NOT IN "
        "(SELECT content FROM vectors WHERE space = ? AND list_contains(?::BIGINT[], shard))"
    )
    if of_items:
        query += " AND content::UUID IN (SELECT content FROM items)"
    return bool(first_row(con.execute(query, [space, list(others)]))[0])


def insert_shard(con: duckdb.DuckDBPyConnection, header: ShardHeader, contents: Sequence[str]) -> None:
    """Insert a new vector file and its rows, and advance the number of the next file.

    Args:
        con: a transaction.
        header: the header of the file.
        contents: the content of each row, 32 hexadecimal digits each.
    """
    rows = {**digest_columns(contents), "n": np.arange(len(contents), dtype=np.int32)}  # noqa: F841 - read by SQL
    con.execute(f"INSERT INTO vectors SELECT ?, {CONTENT}, ?, n FROM rows", [header.space, header.number])
    _insert_header(con, header)


def insert_found_shard(con: duckdb.DuckDBPyConnection, header: ShardHeader, contents: Sequence[str]) -> None:
    """Insert a vector file that the catalog lost: its contents, and the vectors that no other file has.

    Args:
        con: a transaction.
        header: the header of the file.
        contents: the content of each row, 32 hexadecimal digits each.
    """
    rows = {"content": object_array(contents), "n": np.arange(len(contents), dtype=np.int32)}  # noqa: F841 - read by SQL
    con.execute(
        "INSERT INTO contents BY NAME SELECT DISTINCT content::UUID AS content FROM rows "
        "WHERE content::UUID NOT IN (SELECT content FROM contents)"
    )
    con.execute(
        "INSERT INTO vectors SELECT $space, content::UUID, $number, n FROM rows "
        "WHERE content::UUID NOT IN (SELECT content FROM vectors WHERE space = $space)",
        {"space": header.space, "number": header.number},
    )
    _insert_header(con, header)


def delete_shards(con: duckdb.DuckDBPyConnection, space: str, numbers: Sequence[int]) -> None:
    """Delete vector files and their rows from the catalog."""
    for table in ("vectors", "shards"):
        con.execute(
            f"DELETE FROM {table} WHERE space = ? AND list_contains(?::BIGINT[], shard)", [space, list(numbers)]
        )


def delete_unused_contents(con: duckdb.DuckDBPyConnection) -> None:
    """Delete contents that no item has, and their vectors."""
    unused = "content NOT IN (SELECT content FROM items WHERE content IS NOT NULL)"
    con.execute(f"DELETE FROM vectors WHERE {unused}")
    con.execute(f"DELETE FROM contents WHERE {unused}")


def _insert_header(con: duckdb.DuckDBPyConnection, header: ShardHeader) -> None:
    """Insert the row of a vector file, and advance the number of the next file."""
    con.execute(
        "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?)",
        [header.space, header.number, header.rows, header.file_bytes, header.checksum, utc_now()],
    )
    con.execute("UPDATE counters SET next_shard = greatest(next_shard, ?)", [header.number + 1])

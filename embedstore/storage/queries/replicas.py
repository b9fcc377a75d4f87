"""What replicas ask the catalog: the rows of a space, what changed since, and which of them a copy holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage import filters
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import (
    column_types,
    content_hex,
    fetch_column,
    fetch_value,
    int64_column,
    object_array,
    parquet_source,
)

CHUNK_ROWS = 4096
_HELD_COLUMNS = {"item": "BIGINT", "content": "UUID"}
_PRINT = {"print": "BIGINT"}  # which files of earlier versions lack


@dataclass(frozen=True)
class ChangedRows:
    """Rows that a copy lacks, or has otherwise.

    Attributes:
        items: int64 ``(n,)``.
        contents: 32 hexadecimal digits each.
        prints: int64 ``(n,)``, a fingerprint of the columns.
        shards: int64 ``(n,)`` numbers of vector files.
        rows: int64 ``(n,)`` rows in them.
        columns: the values of the columns of each row.
    """

    items: NDArray[np.int64]
    contents: list[str]
    prints: NDArray[np.int64]
    shards: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: list[tuple[Any, ...]]


def stage_space(con: duckdb.DuckDBPyConnection, space: str, columns: Sequence[str]) -> int:
    """Collect the present items with a vector in a space in a table of this connection, and return their number."""
    names = "".join(f", i.{quote_identifier(c)} AS c{n}" for n, c in enumerate(columns))
    con.execute(
        "CREATE OR REPLACE TABLE memory.main.replica_now AS SELECT i.item, i.content, "
        f"{_fingerprint(columns)} AS print, v.shard, "
        f'v."row"::BIGINT AS r{names} FROM items i JOIN vectors v ON v.content = i.content AND v.space = ? '
        "WHERE i.present",
        [space],
    )
    con.execute(
        "CREATE OR REPLACE TABLE memory.main.replica_then (item BIGINT, content UUID, print BIGINT, server INT)"
    )
    return int(fetch_value(con, "SELECT count(*) FROM memory.main.replica_now"))


def stage_server(
    con: duckdb.DuckDBPyConnection, server: int, items: NDArray[np.int64], contents: Sequence[str], prints: Any
) -> None:
    """Collect what a server holds."""
    rows = {"item": items, "content": object_array(list(contents)), "print": prints}  # noqa: F841 - read by SQL
    if len(items):
        con.execute(
            "INSERT INTO memory.main.replica_then SELECT item, try_cast(content AS UUID), print, ? FROM rows", [server]
        )


def surplus_items(con: duckdb.DuckDBPyConnection, server: int, servers: int) -> NDArray[np.int64]:
    """Return the items that a server holds and should not: int64 ``(n,)``."""
    return np.array(
        fetch_column(
            con,
            "SELECT t.item FROM memory.main.replica_then t LEFT JOIN memory.main.replica_now n USING (item) "
            f"WHERE t.server = ? AND (n.item IS NULL OR {_server('n.content')} <> ?)",
            [server, servers, server],
        ),
        np.int64,
    )


def changed_rows(con: duckdb.DuckDBPyConnection, server: int, servers: int, columns: int) -> Iterator[ChangedRows]:
    """Yield the rows that a server lacks or has otherwise, by item, in chunks."""
    names = "".join(f", n.c{k}" for k in range(columns))
    result = con.cursor().execute(
        f"SELECT n.item, n.content::VARCHAR, n.print, n.shard, n.r{names} FROM memory.main.replica_now n "
        "LEFT JOIN memory.main.replica_then t ON t.item = n.item AND t.server = ? "
        f"WHERE {_server('n.content')} = ? AND (t.item IS NULL OR t.content IS DISTINCT FROM n.content OR "
        "t.print IS DISTINCT FROM n.print) ORDER BY n.item",
        [server, servers, server],
    )
    while found := result.fetchmany(CHUNK_ROWS):
        items, contents, prints, shards, rows = (list(c) for c in list(zip(*found, strict=True))[:5])
        yield ChangedRows(
            np.array(items, np.int64),
            [content_hex(c) for c in contents],
            np.array(prints, np.int64),
            np.array(shards, np.int64),
            np.array(rows, np.int64),
            [row[5:] for row in found],
        )


def write_held(con: duckdb.DuckDBPyConnection, parquet: Path) -> None:
    """Write the items of the staged space, their contents and the fingerprints of their columns to a Parquet file."""
    con.execute(
        "COPY (SELECT item, content, print FROM memory.main.replica_now ORDER BY item) "
        f"TO {quote_literal(str(parquet))} (FORMAT parquet)"
    )


def drop_staged(con: duckdb.DuckDBPyConnection) -> None:
    """Free the memory of the tables."""
    for table in ("replica_now", "replica_then"):
        con.execute(f"DROP TABLE IF EXISTS memory.main.{table}")


def sample_held(con: duckdb.DuckDBPyConnection, count: int) -> ChangedRows:
    """Return some rows of the staged space, drawn at random with a fixed seed."""
    found = con.execute(
        "SELECT item, content::VARCHAR, print, shard, r FROM memory.main.replica_now ORDER BY hash(item) LIMIT ?",
        [count],
    ).fetchall()
    items, contents, prints, shards, rows = zip(*found, strict=True) if found else ((), (), (), (), ())
    return ChangedRows(
        np.array(items, np.int64),
        [content_hex(c) for c in contents],
        np.array(prints, np.int64),
        np.array(shards, np.int64),
        np.array(rows, np.int64),
        [],
    )


def has_prints(con: duckdb.DuckDBPyConnection, parquet: Path) -> bool:
    """Require that a file is one of :func:`write_held`, and return whether it has fingerprints of the columns.

    Raises:
        ValueError: if it has other columns.
    """
    found = column_types(con, f"FROM {parquet_source(parquet)}")
    if found not in (_HELD_COLUMNS, _HELD_COLUMNS | _PRINT):
        raise ValueError(f"{parquet} has other columns than item, content and print")
    return len(found) > len(_HELD_COLUMNS)


@dataclass(frozen=True)
class PushedColumns:
    """Columns that a server compares by itself.

    Attributes:
        copied: the DuckDB type of each column that the copy has, by name.
        compared: those that the filter compares there.
    """

    copied: Mapping[str, str]
    compared: Collection[str]

    def sql(self) -> str:
        """Return SQL that is true for a row whose columns the copy has as they are.

        Texts with a zero character and numbers that are not finite are not the same everywhere.
        """
        strange = {"VARCHAR": "contains({}, chr(0))", "DOUBLE": "NOT isfinite({})"}
        parts = [f"h.print IS NOT DISTINCT FROM {_fingerprint(list(self.copied))}"]
        for name in sorted(self.compared):
            if form := strange.get(self.copied[name]):
                parts.append(f"NOT coalesce({form.format(f'i.{quote_identifier(name)}')}, false)")
        return " AND ".join(parts)


def split_by_copy(
    con: duckdb.DuckDBPyConnection,
    space: str,
    where: str | None,
    parquet: Path,
    pushed: PushedColumns | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the matching items that a copy holds as they are, and those that are newer: int64 ``(n,)``, ascending.

    Args:
        con: the open catalog.
        space: the key of the space.
        where: only items that match this filter.
        parquet: what the copy holds.
        pushed: columns that the server compares; a row with other values there counts as newer.

    Raises:
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the filter names a column that the items lack.
    """
    same = f" AND {pushed.sql()}" if pushed else ""
    with filters.filter_errors(con, where):
        condition = filters.compile_filter(con, where)
        rows = con.execute(
            f"SELECT i.item, coalesce(h.content = i.content{same}, false) AS held FROM (SELECT * FROM items WHERE "
            f"present AND ({condition})) i JOIN vectors v ON v.content = i.content AND v.space = ? "
            f"LEFT JOIN {parquet_source(parquet)} h ON h.item = i.item ORDER BY i.item",
            [space],
        ).fetchnumpy()
    items, held = int64_column(rows["item"]), np.asarray(rows["held"], bool)
    return items[held], items[~held]


def count_newer(con: duckdb.DuckDBPyConnection, space: str, parquet: Path) -> int:
    """Return how many present items with a vector a copy lacks, or has with another content.

    Args:
        con: the open catalog.
        space: the key of the space.
        parquet: what the copy holds.
    """
    query = (
        "SELECT count(*) FROM items i JOIN vectors v ON v.content = i.content AND v.space = ? "
        f"LEFT JOIN {parquet_source(parquet)} h ON h.item = i.item WHERE i.present "
        "AND h.content IS DISTINCT FROM i.content"
    )
    return int(fetch_value(con, query, [space]))


def _fingerprint(columns: Sequence[str]) -> str:
    """Return SQL for a number that changes with the columns of the item ``i``."""
    return f"(hash({', '.join(f'i.{quote_identifier(c)}' for c in columns)}) >> 1)::BIGINT" if columns else "0::BIGINT"


def _server(content: str) -> str:
    """Return SQL for the server that a content belongs to, whose number of servers is the next parameter."""
    return f"(('0x' || left({content}::VARCHAR, 8))::BIGINT % ?)"

"""What every query needs: quoting, single values, numpy columns, names of scratch tables, DuckDB's messages.

A query that reads a Python variable must be executed where the variable is: DuckDB looks it up in the frame that calls
``execute``, so :func:`fetch_value`, :func:`fetch_column` and :func:`column_types` cannot run such a query.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.storage.quoting import quote_identifier, quote_literal

Column = Sequence[Any] | NDArray[np.object_]  # values in order; None is NULL

# SQL of the content whose digest is in the columns of digest_columns
CONTENT = "(content_high::UHUGEINT * 18446744073709551616::UHUGEINT + content_low::UHUGEINT)::UUID"

_table_numbers = itertools.count(1)


def first_row(result: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    """Return the first row of a result that always has one.

    Raises:
        StoreDamaged: if the result is empty.
    """
    row = result.fetchone()
    if row is None:
        raise StoreDamaged("the catalog lacks a row that every store has; run `embedstore verify STORE`")
    return row


def fetch_value(con: duckdb.DuckDBPyConnection, query: str, parameters: object = None) -> Any:
    """Return the first value of the first row of a query.

    Raises:
        StoreDamaged: if the query returns no row.
    """
    return first_row(con.execute(query, parameters))[0]


def fetch_column(con: duckdb.DuckDBPyConnection, query: str, parameters: object = None) -> list[Any]:
    """Return the first value of every row of a query."""
    return [row[0] for row in con.execute(query, parameters).fetchall()]


def fetch_objects(result: duckdb.DuckDBPyConnection) -> list[NDArray[np.object_]]:
    """Return the columns of a result as objects of Python, None for NULL."""
    columns = []
    for values in result.fetchnumpy().values():
        objects = np.asarray(values, dtype=object)
        if np.ma.is_masked(values):
            objects[np.ma.getmaskarray(values)] = None
        columns.append(objects)
    return columns


def digest_columns(digests: Iterable[str]) -> dict[str, NDArray[np.uint64]]:
    """Return digests of 32 hexadecimal digits as two columns of numbers, which ``CONTENT`` joins; text is slower."""
    halves = np.frombuffer(bytes.fromhex("".join(digests)), ">u8").reshape(-1, 2).astype(np.uint64)
    return {"content_high": halves[:, 0].copy(), "content_low": halves[:, 1].copy()}


def int64_column(values: Any) -> NDArray[np.int64]:
    """Return a column of numbers that DuckDB gave as int64.

    Raises:
        StoreDamaged: if one is missing: a catalog of ours has them all.
    """
    if np.ma.is_masked(values):
        raise StoreDamaged("the catalog lacks a number that every row has; run `embedstore verify STORE`")
    return np.asarray(values, np.int64)


def column_types(con: duckdb.DuckDBPyConnection, relation: str, parameters: object = None) -> dict[str, str]:
    """Return the DuckDB type of each column of a table or query, by name."""
    return {row[0]: row[1] for row in con.execute(f"DESCRIBE {relation}", parameters).fetchall()}


def count_values(column: str, kind: str) -> str:
    """Return SQL that counts the values of a column; an empty list says nothing of its type and does not count."""
    name = quote_identifier(column)
    return f"count(*) FILTER (len({name}) > 0)" if kind.endswith("[]") else f"count({name})"


def parquet_source(path: str | Path) -> str:
    """Return SQL for the rows of one Parquet file, as it goes after ``FROM``.

    DuckDB would take ``[``, ``*`` and ``?`` in the path for a pattern, and a folder named ``year=2020`` for a column.
    """
    return f"read_parquet({quote_literal(escape_pattern(str(path)))}, hive_partitioning=false)"


def escape_pattern(path: str) -> str:
    """Return a file's name so that DuckDB does not take it for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def row_hash(columns: Iterable[str]) -> str:
    """Return SQL for a checksum of the columns of a row, whatever their names are."""
    return f"hash({', '.join(map(quote_identifier, columns))})"


def insert_rows(con: duckdb.DuckDBPyConnection, table: str, source: str, types: Mapping[str, str]) -> None:
    """Insert rows by the names of their columns; add the columns that the table does not have.

    Args:
        con: a connection.
        table: the table, quoted.
        source: what the rows come from, as SQL after ``FROM``.
        types: the DuckDB type of each column of the source; the values are cast to it.
    """
    existing = column_types(con, table)
    for name in [name for name in types if name not in existing]:
        con.execute(f"ALTER TABLE {table} ADD COLUMN {quote_identifier(name)} {types[name]}")
    columns = ", ".join(f"{quote_identifier(n)}::{kind} AS {quote_identifier(n)}" for n, kind in types.items())
    con.execute(f"INSERT INTO {table} BY NAME SELECT {columns} FROM {source}")


def object_array(values: Column) -> NDArray[np.object_]:
    """Return an object column that DuckDB reads from a Python variable; None is NULL."""
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def encode_paths(names: Sequence[tuple[str, str]]) -> NDArray[np.object_]:
    """Return the column ``path`` for pairs ``(uri, path)``: the bytes of a path that is not UTF-8, else NULL."""
    return object_array([None if uri == path else path.encode("utf-8", "surrogateescape") for uri, path in names])


def decode_path(uri: str, path_bytes: bytes | None) -> str:
    """Return the path that an item's file is opened by; the inverse of :func:`encode_paths`."""
    return uri if path_bytes is None else path_bytes.decode("utf-8", "surrogateescape")


def content_hex(content: str) -> str:
    """Return a content's digest, which the catalog holds as a UUID, as 32 hexadecimal digits."""
    return content.replace("-", "")


@contextmanager
def scratch_tables(con: duckdb.DuckDBPyConnection, *names: str) -> Iterator[tuple[str, ...]]:
    """Reserve unique names of tables in the private connection, and drop those tables at the end.

    Args:
        con: the private connection, ``storage.catalog.scratch``.
        names: a word for each table; a number makes it unique in this process.

    Yields:
        The qualified names, ``memory.main.<name>_<number>``, in the order of ``names``.
    """
    with _dropped(con, [f"memory.main.{name}_{next(_table_numbers)}" for name in names]) as tables:
        yield tables


@contextmanager
def temp_tables(con: duckdb.DuckDBPyConnection, *names: str) -> Iterator[tuple[str, ...]]:
    """Reserve unique names for ``CREATE TEMP TABLE`` in a transaction, and drop those tables at the end.

    A transaction may write to one database only, so it cannot create tables in ``memory.main``.

    Args:
        con: a transaction.
        names: a word for each table; a number makes it unique in this process.

    Yields:
        The names, ``<name>_<number>``, in the order of ``names``.
    """
    with _dropped(con, [f"{name}_{next(_table_numbers)}" for name in names]) as tables:
        yield tables


@contextmanager
def _dropped(con: duckdb.DuckDBPyConnection, tables: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield names of tables, and drop those tables at the end."""
    try:
        yield tuple(tables)
    finally:
        with suppress(duckdb.Error):  # an error aborted the transaction, or made the connection unusable
            for table in tables:
                con.execute(f"DROP TABLE IF EXISTS {table}")


def first_line(error: Exception) -> str:
    """Return the first line of a message (DuckDB quotes the query below it), or the error's type if it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def error_message(error: Exception) -> str:
    """Return the first line of a DuckDB message without the type of the error."""
    return first_line(error).split(": ", 1)[-1]


def utc_now() -> datetime:
    """Return the time as the catalog's TIMESTAMP columns hold it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)

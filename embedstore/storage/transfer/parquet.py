"""Write vectors and tables as Parquet files, and read vectors back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage.disk_errors import duckdb_output
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import column_types, fetch_value, first_row, int64_column, scratch_tables
from embedstore.storage.vectors import VectorReader
from embedstore.temporary import temporary_folder

BLOCK_ROWS = 4096  # vectors read at a time
PART_ROWS = 16384  # rows that are joined with their vectors at a time
GROUP_ROWS = 16384  # of a Parquet file, which a writer has in memory once per thread; 122,880 are DuckDB's default
_NUMBER = '"embedstore: number of the row"'  # a column for the time of the export

_WIDE = frozenset({"hugeint", "uhugeint"})
_NESTED = frozenset({"list", "array", "struct"})
_PORTABLE = frozenset(
    "boolean tinyint smallint integer bigint utinyint usmallint uinteger ubigint float double decimal varchar blob "
    "date time timestamp timestamp_s timestamp_ms timestamp_ns".split()
) | {"timestamp with time zone"}


@dataclass(frozen=True)
class NumberedVectors:
    """A range of numbered vectors.

    Attributes:
        con: connection with ``table``.
        table: a table with columns ``n`` (0, 1, 2, …, in the order of the rows), ``shard`` and ``row`` (BIGINT).
        reader: reader of the vector files, which are mapped.
        begin: number of the first vector.
        end: number past the last one.
    """

    con: duckdb.DuckDBPyConnection
    table: str
    reader: VectorReader
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def split(self, rows: int) -> Iterator[NumberedVectors]:
        """Yield ranges of at most ``rows`` vectors."""
        for begin in range(self.begin, self.end, rows):
            yield replace(self, begin=begin, end=min(self.end, begin + rows))

    def iter_blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the number of the first row and the vectors, float32 ``(b, dim)``, of blocks of rows."""
        for block in self.split(BLOCK_ROWS):
            yield block.begin, block.read_stored().astype(np.float32, copy=False)

    def read_stored(self) -> NDArray[np.floating[Any]]:
        """Return all vectors of the range as they are stored, ``(n, dim)``; several threads may read."""
        query = f'SELECT shard, "row" FROM {self.table} WHERE n >= ? AND n < ? ORDER BY n'
        places = self.con.cursor().execute(query, [self.begin, self.end]).fetchnumpy()
        positions = self.reader.positions(int64_column(places["shard"]), int64_column(places["row"]))
        return self.reader.read_stored(positions)

    def write_parquet(self, path: Path, columns: str) -> None:
        """Write some columns of the table, and ``vector`` as a list of FLOAT, to a Parquet file.

        Args:
            path: the file.
            columns: columns of the table, as SQL after ``SELECT``; the table is called ``t``.
        """
        rows = portable_rows(self.con, f"SELECT {columns}, t.n AS {_NUMBER} FROM {self.table} t")
        with temporary_folder() as folder, scratch_tables(self.con, "exported") as (staged,):
            parts = [str(folder / f"{n}.parquet") for n in range(0, len(self), PART_ROWS)]
            for part, file in zip(self.split(PART_ROWS), parts, strict=True):
                self.con.execute(f"CREATE OR REPLACE TABLE {staged} (n BIGINT, vector FLOAT[])")
                for first, block in part.iter_blocks():
                    _insert_vectors(self.con, staged, first, block)
                chosen = f"SELECT * FROM ({rows}) WHERE {_NUMBER} >= {part.begin} AND {_NUMBER} < {part.end}"
                joined = f"FROM ({chosen}) t JOIN {staged} e ON e.n = t.{_NUMBER} ORDER BY e.n"
                _copy(self.con, f"SELECT t.* EXCLUDE ({_NUMBER}), e.vector AS vector {joined}", Path(file))
            _copy(self.con, f"FROM read_parquet([{', '.join(map(quote_literal, parts))}])", path)


def write_parquet(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of a query to a Parquet file.

    Parquet has no integers of more than 64 bits, and DuckDB would round them to DOUBLE: they are written as
    DECIMAL(38, 0), or as text where a value has more digits or is in a list.
    """
    _copy(con, portable_rows(con, query), path)


def portable_rows(con: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return a query whose integers of more than 64 bits have a type that Parquet has; see :func:`write_parquet`."""
    wide = {c: kind for c, kind in column_types(con, query).items() if "HUGEINT" in kind}
    exact = ", ".join(f"{_exact(con, query, c, kind)} AS {quote_identifier(c)}" for c, kind in wide.items())
    return f"SELECT * REPLACE ({exact}) FROM ({query})" if wide else query


def _copy(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of a query as they are; memory is that of a group of rows."""
    with duckdb_output(path):
        con.execute(f"COPY ({query}) TO {quote_literal(str(path))} (FORMAT parquet, ROW_GROUP_SIZE {GROUP_ROWS})")


def _exact(con: duckdb.DuckDBPyConnection, query: str, column: str, kind: str) -> str:
    """Return SQL for a column of wide integers in a type that Parquet has."""
    name = quote_identifier(column)
    if not kind.endswith("HUGEINT"):  # inside a list or a structure
        return f"{name}::{kind.replace('UHUGEINT', 'VARCHAR').replace('HUGEINT', 'VARCHAR')}"
    decimal = f"TRY_CAST({name} AS DECIMAL(38, 0))"
    (lost,) = first_row(con.execute(f"SELECT count({name}) - count({decimal}) FROM ({query})"))
    return f"{name}::VARCHAR" if lost else decimal


def portable_columns(con: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return SQL after ``REPLACE`` that gives columns of a query a type that Arrow and Parquet hold.

    It is empty where all have one. Wide integers are as in :func:`write_parquet`; other types that Parquet lacks, such
    as INTERVAL, become text.
    """
    relation = con.sql(query)
    columns = []
    for name, kind in zip(relation.columns, relation.types, strict=True):
        if kind.id in _WIDE:
            columns.append(f"{_exact(con, query, name, str(kind))} AS {quote_identifier(name)}")
        elif not _is_portable(kind):
            columns.append(f"{quote_identifier(name)}::VARCHAR AS {quote_identifier(name)}")
    return ", ".join(columns)


def _is_portable(kind: duckdb.sqltypes.DuckDBPyType) -> bool:
    """Return whether a type is held by Arrow, by Parquet, and by the readers of both."""
    if kind.id in _NESTED:
        return all(_is_portable(t) for _, t in kind.children if isinstance(t, duckdb.sqltypes.DuckDBPyType))
    return kind.id in _PORTABLE


def read_vectors(con: duckdb.DuckDBPyConnection, query: str, dim: int) -> NDArray[np.float32]:
    """Read the column ``vector`` of a query.

    Args:
        con: the connection.
        query: a query with a column ``vector``, a list.
        dim: length that every vector must have.

    Returns:
        float32 ``(n, dim)``, in the order of the query.

    Raises:
        ValueError: if a vector has another length, or a value is NULL.
    """
    bad = f"vector IS NULL OR len(vector) <> {dim} OR list_count(vector) <> {dim}"
    if fetch_value(con, f"SELECT count(*) FROM ({query}) WHERE {bad}"):
        raise ValueError(f"a vector does not have {dim} values")
    values = con.execute(f"SELECT unnest(vector)::FLOAT AS x FROM ({query})").fetchnumpy()["x"]
    return np.asarray(values, np.float32).reshape(-1, dim)


def _insert_vectors(con: duckdb.DuckDBPyConnection, table: str, first: int, block: NDArray[np.float32]) -> None:
    """Insert a block of vectors ``(b, dim)`` as lists, numbered from ``first``."""
    rows, dim = block.shape
    flat = {  # noqa: F841 - read by SQL
        "n": np.repeat(np.arange(first, first + rows, dtype=np.int64), dim),
        "i": np.tile(np.arange(dim, dtype=np.int32), rows),
        "v": block.ravel(),
    }
    con.execute(f"INSERT INTO {table} SELECT n, list(v ORDER BY i) FROM flat GROUP BY n")

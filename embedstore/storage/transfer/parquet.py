"""Vectors and tables on their way to Parquet and back."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage.sql import first_row, quote_literal


def stage_vectors(con: duckdb.DuckDBPyConnection, table: str, begin: int, block: NDArray[np.float32]) -> None:
    """Enter a block of vectors ``(b, dim)`` as list values, numbered from ``begin``, into ``table (n, vector)``."""
    rows, dim = block.shape
    flat = {  # noqa: F841 - read by SQL
        "n": np.repeat(np.arange(begin, begin + rows, dtype=np.int64), dim),
        "i": np.tile(np.arange(dim, dtype=np.int32), rows),
        "v": block.ravel(),
    }
    con.execute(f"INSERT INTO {table} SELECT n, list(v ORDER BY i) FROM flat GROUP BY n")


def write_parquet(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """A query's rows as a Parquet file."""
    con.execute(f"COPY ({query}) TO {quote_literal(path)} (FORMAT parquet)")


def read_vectors(con: duckdb.DuckDBPyConnection, query: str, dim: int) -> NDArray[np.float32]:
    """The column ``vector`` of a query, in its order: float32 ``(n, dim)``.

    Raises:
        ValueError: a vector has another length, or a value is NULL.
    """
    bad = f"vector IS NULL OR len(vector) <> {dim} OR list_count(vector) <> {dim}"
    if first_row(con.execute(f"SELECT count(*) FROM ({query}) WHERE {bad}"))[0]:
        raise ValueError(f"a vector has not {dim} values")
    found = con.execute(f"SELECT unnest(vector)::FLOAT AS x FROM ({query})").fetchnumpy()["x"]
    return np.asarray(found, np.float32).reshape(-1, dim)

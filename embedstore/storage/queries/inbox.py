"""What the registration of parts asks the catalog, and the tables of a plan as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from embedstore.storage.quoting import quote_literal
from embedstore.storage.sql import column_types, fetch_value, object_array, parquet_source

_MISSING_COLUMNS = {"item": "BIGINT", "content": "UUID", "uri": "VARCHAR"}


def write_missing(con: duckdb.DuckDBPyConnection, parquet: Path) -> None:
    """Write the missing items of the plan that is being made to a Parquet file."""
    con.execute(
        f"COPY (SELECT item, content, uri FROM memory.main.missing ORDER BY item) TO {quote_literal(str(parquet))} "
        "(FORMAT parquet)"
    )


def load_missing(con: duckdb.DuckDBPyConnection, parquet: Path | None) -> None:
    """Make the missing items of a plan the table ``missing`` of this connection.

    Items that were renamed, changed or deleted since then are left out.

    Args:
        con: a connection on which the catalog can be read.
        parquet: what :func:`write_missing` wrote; None if there are none.

    Raises:
        ValueError: if the file has other columns.
    """
    con.execute("CREATE OR REPLACE TABLE memory.main.missing (item BIGINT, content UUID, uri VARCHAR)")
    if parquet is None:
        return
    if column_types(con, f"FROM {parquet_source(parquet)}") != _MISSING_COLUMNS:
        raise ValueError(f"{parquet} has other columns than item, content and uri")
    con.execute(
        f"INSERT INTO memory.main.missing SELECT m.item, m.content, m.uri FROM {parquet_source(parquet)} m "
        "JOIN items i ON i.item = m.item AND i.uri = m.uri AND i.content IS NOT DISTINCT FROM m.content"
    )


def parquet_columns(con: duckdb.DuckDBPyConnection, parquet: Path) -> dict[str, str]:
    """Return the DuckDB type of each column of a Parquet file, by name."""
    return column_types(con, f"FROM {parquet_source(parquet)}")


def items_by_uri(con: duckdb.DuckDBPyConnection, uris: Sequence[str]) -> dict[str, int]:
    """Return the item of each uri that has one."""
    rows = {"uri": object_array(list(uris))}  # noqa: F841 - read by SQL
    return dict(con.execute("SELECT uri, item FROM items WHERE uri IN (SELECT uri::VARCHAR FROM rows)").fetchall())


def registered_parts(con: duckdb.DuckDBPyConnection, plan: str) -> dict[int, dict[str, Any]]:
    """Return the counts of each part of a plan that is registered, by its number."""
    rows = con.execute(
        "SELECT (settings->>'part')::BIGINT, result FROM runs WHERE verb = 'register' AND settings->>'plan' = ?",
        [plan],
    ).fetchall()
    return {part: json.loads(result) for part, result in rows}


def is_finished(con: duckdb.DuckDBPyConnection, plan: str) -> bool:
    """Return whether the whole plan was recorded as a run."""
    query = "SELECT count(*) FROM runs WHERE verb = 'embed' AND settings->>'plan' = ?"
    return bool(fetch_value(con, query, [plan]))

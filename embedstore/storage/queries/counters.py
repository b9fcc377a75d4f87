"""The table ``counters``: the next ids, and the number of commits."""

from __future__ import annotations

import duckdb

from embedstore.errors import StoreDamaged
from embedstore.storage.sql import column_types, fetch_value


def has_commit_count(con: duckdb.DuckDBPyConnection) -> bool:
    """Return whether the catalog had the migration that added the count of commits."""
    return "generation" in column_types(con, "counters")


def read_commit_count(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many transactions the open generation of the catalog has counted; 0 before the migration."""
    return int(fetch_value(con, "SELECT coalesce(max(generation), 0) FROM counters")) if has_commit_count(con) else 0


def increment_commit_count(con: duckdb.DuckDBPyConnection) -> int | None:
    """Count the open transaction and return the new count; None before the migration."""
    if not has_commit_count(con):
        return None
    row = con.execute("UPDATE counters SET generation = coalesce(generation, 0) + 1 RETURNING generation").fetchone()
    return int(row[0]) if row else None


def next_item(con: duckdb.DuckDBPyConnection) -> int:
    """Return the id of the next item."""
    return _counter(con, "next_item")


def next_shard(con: duckdb.DuckDBPyConnection) -> int:
    """Return the number of the next vector file."""
    return _counter(con, "next_shard")


def next_run(con: duckdb.DuckDBPyConnection) -> int:
    """Return the number of the next run."""
    return _counter(con, "next_run")


def _counter(con: duckdb.DuckDBPyConnection, name: str) -> int:
    """Return a counter.

    Raises:
        StoreDamaged: if it is missing.
    """
    value = fetch_value(con, f"SELECT {name} FROM counters")
    if not isinstance(value, int):
        raise StoreDamaged(f"the catalog lacks the counter {name}; run `embedstore repair STORE`")
    return value

"""The catalog counts its commits, so that one which was acknowledged and is gone is missed."""

from __future__ import annotations

import duckdb


def up(con: duckdb.DuckDBPyConnection) -> None:
    """Add the count."""
    con.execute("ALTER TABLE cat.counters ADD COLUMN generation BIGINT DEFAULT 0")

"""The catalog counts its commits, so that the loss of acknowledged commits is detected."""

from __future__ import annotations

import duckdb


def up(con: duckdb.DuckDBPyConnection) -> None:
    """Add the column ``generation``."""
    con.execute("ALTER TABLE cat.counters ADD COLUMN generation BIGINT DEFAULT 0")

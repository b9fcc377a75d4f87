"""A prediction says of which bytes it was made: of a file that changed since, it says nothing."""

from __future__ import annotations

import duckdb


def up(con: duckdb.DuckDBPyConnection) -> None:
    """Add the content."""
    con.execute("ALTER TABLE cat.predictions ADD COLUMN content UUID")

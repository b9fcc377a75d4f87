"""A prediction names the content it was computed from, so that it does not apply to a file that changed since."""

from __future__ import annotations

import duckdb


def up(con: duckdb.DuckDBPyConnection) -> None:
    """Add the column ``content``."""
    con.execute("ALTER TABLE cat.predictions ADD COLUMN content UUID")

"""DuckDB, as every room opens it."""

from __future__ import annotations

import duckdb


def connect(**config: str) -> duckdb.DuckDBPyConnection:
    """A database in memory that draws nothing.

    At a prompt, in a notebook, in ``python -c`` and in processes that were spawned, DuckDB draws a progress bar on
    stdout for every query of more than two seconds.
    """
    con = duckdb.connect(":memory:", config=dict(config))
    con.execute("SET enable_progress_bar = false")
    return con

"""DuckDB, as every room opens it."""

from __future__ import annotations

from contextlib import suppress

import duckdb


def connect(**config: str) -> duckdb.DuckDBPyConnection:
    """A database in memory that draws nothing.

    At a prompt, in a notebook, in ``python -c`` and in processes that were spawned, DuckDB draws a progress bar on
    stdout for every query of more than two seconds.
    """
    con = duckdb.connect(":memory:", config=dict(config))
    with suppress(duckdb.InvalidInputException):  # a notebook without the widgets that DuckDB would draw with
        con.execute("SET enable_progress_bar = false")
    return con

"""The table ``runs``: what was done, with which settings and with what result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import duckdb

from embedstore.storage.queries import counters
from embedstore.storage.sql import utc_now


def insert_run(
    con: duckdb.DuckDBPyConnection,
    kind: str,
    space: str | None,
    settings: Mapping[str, Any],
    result: Mapping[str, Any],
    started: datetime,
) -> int:
    """Insert a run that ends now, under the next number, and return that number.

    Args:
        con: a transaction.
        kind: the operation, such as ``embed``.
        space: the key of the space it used, None if it used none.
        settings: its settings, as JSON values.
        result: its result, as JSON values.
        started: when it began, UTC.
    """
    number = counters.next_run(con)
    seconds = (utc_now() - started).total_seconds()
    con.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
        [number, kind, space, json.dumps(settings), json.dumps(result), started, seconds],
    )
    con.execute("UPDATE counters SET next_run = ?", [number + 1])
    return number

"""The table ``runs``: what was done, with which settings and with what result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import duckdb
import numpy as np

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
        [number, kind, space, json_text(settings), json_text(result), started, seconds],
    )
    con.execute("UPDATE counters SET next_run = ?", [number + 1])
    return number


def json_text(values: Mapping[str, Any]) -> str:
    """Return values as JSON, whatever they are: to record what was done must never fail after it was done.

    NaN and infinity, which JSON lacks, become null. Scalars of NumPy become numbers, and all other types text.
    """
    return json.dumps(_plain(values))


def _plain(value: Any) -> Any:
    """Return a value of the types that JSON has."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # a file name may hold a lone surrogate
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return _plain(str(value))

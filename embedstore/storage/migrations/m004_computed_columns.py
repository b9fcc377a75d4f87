"""Columns that the package computed are recorded, so that they can be distinguished from the user's own."""

from __future__ import annotations

import json
from typing import Any

import duckdb

_TYPES = {"cluster": "BIGINT", "outlier": "FLOAT", "duplicate_group": "BIGINT", "duplicate_keep": "BOOLEAN"}
_OF_VERB = {"cluster": ("cluster", "outlier"), "duplicates": ("duplicate_group", "duplicate_keep")}


def up(con: duckdb.DuckDBPyConnection) -> None:
    """Create the table, and record the columns that earlier runs computed and nothing changed since."""
    con.execute(
        "CREATE TABLE cat.computed_columns "
        "(name VARCHAR, run BIGINT, role VARCHAR, filled BIGINT, next_item BIGINT, cleared BIGINT, edited BOOLEAN)"
    )
    types = {row[0]: row[1] for row in con.execute("DESCRIBE cat.items").fetchall()}
    for column, run in _computed_by(con).items():
        if types.get(column) == _TYPES[column]:
            con.execute(
                "INSERT INTO cat.computed_columns "
                f"SELECT ?, ?, ?, count({column}), (SELECT next_item FROM cat.counters), 0, false FROM cat.items",
                [column, run, column],
            )


def _computed_by(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the run that wrote each of the columns with a usual name last, without those that were edited after it."""
    computed: dict[str, int] = {}
    rows = con.execute(
        "SELECT run, verb, settings FROM cat.runs WHERE verb IN ('cluster', 'duplicates', 'edit') ORDER BY run"
    )
    for run, verb, text in rows.fetchall():
        settings = _parse(text)
        if verb == "edit":
            edited = settings.get("set")  # without it a table was edited, whose columns nobody knows any more
            computed = {n: r for n, r in computed.items() if isinstance(edited, dict) and not _names(edited, n)}
        elif settings.get("column", "cluster") == "cluster":  # a run that named another column is not followed
            computed |= dict.fromkeys(_OF_VERB[verb], run)
    return computed


def _parse(text: str) -> dict[str, Any]:
    """Return the settings of a run; none where they are not what a run records."""
    try:
        settings = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _names(edited: dict[str, Any], column: str) -> bool:
    """Return whether an edit set a column."""
    return any(name.lower() == column for name in edited)

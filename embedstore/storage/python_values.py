"""Values as Python objects that lose nothing: what Python's type cannot hold is the text that DuckDB has for it.

DuckDB does so for years after 9999; but it cuts nanoseconds to microseconds, makes a month 30 days, and makes infinity
the last day of the year 9999.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import duckdb

from embedstore.storage.quoting import quote_identifier

_NANOSECONDS = {"TIMESTAMP_NS": "TIMESTAMP", "TIME_NS": "TIME"}  # and the type that Python's values have
_INFINITE = {"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE"}
_INEXACT_PARTS = re.compile(r"\b(TIMESTAMP_NS|TIME_NS|INTERVAL)\b(?=[^\"']*(?:[\"'][^\"']*[\"'][^\"']*)*$)")


def exact_query(query: str, columns: Sequence[tuple[str, str]]) -> str:
    """Return a query whose values lose nothing when they become Python objects: the same columns and rows.

    Args:
        query: a SELECT.
        columns: name and DuckDB type of each of its columns.
    """
    given = [f"c{n}" for n in range(len(columns))]
    exact = [exact_expression(c, kind) for c, (_, kind) in zip(given, columns, strict=True)]
    if exact == given:
        return query
    listed = ", ".join(f"{e} AS {quote_identifier(name)}" for e, (name, _) in zip(exact, columns, strict=True))
    return f"SELECT {listed} FROM ({query}\n) AS q({', '.join(given)})"


def execute_exact(con: duckdb.DuckDBPyConnection, query: str, parameters: object = None) -> duckdb.DuckDBPyConnection:
    """Run a SELECT that names no Python variable; the values of its rows lose nothing as Python objects."""
    result = con.execute(query, parameters)
    exact = exact_query(query, described(result))
    return result if exact == query else con.execute(exact, parameters)


def described(result: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Return name and DuckDB type of each column of a result."""
    return [(name, str(kind)) for name, kind, *_ in result.description or []]


def exact_expression(column: str, kind: str) -> str:
    """Return SQL for a column whose values lose nothing when they become Python objects.

    Args:
        column: SQL of the column.
        kind: its DuckDB type.
    """
    if kind in _NANOSECONDS:
        return _or_text(column, _NANOSECONDS[kind], f"epoch_ns({column}) % 1000 = 0")
    if kind == "INTERVAL":
        return _or_text(column, kind, f"date_part('month', {column}) = 0 AND date_part('year', {column}) = 0")
    if kind in _INFINITE:
        return _or_text(column, kind, f"isfinite({column})")
    if _INEXACT_PARTS.search(kind):
        return f"{column}::{_INEXACT_PARTS.sub('VARCHAR', kind)}"
    return column


def _or_text(column: str, kind: str, holds: str) -> str:
    """Return SQL for a column that is of a type where that holds its value, and else text."""
    union = f'UNION("value" {kind}, "text" VARCHAR)'
    return (
        f'CASE WHEN {column} IS NULL THEN NULL WHEN {holds} THEN union_value("value" := {column}::{kind})::{union} '
        f'ELSE union_value("text" := {column}::VARCHAR)::{union} END'
    )

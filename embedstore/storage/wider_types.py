"""The type that holds every value of two types, so that a column of integers can take 1.5 without losing a digit."""

from __future__ import annotations

import re

import duckdb

from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import fetch_value

_INTEGERS = {
    "TINYINT": (-(2**7), 2**7 - 1),
    "SMALLINT": (-(2**15), 2**15 - 1),
    "INTEGER": (-(2**31), 2**31 - 1),
    "BIGINT": (-(2**63), 2**63 - 1),
    "HUGEINT": (-(2**127), 2**127 - 1),
    "UTINYINT": (0, 2**8 - 1),
    "USMALLINT": (0, 2**16 - 1),
    "UINTEGER": (0, 2**32 - 1),
    "UBIGINT": (0, 2**64 - 1),
}  # least and greatest value; a common type is signed where it can be
_FLOATS = ("FLOAT", "DOUBLE")
_MOMENTS = ("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP")  # each holds the ones before it
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_MAX_DIGITS = 38  # of a DECIMAL


def wider_type(a: str, b: str) -> str | None:
    """Return the DuckDB type that holds the values of two types as the same numbers or moments.

    Whether a DOUBLE holds every integer depends on the integers: compare the values after the conversion.

    Args:
        a: a DuckDB type.
        b: another.

    Returns:
        The type, or None where there is none: text, dates.
    """
    if a == b:
        return a
    if a.endswith("[]") and b.endswith("[]"):
        part = wider_type(a[:-2], b[:-2])
        return f"{part}[]" if part else None
    if a in _MOMENTS and b in _MOMENTS:
        return max(a, b, key=_MOMENTS.index)
    if a in _INTEGERS and b in _INTEGERS:
        least, greatest = min(_INTEGERS[a][0], _INTEGERS[b][0]), max(_INTEGERS[a][1], _INTEGERS[b][1])
        return next((kind for kind, (low, high) in _INTEGERS.items() if low <= least and high >= greatest), None)
    exact_a, exact_b = _decimal_digits(a), _decimal_digits(b)
    if exact_a and exact_b and (_DECIMAL.match(a) or _DECIMAL.match(b)):
        whole, scale = max(exact_a[0], exact_b[0]), max(exact_a[1], exact_b[1])
        return f"DECIMAL({whole + scale},{scale})" if whole + scale <= _MAX_DIGITS else None
    has_float = a in _FLOATS or b in _FLOATS
    return "DOUBLE" if has_float and all(kind in _FLOATS or _decimal_digits(kind) for kind in (a, b)) else None


def every_value_survives(con: duckdb.DuckDBPyConnection, table: str, column: str, present: str, kind: str) -> bool:
    """Return whether every value of a column is the same after a conversion to another type and back.

    Args:
        con: a connection.
        table: the table.
        column: its column.
        present: the column's type.
        kind: the other type.
    """
    name = quote_identifier(column)
    there_and_back = conversion(conversion(name, present, kind), kind, present)
    changed = f"SELECT count(*) FROM {table} WHERE {name} IS NOT NULL AND {there_and_back} IS DISTINCT FROM {name}"
    return int(fetch_value(con, changed)) == 0


def conversion(expression: str, kind: str, to: str) -> str:
    """Return SQL for the values of one type as values of another; NULL where that type has no such value.

    DuckDB multiplies a DOUBLE by a power of ten to make a DECIMAL of it, so that 0.1 becomes 0.1000000000000000090 with
    many places. Here the digits are those of the shortest text that is read as the same DOUBLE, as in printing.

    Args:
        expression: SQL of the values.
        kind: their DuckDB type.
        to: the other type.
    """
    if kind.endswith("[]") and to.endswith("[]"):
        return f"list_transform({expression}, lambda x: {conversion('x', kind[:-2], to[:-2])})"
    if kind in _FLOATS and _DECIMAL.fullmatch(to):
        number = f"TRY_CAST({expression} AS DOUBLE)"
        rounded = f"TRY_CAST({number}::VARCHAR AS {to})"
        return f"CASE WHEN TRY_CAST({rounded}::VARCHAR AS DOUBLE) = {number} THEN {rounded} END"
    if to in _FLOATS and _DECIMAL.fullmatch(kind):
        return f"TRY_CAST({expression}::VARCHAR AS {to})"
    return f"TRY_CAST({expression} AS {to})"


def _decimal_digits(kind: str) -> tuple[int, int] | None:
    """Return the digits before and after the point that a type of exact numbers may have."""
    if found := _DECIMAL.fullmatch(kind):
        return int(found[1]) - int(found[2]), int(found[2])
    return (len(str(_INTEGERS[kind][1])), 0) if kind in _INTEGERS else None

"""The type of a column that came as text, decided by all of its cells: typed only where no value changes.

The first type of this list that every cell fits (blank cells fit all) is the column's:

1. BOOLEAN: ``true`` or ``false``, also ``True`` and ``TRUE``.
2. BIGINT, UBIGINT, HUGEINT, UHUGEINT: an integer without leading zeros or a plus sign.
3. DOUBLE: a number of which no digit is lost; ``nan`` and ``inf`` among numbers.
4. DECIMAL: a number with more digits than a DOUBLE holds, at most 38.
5. DATE: ``2020-01-31``. TIMESTAMP: ``2020-01-31 10:00:00``, with ``T`` and up to six decimals.
6. VARCHAR: everything else, such as ``007``, UUIDs, and dates in other notations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from embedstore.errors import BadManifest
from embedstore.sources.json_tables import JsonKind
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import first_row
from embedstore.storage.wider_types import conversion, wider_type

ANY_KIND = JsonKind.TEXT | JsonKind.NUMBER | JsonKind.BOOLEAN  # a cell of a text file may be any of these
TEXT = "VARCHAR"

_INTEGERS = ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT")  # the first that fits is taken
_BOOLEAN = "true|false|True|False|TRUE|FALSE"
_INTEGER = "0|-?[1-9][0-9]*"
_DECIMAL = r"-?(0|[1-9][0-9]*)?(\.[0-9]+)?"
_NUMBER = rf"{_DECIMAL}([eE][+-]?[0-9]+)?"
_NOT_FINITE = "nan|NaN|-?inf|-?Infinity"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIMESTAMP = rf"{_DATE}[ T][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]{{1,6}})?"
_SAFE_DIGITS = 15  # every number of so many decimal digits survives in a DOUBLE (IEEE 754, DBL_DIG)
_SAFE_MAGNITUDE = "1e-290"  # below, a DOUBLE has fewer digits


@dataclass(frozen=True)
class TypedColumn:
    """How one column of text, or of another table, becomes a typed one.

    Attributes:
        kind: the DuckDB type.
        expression: SQL over the table that holds it.
    """

    kind: str
    expression: str


def typed_text(con: duckdb.DuckDBPyConnection, table: str, column: str, kinds: JsonKind) -> TypedColumn:
    """Return the type of a column of text, and how to convert it.

    Args:
        con: the connection.
        table: the table that holds the column.
        column: its name.
        kinds: what JSON says of its values, :data:`ANY_KIND` for a text file.
    """
    name = quote_identifier(column)
    if kinds == JsonKind.NESTED:
        return _nested(con, table, name)
    if not kinds or (kinds != ANY_KIND and kinds not in (JsonKind.TEXT, JsonKind.NUMBER, JsonKind.BOOLEAN)):
        return TypedColumn(TEXT, name)
    kind = _decide(con, table, name, kinds)
    if kind == TEXT:
        return TypedColumn(TEXT, name)
    return TypedColumn(kind, f"CAST(nullif({_trimmed(name)}, '') AS {kind})")


def fitted(
    con: duckdb.DuckDBPyConnection, table: str, column: str, typed: TypedColumn, *, kind: str, name: str
) -> TypedColumn:
    """Return the column converted to the type that a store has for it, or to one that holds the values of both.

    Args:
        con: the connection.
        table: the table that holds the column.
        column: its name.
        typed: the column with the type of its own values.
        kind: the type of the store's column.
        name: the table's name in messages.

    Raises:
        BadManifest: if a value would change; the first one that has no value of the type is named, else the first.
    """
    if typed.kind == kind:
        return typed
    if kind.endswith("[]") and not typed.kind.endswith("[]"):  # one value of a column that holds several
        e = typed.expression
        typed = TypedColumn(f"{typed.kind}[]", f"CASE WHEN ({e}) IS NULL THEN NULL ELSE [{e}] END")
    changed = _changed_value(con, table, typed, kind)
    if changed is None:
        return _cast(typed, kind)
    wider = wider_type(kind, typed.kind)
    if wider not in (None, kind) and _changed_value(con, table, typed, wider) is None:
        return _cast(typed, wider)
    raise BadManifest(
        f"{name}: row {changed[0] + 1} has {changed[1]!r} in the column {column!r}, which does not fit: the store "
        f"holds {kind} there; give such values, or rename the column"
    )


def _cast(typed: TypedColumn, kind: str) -> TypedColumn:
    return TypedColumn(kind, conversion(typed.expression, typed.kind, kind))


def _changed_value(con: duckdb.DuckDBPyConnection, table: str, typed: TypedColumn, kind: str) -> tuple[int, str] | None:
    """Return row and text of the first value that a type does not hold, None if it holds all of them."""
    value, converted = typed.expression, _cast(typed, kind).expression
    given = f"SELECT embedstore_row, ({value})::VARCHAR FROM {table} WHERE ({value}) IS NOT NULL"
    parts = {typed.kind.removesuffix("[]"), kind.removesuffix("[]")}
    if "BOOLEAN" in parts and TEXT not in parts:  # DuckDB converts true to 1, which is another value
        return con.execute(f"{given} ORDER BY embedstore_row LIMIT 1").fetchone()
    try:
        return con.execute(
            f"{given} AND {conversion(converted, kind, typed.kind)} IS DISTINCT FROM ({value}) "
            f"ORDER BY {converted} IS NOT NULL, embedstore_row LIMIT 1"
        ).fetchone()
    except duckdb.Error:  # there is no conversion between the types
        return con.execute(f"{given} LIMIT 1").fetchone()


def _decide(con: duckdb.DuckDBPyConnection, table: str, name: str, kinds: JsonKind) -> str:
    """Return the first type that every cell fits."""
    facts = _facts(con, table, name)
    if not facts["cells"]:
        return TEXT
    if JsonKind.BOOLEAN in kinds and facts["boolean"]:
        return "BOOLEAN"
    if JsonKind.NUMBER in kinds and (number := _number_type(facts)):
        return number
    if JsonKind.TEXT in kinds:
        return "DATE" if facts["date"] else "TIMESTAMP" if facts["timestamp"] else TEXT
    return TEXT


def _number_type(facts: Mapping[str, int]) -> str | None:
    """Return the narrowest type that holds every number exactly, None if there is none."""
    if facts["integer"]:
        return next((kind for kind in _INTEGERS if facts[kind.lower()]), None)
    if facts["double"] and facts["numbers"]:
        return "DOUBLE"
    digits, scale = facts["whole_digits"] + facts["scale"], facts["scale"]
    return f"DECIMAL({digits},{scale})" if facts["decimal"] and digits <= 38 else None


def _facts(con: duckdb.DuckDBPyConnection, table: str, name: str) -> dict[str, int]:
    """Return what is true of all cells that are not blank, in one pass."""
    integer, number = _matches(_INTEGER), _matches(_NUMBER)
    facts = {
        "cells": "count(t)",
        "boolean": f"bool_and({_matches(_BOOLEAN)})",
        "integer": f"bool_and({integer})",
        **{kind.lower(): f"bool_and(TRY_CAST(t AS {kind}) IS NOT NULL)" for kind in _INTEGERS},
        "double": f"bool_and(CASE WHEN {_matches(_NOT_FINITE)} THEN true ELSE {number} AND t <> '-' AND {_EXACT} END)",
        "numbers": f"count(*) FILTER ({number})",
        "decimal": f"bool_and({_matches(_DECIMAL)} AND regexp_matches(t, '[0-9]'))",
        "whole_digits": r"max(length(regexp_extract(t, '^-?([0-9]*)', 1)))",
        "scale": r"max(length(regexp_extract(t, '\.([0-9]+)$', 1)))",
        "date": f"bool_and({_matches(_DATE)} AND TRY_CAST(t AS DATE) IS NOT NULL)",
        "timestamp": f"bool_and({_matches(_TIMESTAMP)} AND TRY_CAST(t AS TIMESTAMP) IS NOT NULL)",
    }
    row = first_row(
        con.execute(
            f"SELECT {', '.join(facts.values())} FROM (SELECT nullif({_trimmed(name)}, '') AS t FROM {table}) "
            "WHERE t IS NOT NULL"
        )
    )
    return {fact: int(value or 0) for fact, value in zip(facts, row, strict=True)}


def _nested(con: duckdb.DuckDBPyConnection, table: str, name: str) -> TypedColumn:
    """Return the type of lists and objects; as JSON text where their values have no common type, or would change."""
    (structure,) = first_row(con.execute(f"SELECT json_group_structure({name}::JSON)::VARCHAR FROM {table}"))
    digits = 16 if "DOUBLE" in structure else 19  # that a DOUBLE or a BIGINT may not hold
    (long_numbers,) = first_row(
        con.execute(f"SELECT count(*) FROM {table} WHERE regexp_matches({name}, '[0-9.]{{{digits},}}')")
    )
    if "JSON" in structure or (long_numbers and "DOUBLE" in structure):
        return TypedColumn(TEXT, name)
    structure = structure if long_numbers else structure.replace("UBIGINT", "BIGINT")
    expression = f"from_json({name}::JSON, {quote_literal(structure)})"
    (kind,) = first_row(con.execute(f"SELECT typeof({expression}) FROM {table} WHERE {name} IS NOT NULL LIMIT 1"))
    return TypedColumn(kind, expression)


def _trimmed(name: str) -> str:
    """Return SQL for a cell without white space around it."""
    return f"regexp_replace({name}, '^\\s+|\\s+$', '', 'g')"


def _matches(pattern: str) -> str:
    """Return SQL that is true if the whole cell matches."""
    return f"regexp_full_match(t, '{pattern}')"


_MANTISSA = r"ltrim(regexp_replace(regexp_replace(t, '[eE].*$', ''), '[-.]', '', 'g'), '0')"
_PRINTED = (
    f"regexp_replace(split_part(printf('%.' || greatest(length({_MANTISSA}) - 1, 0) || 'e', TRY_CAST(t AS DOUBLE)), "
    "'e', 1), '[-.]', '', 'g')"
)
_EXACT = (
    f"({_MANTISSA} = '' OR (isfinite(TRY_CAST(t AS DOUBLE)) AND "
    f"((length({_MANTISSA}) <= {_SAFE_DIGITS} AND abs(TRY_CAST(t AS DOUBLE)) > {_SAFE_MAGNITUDE}) "
    f"OR (length({_MANTISSA}) <= 400 AND {_PRINTED} = {_MANTISSA}))))"
)

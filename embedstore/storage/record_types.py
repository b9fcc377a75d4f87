"""The DuckDB type of values that are Python objects, so that no type has to be guessed from text."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from embedstore.storage.quoting import quote_identifier

TEXT = "VARCHAR"
_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)
_MAX_DIGITS = 38  # of DuckDB's DECIMAL
_KINDS = (
    *(bool, int, float, str, bytes, datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
    *(uuid.UUID, Decimal, list, tuple, dict),
)
_TYPES = {
    bool: "BOOLEAN",
    bytes: "BLOB",
    float: "DOUBLE",
    datetime.date: "DATE",
    datetime.time: "TIME",
    uuid.UUID: "UUID",
}


def value_type(values: Iterable[Any]) -> str:
    """Return the narrowest DuckDB type that holds each value exactly, and that Parquet has; text where there is none.

    Args:
        values: values of one column; None is NULL and fits every type.
    """
    present = [v for v in values if v is not None]
    kinds = {next((kind for kind in _KINDS if isinstance(v, kind)), object) for v in present}
    if not kinds:
        return TEXT
    if kinds == {int}:
        return _integer_type(present)
    if kinds == {int, float}:
        return "DOUBLE" if all(v == float(v) for v in present if isinstance(v, int)) else TEXT
    if len(kinds) > 1:
        return TEXT
    kind = kinds.pop()
    if kind in (list, tuple):
        return _part_type(v for value in present for v in value) + "[]"
    if kind is dict:
        return _struct_type(present)
    if kind is datetime.datetime:
        zones = {v.tzinfo is not None for v in present}
        return TEXT if len(zones) > 1 else "TIMESTAMPTZ" if zones == {True} else "TIMESTAMP"
    return _decimal_type(present) if kind is Decimal else _TYPES.get(kind, TEXT)


def _part_type(values: Iterable[Any]) -> str:
    """Return the type of values inside of lists and structures, where bytes are hexadecimal digits."""
    kind = value_type(values)
    return TEXT if kind == "BLOB" else kind


def _integer_type(values: list[int]) -> str:
    """Return a type of 64 bits if all integers fit one."""
    if all(v in _INT64 for v in values):
        return "BIGINT"
    return "UBIGINT" if all(v in _UINT64 for v in values) else TEXT


def _struct_type(values: list[dict[Any, Any]]) -> str:
    """Return the type of mappings with the same keys; text for others, as maps are."""
    keys = list(values[0])
    if not keys or any(list(v) != keys for v in values) or not all(isinstance(k, str) and k for k in keys):
        return TEXT
    fields = ", ".join(f"{quote_identifier(k)} {_part_type(v[k] for v in values)}" for k in keys)
    return f"STRUCT({fields})"


def _decimal_type(values: list[Decimal]) -> str:
    """Return a decimal type with as many digits as the values have."""
    parts = [v.as_tuple() for v in values]
    if not all(isinstance(p.exponent, int) for p in parts):
        return TEXT
    scale = max(0, *(-int(p.exponent) for p in parts)) if parts else 0
    whole = max(len(p.digits) + int(p.exponent) for p in parts)
    return f"DECIMAL({_MAX_DIGITS}, {scale})" if max(whole, 0) + scale <= _MAX_DIGITS else TEXT

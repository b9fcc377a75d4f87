"""One kind of value per column: DuckDB makes text of all values where a column has several kinds."""

from __future__ import annotations

import datetime
import math
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

_KINDS = {
    bool: "truth values",
    int: "numbers",
    float: "numbers",
    Decimal: "numbers",
    str: "text",
    bytes: "bytes",
    uuid.UUID: "UUIDs",
    datetime.date: "dates",
    datetime.time: "times",
    datetime.timedelta: "spans of time",
    list: "lists",
    dict: "dicts",
}
_DIFFER_INSIDE = (list, dict, datetime.datetime)  # two values of the type can be of two kinds


def one_kind(values: Sequence[Any]) -> Sequence[Any]:
    """Return plain values of one kind as DuckDB stores them unchanged; an absent value is of every kind.

    NaN is absent in a column of another kind than numbers, as pandas writes it. Dicts whose keys and kinds of values
    differ get every key, as DuckDB's own reader of JSON does it.

    Args:
        values: the values of one column, or of one place inside lists and dicts of it.

    Raises:
        TypeError: if the values are of several kinds. The message continues a sentence that names the column.
    """
    types = {type(value) for value in values} - {type(None)}
    if len(types) < 2 and types.isdisjoint(_DIFFER_INSIDE):
        return values
    examples: dict[str, Any] = {}
    for value in values:
        if not _is_absent(value):
            examples.setdefault(_kind(value), value)
    if len(examples) > 1:
        (first, a), (second, b), *_ = examples.items()
        raise TypeError(
            f"{first} and {second} ({a!r:.40} and {b!r:.40}), and a column is of one kind; make text of all, for "
            "example, or two columns"
        )
    if "numbers" not in examples:
        values = [None if _is_absent(value) else value for value in values]
    if "lists" in examples:
        one_kind([part for value in values if value is not None for part in value])
    return _with_same_keys(values) if "dicts" in examples else values


def _is_absent(value: Any) -> bool:
    """Return whether a value is None, or the NaN that pandas puts beside text."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _kind(value: Any) -> str:
    """Return the kind of a plain value in words."""
    if isinstance(value, datetime.datetime):
        return "time stamps without a time zone" if value.tzinfo is None else "time stamps with a time zone"
    if isinstance(value, os.PathLike):
        return "text"
    return _KINDS.get(type(value), type(value).__name__)


def _with_same_keys(values: Iterable[Mapping[Any, Any] | None]) -> Sequence[Any]:
    """Return dicts that all have every key, if the values of the keys are of several kinds.

    Raises:
        TypeError: if the values of one key are of several kinds.
    """
    given = list(values)
    keys = list(dict.fromkeys(key for value in given if value is not None for key in value))
    parts = {key: [None if value is None else value.get(key) for value in given] for key in keys}
    for key, column in parts.items():
        try:
            parts[key] = list(one_kind(column))
        except TypeError as e:
            raise TypeError(f"under the key {key!r} {e}") from e
    try:
        one_kind([part for column in parts.values() for part in column])
    except TypeError:
        return [None if value is None else {k: parts[k][n] for k in keys} for n, value in enumerate(given)]
    return [None if value is None else {k: parts[k][n] for k in value} for n, value in enumerate(given)]

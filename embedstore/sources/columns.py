"""The user's own columns of a source that has no table: values that turn up one item after the other."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from embedstore.sources.tables import InputTable
from embedstore.storage.column_names import find_column, name_problem, stored_name
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import object_array

RESERVED_PREFIX = "meta_"  # before a name that a column of the user's cannot have
FLUSH_ROWS = 4096
_EXACT_AS_DOUBLE = range(-(2**53), 2**53 + 1)
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
_LONG = "LONG"  # a BIGINT with values that a DOUBLE does not hold exactly


class CollectedColumns:
    """Values by uri and column.

    A column has the narrowest type of BOOLEAN, BIGINT, UBIGINT and DOUBLE that holds each of its values exactly,
    otherwise VARCHAR. Lists and objects are JSON text.
    """

    def __init__(self) -> None:
        self._tables = InputTable()
        self._tables.con.execute("CREATE TABLE collected (uri VARCHAR, name VARCHAR, value VARCHAR)")
        self._rows: list[tuple[str, str, str]] = []
        self._types: dict[str, str] = {}

    @property
    def columns(self) -> dict[str, str]:
        """The columns so far, name to DuckDB type."""
        return {name: "BIGINT" if kind == _LONG else kind for name, kind in self._types.items()}

    def add(self, uri: str, values: Mapping[str, Any]) -> None:
        """Add the values of one item; None is no value."""
        used: set[str] = set()
        for given, value in values.items():
            if value is None:
                continue
            name = self._name(given, used)
            used.add(name)
            kind, text = _typed(value)
            self._types[name] = _wider(self._types.get(name, kind), kind)
            self._rows.append((uri, name, text))
        if len(self._rows) >= FLUSH_ROWS:
            self._flush()

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` and the columns, typed."""
        self._flush()
        columns = "".join(
            f", max(value) FILTER (name = {quote_literal(name)})::{kind} AS {quote_identifier(name)}"
            for name, kind in self.columns.items()
        )
        self._tables.con.execute(
            f"COPY (SELECT uri{columns} FROM collected GROUP BY uri) TO {quote_literal(parquet)} (FORMAT parquet)"
        )

    def _name(self, given: str, used: Collection[str]) -> str:
        """Return the column for a name; it is changed if no column can have it, or another value of the item does."""
        name = stored_name(given)
        if name_problem(name):
            name = RESERVED_PREFIX + name.encode("unicode_escape").decode()
        column = find_column(name, self._types) or name
        return self._name(RESERVED_PREFIX + name, used) if column in used else column

    def _flush(self) -> None:
        """Insert the rows that were collected."""
        if self._rows:
            uris, names, values = zip(*self._rows, strict=True)
            chunk = {"uri": object_array(uris), "name": object_array(names), "value": object_array(values)}  # noqa: F841 - read by SQL
            self._tables.con.execute("INSERT INTO collected SELECT uri, name, value FROM chunk")
            self._rows.clear()


def _typed(value: Any) -> tuple[str, str]:
    """Return the narrowest type of a value and the value as text."""
    if isinstance(value, bool):
        return "BOOLEAN", str(value).lower()
    if isinstance(value, int):
        return _integer_type(value), str(value)
    if isinstance(value, float):
        return "DOUBLE", repr(value)
    return "VARCHAR", value if isinstance(value, str) else json.dumps(value)


def _integer_type(value: int) -> str:
    """Return the narrowest type of a whole number."""
    if value in _EXACT_AS_DOUBLE:
        return "BIGINT"
    return _LONG if value in _INT64 else "UBIGINT" if value in _UINT64 else "VARCHAR"


def _wider(one: str, other: str) -> str:
    """Return a type that holds the values of both as they were written."""
    if one == other:
        return one
    kinds = {one, other}
    if kinds == {"BIGINT", _LONG}:
        return _LONG
    return "DOUBLE" if kinds == {"BIGINT", "DOUBLE"} else "VARCHAR"

"""The values of a column of the items, by which an evaluation is split."""

from __future__ import annotations

from typing import NamedTuple

import duckdb

from embedstore.storage.column_names import find_item_column
from embedstore.storage.queries.features import absent_condition, text_or_null
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import column_types

_ORDERED_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "DATE", "TIME")
_TEXT_OF_NUMBERS = ("DATE", "TIME")


class SliceColumn(NamedTuple):
    """A column of the items whose values make slices.

    Attributes:
        name: the name of the column.
        kind: its DuckDB type.
    """

    name: str
    kind: str

    @property
    def is_ordered(self) -> bool:
        """Return whether the values are numbers or times, of which there may be as many as items."""
        return self.kind.removeprefix("U").startswith(_ORDERED_TYPES) and not self.is_nested

    @property
    def is_nested(self) -> bool:
        """Return whether an item may have several values."""
        return self.kind.endswith("]") or self.kind.startswith(("STRUCT", "MAP", "UNION"))

    @property
    def is_number(self) -> bool:
        """Return whether the values are numbers."""
        return self.is_ordered and not self.kind.startswith(_TEXT_OF_NUMBERS)


def slice_column(con: duckdb.DuckDBPyConnection, name: str) -> SliceColumn | None:
    """Return the column of a name, whatever its case, or None if the items have none."""
    types = column_types(con, "items")
    column = find_item_column(name, types)
    return None if column is None else SliceColumn(column, types[column])


def slice_values(con: duckdb.DuckDBPyConnection, column: SliceColumn, *, condition: str) -> dict[int, str | None]:
    """Return the value of each present item as text, None where it has none.

    Args:
        con: a reader's connection.
        column: the column.
        condition: SQL over ``items``.
    """
    value = text_or_null(column.name)
    return dict(con.execute(f"SELECT item, {value} FROM items WHERE present AND ({condition})").fetchall())


def median_value(con: duckdb.DuckDBPyConnection, column: SliceColumn, *, condition: str) -> str:
    """Return the middle value of a column of numbers or times, as text."""
    value = quote_identifier(column.name)
    row = con.execute(
        f"SELECT quantile_disc({value}, 0.5)::VARCHAR FROM items "
        f"WHERE present AND ({condition}) AND NOT {absent_condition(column.name)}"
    ).fetchone()
    return str(row[0]) if row else ""

"""The values of a column by which an evaluation is split into slices."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import duckdb

from embedstore.classify.data.label_text import NameCleaner
from embedstore.errors import LabelError, UnknownColumn, did_you_mean
from embedstore.storage import filters as item_filter
from embedstore.storage.queries.slices import SliceColumn, median_value, slice_column, slice_values
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import column_types
from embedstore.storage.storage import Storage
from embedstore.wording import counted

MAX_SLICES = 20  # a table that a person can read; with more slices the intervals of all pairs say little


@dataclass(frozen=True)
class SliceValues:
    """The value of each item.

    Attributes:
        column: the name of the column.
        by_item: the value of each item as text, None where it has none.
        notes: what a person should know about the values, one sentence each.
    """

    column: str
    by_item: dict[int, str | None]
    notes: tuple[str, ...] = ()


def load_slices(storage: Storage, by: str, *, where: str | None = None) -> SliceValues:
    """Load the values of a column; values that look equal are one, as for labels.

    Args:
        storage: the store.
        by: a column of the items.
        where: a filter, as in search.

    Raises:
        UnknownColumn: if the items have no such column, or the filter names an unknown one.
        BadFilter: if the filter is not valid.
        LabelError: if an item may have several values, or the column holds numbers or times with more than
            :data:`MAX_SLICES` values.
    """
    with storage.catalog.read() as con, item_filter.filter_errors(con, where):
        column = _column(con, by)
        condition = item_filter.compile_filter(con, where)
        values = slice_values(con, column, condition=condition)
        if column.is_ordered and len({v for v in values.values() if v is not None}) > MAX_SLICES:
            _refuse_many(column, values, median_value(con, column, condition=condition))
    names = NameCleaner("value")
    cleaned = {item: names.clean(value) for item, value in values.items()}
    return SliceValues(column.name, cleaned, tuple(names.notes()))


def _column(con: duckdb.DuckDBPyConnection, name: str) -> SliceColumn:
    column = slice_column(con, name)
    if column is None:
        names = list(column_types(con, "items"))
        raise UnknownColumn(
            f"the items have no column {name!r}{did_you_mean(name, names)}; they have {', '.join(names)}"
        )
    if column.is_nested:
        raise LabelError(
            f"the column {column.name!r} holds {column.kind}, and an item would be in several slices; choose a column "
            "with one value per item"
        )
    return column


def _refuse_many(column: SliceColumn, values: dict[int, str | None], median: str) -> None:
    n_values = len({v for v in values.values() if v is not None})
    bound = median if column.is_number else quote_literal(median)
    assignment = shlex.quote(f"high_{column.name}={quote_identifier(column.name)} >= {bound}")
    raise LabelError(
        f"the column {column.name!r} holds {counted(n_values, 'different value')} of type {column.kind}, and there "
        "are at most "
        f"{MAX_SLICES} slices; make a column of ranges, for example "
        f"`embedstore edit STORE --where true --add-columns --set {assignment}`, and give its name"
    )

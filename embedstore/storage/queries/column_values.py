"""The values of the columns of the items, and the sizes of their pictures, to compare them with a label."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage.column_names import ITEM_COLUMNS
from embedstore.storage.queries.features import absent_condition, text_or_null
from embedstore.storage.queries.slices import SliceColumn
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import column_types

_TIME_FORMATS = "['%Y:%m:%d %H:%M:%S', '%Y:%m:%d', '%d.%m.%Y', '%m/%d/%Y']"  # the first two are those of EXIF
_MOSTLY = 0.95  # of the texts of a column that must be times, so that all are
_SIZES = "c.width::DOUBLE, c.height::DOUBLE, i.size::DOUBLE"
SIZE_NAMES = ("width", "height", "size")


def comparable_columns(con: duckdb.DuckDBPyConnection, label: str) -> list[SliceColumn]:
    """Return the split and the user's own columns that have one value per item, without the label."""
    columns = [SliceColumn(name, kind) for name, kind in column_types(con, "items").items()]
    usable = [c for c in columns if c.name == "split" or c.name not in ITEM_COLUMNS]
    return [c for c in usable if c.name.casefold() != label.casefold() and not c.is_nested and c.kind != "BLOB"]


def column_values(con: duckdb.DuckDBPyConnection, column: SliceColumn, items: NDArray[np.int64]) -> NDArray[Any]:
    """Return the value of each item: float64 of numbers and times, NaN where there is none; else text and None.

    Args:
        con: a reader's connection.
        column: the column. Texts are times if nearly all of them are.
        items: the ids of present items.
    """
    name, is_absent = quote_identifier(column.name), absent_condition(column.name)
    if column.is_ordered:
        value = f"{name}::DOUBLE" if column.is_number else f"epoch({name})"
        return _numbers(_fetch(con, f"CASE WHEN {is_absent} THEN NULL ELSE {value} END", items))
    text = text_or_null(column.name)
    texts = _fetch(con, text, items)
    times = _fetch(con, f"epoch(coalesce(TRY_CAST({text} AS TIMESTAMP), try_strptime({text}, {_TIME_FORMATS})))", items)
    n_texts, n_times = (sum(value is not None for value in values) for values in (texts, times))
    return _numbers(times) if n_times and n_times >= _MOSTLY * n_texts else np.array(texts, dtype=object)


def picture_sizes(con: duckdb.DuckDBPyConnection, items: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return width and height in pixels, and the bytes of the file, of each item by name; NaN where unknown."""
    wanted = {"item": items, "n": np.arange(len(items))}  # noqa: F841 - read by SQL
    rows = con.execute(
        f"SELECT {_SIZES} FROM wanted w JOIN items i ON i.item = w.item LEFT JOIN contents c ON c.content = i.content "
        "ORDER BY w.n"
    ).fetchall()
    return dict(zip(SIZE_NAMES, map(_numbers, zip(*rows, strict=True)), strict=True)) if rows else {}


def _fetch(con: duckdb.DuckDBPyConnection, value: str, items: NDArray[np.int64]) -> list[Any]:
    """Return the value of SQL over the columns of the items, for each item in order."""
    wanted = {"item": items}  # noqa: F841 - read by SQL
    rows = con.execute(f"SELECT item, {value} FROM items WHERE item IN (SELECT item FROM wanted)").fetchall()
    by_item = dict(rows)
    return [by_item.get(item) for item in items.tolist()]


def _numbers(values: Iterable[Any]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)

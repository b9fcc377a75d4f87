"""Tables in memory: a dict of columns, a DataFrame of pandas or polars, an Arrow table; their types are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest
from embedstore.sources.delimited import column_names
from embedstore.storage.sql import object_array


def is_frame(value: Any) -> bool:
    """Return whether a value is a table in memory, and not a path or a sequence of paths."""
    if isinstance(value, str | bytes | os.PathLike):
        return False
    return isinstance(value, Mapping) or hasattr(value, "__arrow_c_stream__") or hasattr(value, "__dataframe__")


def as_frame(table: Any) -> Any:
    """Return a dict of columns as arrays that DuckDB reads, and any other table unchanged.

    Raises:
        BadManifest: if the columns differ in length, or two have the same name.
    """
    if not isinstance(table, Mapping):
        return table
    columns = dict(zip(column_names([str(k) for k in table], "the table"), map(_array, table.values()), strict=True))
    lengths = {k: len(v) for k, v in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadManifest(f"the table's columns differ in length: {lengths}")
    return columns


def frame_columns(frame: Any) -> list[str]:
    """Return the names of a table's columns as they are given, also where two are equal."""
    if isinstance(frame, Mapping):
        return [str(name) for name in frame]
    names = getattr(frame, "column_names", None)  # of an Arrow table, whose ``columns`` are the values
    return [str(name) for name in (getattr(frame, "columns", ()) if names is None else names)]


def _array(values: Any) -> NDArray[Any]:
    """Return a column as an array; a list keeps each value as it is, where NumPy would find one type for all."""
    if isinstance(values, np.ma.MaskedArray):
        return object_array(values.tolist())  # masked values become None
    if hasattr(values, "__array__"):
        array = np.asarray(values)
        return array.astype(object) if array.dtype.kind in "US" else array
    values = list(values)
    for kind, dtype in ((bool, np.bool_), (int, np.int64), (float, np.float64)):
        if values and all(type(v) is kind for v in values):
            try:
                return np.array(values, dtype=dtype)
            except OverflowError:  # an integer beyond 64 bits
                break
    return object_array(values)

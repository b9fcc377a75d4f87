"""Tables in memory: a dict of columns, a DataFrame of pandas or polars, an Arrow table; their types are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest
from embedstore.plain_values import plain_values
from embedstore.sources.delimited import column_names
from embedstore.sources.value_kinds import one_kind
from embedstore.storage.sql import object_array


def is_frame(value: Any) -> bool:
    """Return whether a value is a table in memory, and not a path or a sequence of paths."""
    if isinstance(value, str | bytes | os.PathLike):
        return False
    has_columns = any(hasattr(value, name) for name in ("columns", "column_names", "schema"))  # unlike a column alone
    is_arrow = hasattr(value, "__arrow_c_stream__") and has_columns
    return isinstance(value, Mapping) or is_arrow or hasattr(value, "__dataframe__")


def as_frame(table: Any) -> Any:
    """Return a dict of columns as arrays that DuckDB reads, and any other table unchanged.

    Raises:
        BadManifest: if the columns differ in length, two have the same name, or a value is of a kind that a table
            cannot hold.
    """
    if not isinstance(table, Mapping):
        return _with_plain_values(table)
    names = column_names([str(k) for k in table], "the table")
    columns = {name: _array(values, name) for name, values in zip(names, table.values(), strict=True)}
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


def _with_plain_values(frame: Any) -> Any:
    """Return a DataFrame of pandas whose columns of objects hold plain values; any other table unchanged."""
    kinds = getattr(frame, "dtypes", None)
    if not hasattr(frame, "iloc") or kinds is None:
        return frame
    objects = [n for n, kind in enumerate(kinds) if isinstance(kind, np.dtype) and kind.kind == "O"]
    if not objects:
        return frame
    frame = frame.copy(deep=False)
    for n in objects:
        name = frame.columns[n]
        values = _plain(frame.iloc[:, n].array, str(name))
        frame[name] = values if isinstance(values, np.ndarray) else object_array(values)
    return frame


def _array(values: Any, name: str) -> NDArray[Any]:
    """Return a column as an array; a list keeps each value as it is, where NumPy would find one type for all."""
    if isinstance(values, np.ma.MaskedArray):
        return object_array(values.tolist())  # masked values become None
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise BadManifest(f"the table's column {name!r} is of the type {type(values).__name__}; give one value per row")
    array = np.asarray(values) if _is_exact_in_numpy(values) else None
    if array is None or array.ndim != 1 or array.dtype.kind in "USO":
        array = _typed(_plain(_as_list(values), name))
    return array


def _plain(values: Iterable[Any], name: str) -> list[Any] | NDArray[Any]:
    """Return the values of a column as plain ones of one kind.

    Raises:
        BadManifest: if one is of a type that a table cannot hold, or they are of several kinds.
    """
    try:
        plain = plain_values(values)
        return plain if isinstance(plain, np.ndarray) else list(one_kind(plain))
    except TypeError as e:
        raise BadManifest(f"the table's column {name!r} has {e}") from e


def _is_exact_in_numpy(values: Any) -> bool:
    """Return whether NumPy's array of a column holds its values; integers beside absent ones would be floats."""
    if type(values).__module__.startswith(("polars", "pyarrow")) or hasattr(values, "detach"):
        return False
    return hasattr(values, "__array__") and isinstance(getattr(values, "dtype", None), np.dtype)


def _as_list(values: Any) -> list[Any]:
    """Return the values of a column as the library that made it hands them over."""
    for method in ("to_pylist", "to_list", "tolist"):  # Arrow; polars and pandas; NumPy and PyTorch
        if hasattr(values, method):
            return list(getattr(values, method)())
    return list(values)


def _typed(values: list[Any] | NDArray[Any]) -> NDArray[Any]:
    """Return values of one type as an array of it, others as objects."""
    if isinstance(values, np.ndarray):
        return values
    for kind, dtype in ((bool, np.bool_), (int, np.int64), (float, np.float64)):
        if values and all(type(v) is kind for v in values):
            try:
                return np.array(values, dtype=dtype)
            except OverflowError:  # an integer beyond 64 bits
                break
    return object_array(values)

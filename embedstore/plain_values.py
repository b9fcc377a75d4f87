"""Plain values of columns and queries: scalars of NumPy, PyTorch, Arrow and pandas become Python's own.

DuckDB makes text of an object that it does not know, so that ``[np.int64(5)]`` would be the text ``5``.
"""

from __future__ import annotations

import datetime
import os
import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOMENTS = (datetime.date, datetime.time, datetime.timedelta)
_PLAIN = frozenset(
    [str, int, float, bool, bytes, type(None), Decimal, uuid.UUID, datetime.datetime, *_MOMENTS]
)  # DuckDB knows them
_ABSENT = ("NAType", "NaTType")  # of pandas


def plain_values(values: Iterable[Any]) -> list[Any] | NDArray[Any]:
    """Return the values of a column as Python's own, or as an array of moments that Python cannot hold.

    Args:
        values: the values of one column, one per row.

    Raises:
        TypeError: if a value is of a type that a table cannot hold, such as a set or a complex number. The message
            continues a sentence that names the column.
    """
    given = list(values)
    kinds = {type(value) for value in given}
    if kinds <= _PLAIN:
        return given
    if any(kind.__name__ == "Timestamp" and kind.__module__.startswith("pandas") for kind in kinds):
        given = [_numpy_moment(value) for value in given]
        kinds = {type(value) for value in given}
    for scalar in (np.datetime64, np.timedelta64):
        if scalar in kinds and all(kind is scalar or _is_absent(kind) for kind in kinds):
            return _moments(given, scalar)
    return [plain_value(value) for value in given]


def plain_value(value: Any) -> Any:
    """Return a value as one of Python's own types.

    Raises:
        TypeError: see :func:`plain_values`.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if _is_absent(kind):
        return None
    if isinstance(value, list | tuple):
        return [plain_value(part) for part in value]
    if isinstance(value, Mapping):
        return {key: plain_value(part) for key, part in value.items()}
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _moment(value)
    if isinstance(value, np.number | np.bool_) and not isinstance(value, np.complexfloating | np.longdouble):
        return value.item()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (os.PathLike, bytes, Decimal, uuid.UUID, *_MOMENTS)):
        return value
    if hasattr(value, "as_py"):  # a scalar of Arrow
        return plain_value(value.as_py())
    if hasattr(value, "__array__") and not isinstance(value, np.generic):  # an array or a tensor of any device
        return plain_value(value.tolist())
    raise TypeError(
        f"a value of the type {kind.__name__}, which a table cannot hold; give text, numbers, truth values, dates, "
        "bytes, lists or dicts"
    )


def _is_absent(kind: type) -> bool:
    return kind is type(None) or kind.__name__ in _ABSENT


def _moment(value: np.datetime64 | np.timedelta64) -> Any:
    """Return one moment or span of NumPy's as Python's, which counts microseconds.

    Raises:
        TypeError: if Python has no such moment, in which case NumPy would return a number.
    """
    plain = value if np.datetime_data(value.dtype)[0] != "ns" else value.astype(value.dtype.str.replace("ns", "us"))
    moment = plain.item()
    if isinstance(moment, int) or (moment is not None and plain != value):
        raise TypeError(f"the value {value!r}, which Python's dates and times do not hold; write it as text")
    return moment


def _numpy_moment(value: Any) -> Any:
    """Return a time stamp of pandas, which counts nanoseconds, as NumPy's; one with a time zone as it is."""
    if _is_absent(type(value)):
        return None
    is_exact = getattr(value, "tzinfo", None) is None and hasattr(value, "to_datetime64")
    return value.to_datetime64() if is_exact else value


def _moments(values: list[Any], scalar: type[np.datetime64] | type[np.timedelta64]) -> NDArray[Any] | list[Any]:
    """Return moments or spans of NumPy's as one array of a unit that DuckDB has; days as dates."""
    array = np.array([scalar("NaT") if _is_absent(type(value)) else value for value in values])
    unit, _ = np.datetime_data(array.dtype)
    if scalar is np.datetime64 and unit in ("Y", "M", "W", "D"):
        return list(array.astype("datetime64[D]").tolist())
    if unit in ("s", "ms", "us", "ns"):
        return array
    return array.astype(f"{'datetime64' if scalar is np.datetime64 else 'timedelta64'}[s]")

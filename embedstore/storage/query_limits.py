"""Limits of time and memory for text that a user wrote as SQL. DuckDB is not imported here."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from embedstore.errors import BadOption, QueryError
from embedstore.resources import memory_share

QUERY_SECONDS = 20.0  # a writer waits up to 30 s for its turn at the catalog
QUERY_MEMORY_BYTES = 1 << 30
FILTER_SECONDS = 300.0  # for the whole query that the filter is part of
FILTER_VARIABLE = "EMBEDSTORE_FILTER_TIMEOUT"

_seconds_here: ContextVar[float | None] = ContextVar("embedstore_filter_seconds", default=None)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(size: str | int) -> int:
    """Return the bytes of ``4GB``, ``500 MB``, ``1.5G`` or a number.

    Raises:
        QueryError: if it is not a size.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?)i?B?\s*", str(size), re.IGNORECASE)
    try:
        return int(float(match[1]) * _UNITS[match[2].upper()]) if match else int(size)
    except ValueError:
        raise QueryError(f"a size is written as 4GB or 500MB, not {size!r}") from None


def size_text(size: int) -> str:
    """Return a number of bytes as :func:`parse_size` reads it, such as ``4GB``."""
    unit = max((u for u in _UNITS if size >= _UNITS[u]), key=_UNITS.__getitem__, default="")
    return f"{size / _UNITS[unit]:.3g}{unit}B"


@dataclass(frozen=True)
class QueryLimits:
    """How much one query may take.

    Attributes:
        seconds: the limit of time.
        memory: such as ``1GB``, or bytes: what DuckDB may hold, and what the rows of the result may take in Python.
            None is 1 GiB, or a quarter of the memory of this process where that is less.

    Raises:
        BadOption: if one of them is not a positive number.
        QueryError: if the memory is not a size.
    """

    seconds: float = QUERY_SECONDS
    memory: str | int | None = None

    def __post_init__(self) -> None:
        if not (_is_positive(self.seconds) and self.seconds <= threading.TIMEOUT_MAX):
            raise BadOption(f"the time limit of a query is a number of seconds above 0, not {self.seconds!r}")
        if self.memory_bytes <= 0:
            raise BadOption(f"the memory limit of a query is a size above 0 like 1GB, not {self.memory!r}")

    @property
    def memory_bytes(self) -> int:
        """The memory limit in bytes."""
        return memory_share(QUERY_MEMORY_BYTES, 4) if self.memory is None else parse_size(self.memory)


@contextmanager
def limited_filters(seconds: float) -> Iterator[None]:
    """Set the time limit of the filters of this block and thread; the environment variable outweighs it."""
    token = _seconds_here.set(seconds)
    try:
        yield
    finally:
        _seconds_here.reset(token)


def filter_seconds() -> float:
    """Return the time limit of a filter: the environment variable ``EMBEDSTORE_FILTER_TIMEOUT``, or that of the block.

    Raises:
        BadOption: if the variable is not a positive number.
    """
    here, text = _seconds_here.get(), os.environ.get(FILTER_VARIABLE)
    if text is None:
        return FILTER_SECONDS if here is None else here
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (_is_positive(seconds) and seconds <= threading.TIMEOUT_MAX):
        raise BadOption(f"{FILTER_VARIABLE} is a number of seconds above 0, not {text!r}; unset it, or set it to 300")
    return seconds


def python_bytes(value: Any) -> int:
    """Return about how much memory a value of a result takes."""
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(python_bytes(k) + python_bytes(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return sys.getsizeof(value) + sum(map(python_bytes, value))
    return sys.getsizeof(value)


def _is_positive(number: float) -> bool:
    """Return whether a number is finite and above 0."""
    return math.isfinite(number) and number > 0

"""The columns that hits show, in memory: a look-up takes microseconds, by SQL milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage.queries import search as queries

_FETCH_ROWS = 65536  # values that are Python objects at a time
_NUMBERS = frozenset("BOOLEAN TINYINT SMALLINT INTEGER BIGINT UTINYINT USMALLINT UINTEGER UBIGINT FLOAT DOUBLE".split())

ColumnReader = Callable[[Sequence[int]], list[Any]]  # values of a column at some places


class ColumnCache:
    """Some columns of the present items.

    Text is stored as UTF-8 with nine more bytes per value, numbers as arrays; other types (dates, decimals, lists) are
    stored as Python objects. A million items with short paths and a number took 74 MB.

    Args:
        con: the open catalog.
        columns: names of columns; the first is ``item``.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> None:
        types = queries.item_columns(con)
        self._items = queries.present_items(con)
        self._readers = [_column_reader(con, name, types[name]) for name in columns]

    def rows(self, items: NDArray[np.int64]) -> list[queries.Row]:
        """Return the columns of some present items, in their order."""
        places = np.searchsorted(self._items, items).tolist()
        return list(zip(*(read(places) for read in self._readers), strict=True))


def _column_reader(con: duckdb.DuckDBPyConnection, name: str, kind: str) -> ColumnReader:
    """Load one column, ordered by ascending item."""
    cursor = queries.read_column(con, name)
    if cursor is None:
        return lambda places: [None] * len(places)
    if kind == "VARCHAR":
        return _text_reader(cursor)
    if kind in _NUMBERS:
        numbers = cursor.fetchnumpy()["v"]  # a masked array where there are NULLs; tolist() gives None for them
        return lambda places: list(numbers[places].tolist())
    values = [value for (value,) in cursor.fetchall()]
    return lambda places: [values[p] for p in places]


def _text_reader(cursor: duckdb.DuckDBPyConnection) -> ColumnReader:
    """Load a column of text."""
    parts, lengths, nulls = list[bytes](), [np.zeros(1, np.int64)], list[NDArray[np.bool_]]()
    while rows := cursor.fetchmany(_FETCH_ROWS):
        encoded = [b"" if text is None else text.encode() for (text,) in rows]
        parts.append(b"".join(encoded))
        lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        nulls.append(np.fromiter((text is None for (text,) in rows), np.bool_, len(rows)))
    data, starts, is_null = b"".join(parts), np.cumsum(np.concatenate(lengths)), np.concatenate(nulls)

    def read(places: Sequence[int]) -> list[str | None]:
        at = np.asarray(places, np.int64)
        spans = zip(starts[at].tolist(), starts[at + 1].tolist(), is_null[at].tolist(), strict=True)
        return [None if missing else data[begin:end].decode() for begin, end, missing in spans]

    return read

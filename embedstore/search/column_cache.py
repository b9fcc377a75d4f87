"""What hits show of the items, column by column in memory: a look-up takes microseconds, one by SQL milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage.sql import first_row, quote_identifier

_PART = 65536  # values that are Python's at a time
_NUMBERS = frozenset("BOOLEAN TINYINT SMALLINT INTEGER BIGINT UTINYINT USMALLINT UINTEGER UBIGINT FLOAT DOUBLE".split())

ColumnReader = Callable[[Sequence[int]], list[Any]]  # a column's, at some places


class ColumnCache:
    """Columns of the present items.

    Texts are kept as UTF-8 and nine bytes more, numbers as arrays; what is neither (dates, decimals, lists) is kept as
    Python's own objects. A million items with short paths and a number took 74 MB.

    Args:
        con: a reader. columns: of the items; the first is ``item``.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, columns: Sequence[str]) -> None:
        kinds = {name: kind for name, kind, *_ in con.execute("DESCRIBE items").fetchall()}
        found = con.execute("SELECT item FROM items WHERE present ORDER BY item").fetchnumpy()
        self._items: NDArray[np.int64] = np.asarray(found["item"], np.int64)
        self._values = [_column(con, name, kinds[name]) for name in columns]

    def rows(self, items: NDArray[np.int64]) -> list[tuple[Any, ...]]:
        """A row of the columns for each of some items, which must be present, in their order."""
        places = np.searchsorted(self._items, items).tolist()
        return list(zip(*(values(places) for values in self._values), strict=True))


def _column(con: duckdb.DuckDBPyConnection, name: str, kind: str) -> ColumnReader:
    """One column, by place among the present items in ascending order."""
    column = quote_identifier(name)
    if not first_row(con.execute(f"SELECT count({column}) FROM items WHERE present"))[0]:
        return lambda places: [None] * len(places)
    found = con.execute(f"SELECT {column} AS v FROM items WHERE present ORDER BY item")
    if kind == "VARCHAR":
        return _texts(found)
    if kind in _NUMBERS:
        numbers = found.fetchnumpy()["v"]  # masked where there are NULLs, and these become None
        return lambda places: list(numbers[places].tolist())
    kept = [value for (value,) in found.fetchall()]
    return lambda places: [kept[p] for p in places]


def _texts(found: duckdb.DuckDBPyConnection) -> ColumnReader:
    """A column of text."""
    parts, lengths, nulls = list[bytes](), [np.zeros(1, np.int64)], list[NDArray[np.bool_]]()
    while rows := found.fetchmany(_PART):
        encoded = [b"" if text is None else text.encode() for (text,) in rows]
        parts.append(b"".join(encoded))
        lengths.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        nulls.append(np.fromiter((text is None for (text,) in rows), np.bool_, len(rows)))
    data, starts, null = b"".join(parts), np.cumsum(np.concatenate(lengths)), np.concatenate(nulls)

    def at(places: Sequence[int]) -> list[str | None]:
        there = np.asarray(places, np.int64)
        ends = zip(starts[there].tolist(), starts[there + 1].tolist(), null[there].tolist(), strict=True)
        return [None if missing else data[begin:end].decode() for begin, end, missing in ends]

    return at

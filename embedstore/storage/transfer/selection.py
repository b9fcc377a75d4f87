"""The items that an export writes, with their vectors: numbered once, then read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import MissingExtra, QueryError
from embedstore.storage import filters
from embedstore.storage.column_names import shown_names
from embedstore.storage.connection import disk_connection
from embedstore.storage.python_values import execute_exact
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import column_types, content_hex, decode_path, fetch_column, fetch_value
from embedstore.storage.storage import Storage
from embedstore.storage.transfer.parquet import BLOCK_ROWS, NumberedVectors, portable_columns

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Record = dict[str, Any]
RANGE_ITEMS = 1 << 15  # ids in one range, at least
MAX_RANGES = 64
SELECTION_BYTES = 128_000_000  # of the selected rows in memory; the rest is on the disk


@dataclass(frozen=True, slots=True)
class ItemFile:
    """Where the image of an item is.

    Attributes:
        uri: the uri of the item.
        path: what it is read from.
        content: the digest of its bytes, 32 hexadecimal digits; None if the vector was imported without a file.
        format: the name of the image's format, as items show it; None if it is not known.
    """

    uri: str
    path: str
    content: str | None
    format: str | None


@dataclass(frozen=True)
class ItemBlock:
    """Neighboring items of an export.

    Attributes:
        first: the number of the first item.
        vectors: as they are stored, float16 or float32 ``(b, dim)``.
    """

    first: int
    vectors: NDArray[np.floating[Any]]

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class SelectedItems:
    """The items to export, in a table whose columns cannot be confused with the user's.

    Attributes:
        columns: the column ``c0``, ``c1``, … of each column of the items.
        vectors: the vectors of the items; its table also has these columns.
    """

    columns: Mapping[str, str]
    vectors: NumberedVectors

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.vectors.reader.dim

    def query(self, *, beside: Sequence[str] = (), without: Sequence[str] = ()) -> str:
        """Return SQL for the rows of the items in their order, under names that are kept apart from other columns.

        Args:
            beside: columns that the format adds.
            without: columns of the items that are left out.
        """
        return f"SELECT {self.select(beside=beside, without=without)} FROM {self.vectors.table} t ORDER BY t.n"

    def select(self, *, beside: Sequence[str] = (), without: Sequence[str] = ()) -> str:
        """Return the columns of the items as SQL after ``SELECT``; see :meth:`query`."""
        kept = {column: c for column, c in self.columns.items() if column not in without}
        names = shown_names(kept, beside)
        return ", ".join(f"t.{c} AS {quote_identifier(names[column])}" for column, c in kept.items())

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[ItemBlock]:
        """Yield the items in blocks of at most ``rows``."""
        return map(self.block, self.vectors.split(rows))

    def block(self, part: NumberedVectors) -> ItemBlock:
        """Return the items of a range of the vectors."""
        return ItemBlock(part.begin, part.read_stored())

    def records(self, block: ItemBlock, *, beside: Sequence[str] = (), without: Sequence[str] = ()) -> list[Record]:
        """Return the columns of every item of a block, by name."""
        result = execute_exact(self.vectors.con, self.rows(self.select(beside=beside, without=without), block))
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def files(self, block: ItemBlock) -> list[ItemFile]:
        """Return where the image of every item of a block is."""
        uri, content = self.columns["uri"], self.columns["content"]
        select = f"t.{uri}, t.path, t.{content}::VARCHAR, t.from_file, t.format"
        return [
            ItemFile(name, decode_path(name, path), content_hex(digest) if from_file else None, image_format)
            for name, path, digest, from_file, image_format in self.vectors.con.execute(
                self.rows(select, block)
            ).fetchall()
        ]

    def arrow(self, *, beside: Sequence[str] = (), without: Sequence[str] = ()) -> ArrowItems:
        """Return the columns of the items as Arrow reads them; see :meth:`query`.

        Raises:
            MissingExtra: if pyarrow is not installed.
        """
        try:
            import pyarrow  # noqa: F401 - DuckDB needs it
        except ImportError as e:
            raise MissingExtra("pyarrow is not installed; run `pip install 'embedstore[frames]'`") from e
        select = self.select(beside=beside, without=without)
        return ArrowItems(
            self, select, portable_columns(self.vectors.con, f"SELECT {select} FROM {self.vectors.table} t")
        )

    def types(self) -> dict[str, str]:
        """Return the DuckDB type of each column of the items, by name."""
        found = column_types(self.vectors.con, self.vectors.table)
        return {column: found[c] for column, c in self.columns.items()}

    def values(self, column: str) -> list[str]:
        """Return the values that a column has, in their order, without NULL."""
        c = self.columns[column]
        return fetch_column(
            self.vectors.con, f"SELECT DISTINCT {c} FROM {self.vectors.table} WHERE {c} IS NOT NULL ORDER BY {c}"
        )

    def rows(self, select: str, block: ItemBlock) -> str:
        """Return SQL for the items of a block in their order."""
        end = block.first + len(block)
        return f"SELECT {select} FROM {self.vectors.table} t WHERE t.n >= {block.first} AND t.n < {end} ORDER BY t.n"


@dataclass(frozen=True)
class ArrowItems:
    """The columns of selected items as Arrow tables; types that Arrow or Parquet lacks are text.

    Attributes:
        selected: the items.
        select: the columns, as SQL after ``SELECT``.
        exact: those with another type, as SQL after ``REPLACE``; may be empty.
    """

    selected: SelectedItems
    select: str
    exact: str

    def table(self, block: ItemBlock) -> pa.Table:
        """Return the rows of a block."""
        rows = self.selected.rows(self.select, block)
        query = f"SELECT * REPLACE ({self.exact}) FROM ({rows})" if self.exact else rows
        return self.selected.vectors.con.cursor().sql(query).to_arrow_table()


@contextmanager
def select_items(storage: Storage, space: SpaceRecord, where: str | None) -> Iterator[SelectedItems]:
    """Number the present items that have a vector and match, ordered by item; they stay as they are meanwhile.

    Args:
        storage: the store.
        space: the space of the vectors.
        where: a filter, as in search; None selects every item.

    Yields:
        At least one item.

    Raises:
        QueryError: if no item matches.
        BadFilter: if the filter is not valid SQL.
        UnknownColumn: if the filter names a column that does not exist.
    """
    with disk_connection("selected", SELECTION_BYTES) as con:
        selected = _select(storage, space, where, con)
        if not len(selected):
            raise QueryError("nothing to export: no present item with a vector matches")
        yield selected


def _select(storage: Storage, space: SpaceRecord, where: str | None, own: duckdb.DuckDBPyConnection) -> SelectedItems:
    """Number the chosen items in a table of a connection and map their vector files, in one read of the catalog."""
    table = "selected.main.items"
    with storage.catalog.read(own) as con, filters.filter_errors(con, where):
        condition = filters.compile_filter(con, where)
        columns = {name: f"c{n}" for n, name in enumerate(column_types(con, "items")) if name != "path"}
        values = ", ".join(f"i.{quote_identifier(name)} AS {c}" for name, c in columns.items())
        select = _SELECT.format(condition=condition, values=values)
        con.execute(f"CREATE TABLE {table} AS {select} LIMIT 0", {"space": space.key, "count": 0, "first": 0, "end": 0})
        count = 0
        for items in _item_ranges(con):
            parameters = {"space": space.key, "count": count, "first": items.start, "end": items.stop}
            count += int(fetch_value(con, f"INSERT INTO {table} {select}", parameters))
        con.execute("CHECKPOINT selected")
        shards = fetch_column(con, f"SELECT DISTINCT shard FROM {table}")
        reader = storage.vector_reader_in(con, space.space).map_shards(np.array(shards, np.int64))
    return SelectedItems(columns, NumberedVectors(own, table, reader, 0, count))


def _item_ranges(con: duckdb.DuckDBPyConnection) -> Iterator[range]:
    """Yield ranges of ids that cover all items: joins and sorts take the memory of one range.

    Every range looks through the places of all vectors, so there are a few ranges, whatever the number of items is.
    """
    low, high = con.execute("SELECT coalesce(min(item), 0), coalesce(max(item), -1) FROM items").fetchall()[0]
    size = max(RANGE_ITEMS, -(-(high - low + 1) // MAX_RANGES))
    yield from (range(first, first + size) for first in range(low, high + 1, size))


_SELECT = """
SELECT $count::BIGINT + row_number() OVER (ORDER BY i.item) - 1 AS n, v.shard, v."row"::BIGINT AS "row", i.path,
    coalesce(c.bytes, 1) <> 0 AS from_file, c.format, {values}
FROM (SELECT * FROM items WHERE present AND item >= $first AND item < $end AND ({condition})) i
JOIN vectors v ON v.content = i.content AND v.space = $space
LEFT JOIN contents c ON c.content = i.content
ORDER BY n
"""

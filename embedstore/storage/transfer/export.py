"""Export items with the vectors of one space, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedstore.errors import QueryError
from embedstore.storage import filters
from embedstore.storage.column_names import shown_names
from embedstore.storage.durable_files import atomic_path, atomic_write
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import column_types, fetch_column, fetch_value, scratch_tables
from embedstore.storage.storage import Storage
from embedstore.storage.transfer.parquet import NumberedVectors, write_parquet


def export_items(storage: Storage, space: SpaceRecord, path: Path, *, where: str | None) -> int:
    """Write the present items that have a vector, ordered by item.

    Args:
        storage: the store.
        space: the space of the vectors.
        path: ``.parquet`` (every column of the items, and ``vector`` as a list of FLOAT; a column of the user's with
            that name is ``items.vector``), or ``.npy`` (float32
            ``(N, dim)``; the items go to a ``.parquet`` of the same name).
        where: a filter, as in search; None exports every item.

    Returns:
        The number of items, N.

    Raises:
        QueryError: if the suffix is another one, or no item matches.
        BadFilter: if the filter is not valid SQL.
        UnknownColumn: if the filter names a column that does not exist.
        OSError: if the disk refuses; a file that was at ``path`` is unchanged.
    """
    if path.suffix not in (".parquet", ".npy"):
        raise QueryError(f"export writes .parquet or .npy, or everything into a folder (no suffix), not {path.name!r}")
    with scratch_tables(storage.catalog.scratch, "exported_items") as (table,):
        selected = _select(storage, space, where, table)
        if not len(selected.vectors):
            raise QueryError("nothing to export: no present item with a vector matches")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path.with_suffix(".parquet")) as items:
            if path.suffix == ".parquet":
                selected.vectors.write_parquet(items, selected.items(beside=["vector"]))
            else:
                query = f"SELECT {selected.items()} FROM {table} t ORDER BY t.n"
                write_parquet(selected.vectors.con, query, items)
                _write_npy(path, selected.vectors)
    return len(selected.vectors)


@dataclass(frozen=True)
class _SelectedItems:
    """The items to export, in a table whose columns cannot be confused with the user's.

    Attributes:
        columns: the column ``c0``, ``c1``, … of each column of the items.
        vectors: the vectors of the items; its table also has these columns.
    """

    columns: Mapping[str, str]
    vectors: NumberedVectors

    def items(self, *, beside: Sequence[str] = ()) -> str:
        """Return every column of the items as SQL after ``SELECT``, kept apart from other columns of the file."""
        names = shown_names(self.columns, beside)
        return ", ".join(f"t.{c} AS {quote_identifier(names[column])}" for column, c in self.columns.items())


def _select(storage: Storage, space: SpaceRecord, where: str | None, table: str) -> _SelectedItems:
    """Number the chosen items and map their vector files, in one read of the catalog."""
    with storage.catalog.read() as con, filters.filter_errors(con, where):
        condition = filters.compile_filter(con, where)
        columns = {name: f"c{n}" for n, name in enumerate(column_types(con, "items")) if name != "path"}
        values = ", ".join(f"i.{quote_identifier(name)} AS {c}" for name, c in columns.items())
        con.execute(_SELECT.format(table=table, condition=condition, values=values), {"space": space.key})
        shards = fetch_column(con, f"SELECT DISTINCT shard FROM {table}")
        count = int(fetch_value(con, f"SELECT count(*) FROM {table}"))
        reader = storage.vector_reader_in(con, space.space).map_shards(np.array(shards, np.int64))
    return _SelectedItems(columns, NumberedVectors(storage.catalog.scratch, table, reader, 0, count))


def _write_npy(path: Path, selected: NumberedVectors) -> None:
    """Write the vectors as a float32 array of NumPy. A file that is mapped kills the process where the disk is full."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(selected), selected.reader.dim)}
    with atomic_write(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, block in selected.iter_blocks():
            file.write(np.ascontiguousarray(block, "<f4").data)


_SELECT = """
CREATE TABLE {table} AS
SELECT row_number() OVER (ORDER BY i.item) - 1 AS n, v.shard, v."row"::BIGINT AS "row", {values}
FROM (SELECT * FROM items WHERE present AND ({condition})) i
JOIN vectors v ON v.content = i.content AND v.space = $space
"""

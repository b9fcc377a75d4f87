"""Export items with the vectors of one space, in memory that does not grow with their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedstore.errors import QueryError
from embedstore.storage.connection import memory_limit
from embedstore.storage.durable_files import atomic_path, atomic_write
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.transfer.parquet import NumberedVectors, write_parquet
from embedstore.storage.transfer.selection import SelectedItems, select_items


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
    with select_items(storage, space, where) as selected:
        write_numbers(selected, path, with_vectors=True)
        return len(selected)


def write_numbers(selected: SelectedItems, path: Path, *, with_vectors: bool) -> None:
    """Write items to Parquet, or their vectors to ``.npy`` and the items to Parquet; see :func:`export_items`.

    Args:
        selected: the items.
        path: ``.parquet`` or ``.npy``.
        with_vectors: write the column ``vector`` of Parquet.

    Raises:
        OSError: if the disk refuses; a file that was at ``path`` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    selected.vectors.con.execute(f"SET memory_limit = '{memory_limit()}'")  # DuckDB's writer holds groups of rows
    with atomic_path(path.with_suffix(".parquet")) as items:
        if path.suffix == ".parquet" and with_vectors:
            selected.vectors.write_parquet(items, selected.select(beside=["vector"]))
        else:
            write_parquet(selected.vectors.con, selected.query(), items)
        if path.suffix == ".npy":
            _write_npy(path, selected.vectors)


def _write_npy(path: Path, selected: NumberedVectors) -> None:
    """Write the vectors as a float32 array of NumPy. A file that is mapped kills the process where the disk is full."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(selected), selected.reader.dim)}
    with atomic_write(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, block in selected.iter_blocks():
            file.write(np.ascontiguousarray(block, "<f4").data)

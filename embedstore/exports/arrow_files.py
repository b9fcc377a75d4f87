"""Arrow tables of items with their vectors, and the formats that are little more: Parquet, and Lance."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import MissingExtra, OutputError
from embedstore.exports.formats import ExportOptions, VectorType
from embedstore.storage.durable_files import atomic_write, sync_tree
from embedstore.storage.transfer.parquet import BLOCK_ROWS, NumberedVectors
from embedstore.storage.transfer.selection import SelectedItems
from embedstore.threads import map_parts

if TYPE_CHECKING:
    import pyarrow as pa

WRITE_BATCH_VALUES = 1 << 16  # which pyarrow encodes at a time; a tenth faster than its default
VECTOR = "vector"  # the column of the vectors


def vector_column(vectors: NDArray[np.floating[Any]], vector_type: VectorType) -> pa.Array:
    """Return vectors ``(b, dim)`` as lists of a fixed size."""
    import pyarrow as pa

    numbers = np.ascontiguousarray(vectors, dtype=vector_type.value).ravel()
    kind = pa.from_numpy_dtype(numbers.dtype)
    flat = pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])  # `pa.array` would import pandas
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def write_parquet_vectors(selected: SelectedItems, path: Path, options: ExportOptions) -> int:
    """Write every column of the items, and ``vector`` as lists of a fixed size, to a Parquet file.

    Returns:
        How many items were written.

    Raises:
        MissingExtra: if pyarrow is not installed.
        OSError: if the disk refuses; a file that was at ``path`` is unchanged.
    """
    tables = _tables(selected, options)
    import pyarrow.parquet as pq

    first = next(tables)
    repeating = [name for name in first.schema.names if name != VECTOR]
    with (
        atomic_write(path) as file,  # a name may look like an address
        pq.ParquetWriter(
            file,
            first.schema,
            use_dictionary=repeating,  # vectors need neither a dictionary nor bounds
            write_statistics=repeating,
            write_batch_size=WRITE_BATCH_VALUES,
        ) as writer,
    ):
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
    return len(selected)


def write_lance(selected: SelectedItems, path: Path, options: ExportOptions) -> int:
    """Write the items as a table of LanceDB: a folder ``NAME.lance`` in the folder of the database.

    Returns:
        How many items were written.

    Raises:
        MissingExtra: if lancedb or pyarrow is not installed.
        OutputError: if there is something at ``path`` already.
        OSError: if the disk refuses; nothing is left of it.
    """
    lancedb = _import_lancedb()
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already; choose another name, or remove it")
    tables = _tables(selected, options)
    first = next(tables)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        for table in tables:
            yield from table.to_batches()

    database = path.with_name(f".{path.name}.{os.getpid()}.creating")
    shutil.rmtree(database, ignore_errors=True)
    try:
        database.mkdir(parents=True)  # before Lance, which reports what the system says in words of its own
        with _lance_errors(path):
            lancedb.connect(str(database)).create_table(path.stem, data=batches(), schema=first.schema)
        sync_tree(database)
        (database / path.name).rename(path)
    finally:
        shutil.rmtree(database, ignore_errors=True)
    return len(selected)


def _tables(selected: SelectedItems, options: ExportOptions) -> Iterator[pa.Table]:
    """Yield the items block by block, with their vectors if wanted; a few blocks are read ahead."""
    items = selected.arrow(beside=[VECTOR] if options.vectors else [])

    def table(part: NumberedVectors) -> pa.Table:
        block = selected.block(part)
        rows = items.table(block)
        if options.vectors:
            rows = rows.append_column(VECTOR, vector_column(block.vectors, options.vector_type))
        return rows

    return map_parts(table, selected.vectors.split(BLOCK_ROWS))


@contextmanager
def _lance_errors(path: Path) -> Iterator[None]:
    """Report that Lance could not write as :class:`OSError`, as every other writer does.

    Raises:
        OSError: if the disk is full or fails.
    """
    try:
        yield
    except RuntimeError as e:  # Lance raises no other type for what a file system says
        raise OSError(errno.EIO, " ".join(str(e).split())[:200], str(path)) from e


def _import_lancedb() -> Any:
    """Return the package; its log of ordinary events stays off the terminal."""
    os.environ.setdefault("LANCE_LOG", "error")
    try:
        import lancedb
    except ImportError as e:
        raise MissingExtra("lancedb is not installed; run `pip install 'embedstore[lance]'`") from e
    return lancedb

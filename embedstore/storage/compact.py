"""Merge small vector files, and drop the rows that the catalog does not refer to.

Files never change: new files are written, one transaction lets the catalog refer to them instead of the old ones, then
the old files are removed. A reader keeps what it has mapped. A crash before the transaction leaves copies, and a crash
after it leaves old files; the next writer registers or removes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.resources import memory_share
from embedstore.storage import connection, disk_errors, reading, shard
from embedstore.storage.catalog_errors import explain
from embedstore.storage.durable_files import atomic_path, sync_folder
from embedstore.storage.queries import shards
from embedstore.storage.queries.shards import ShardUsage
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.writer import Writer

MERGED_FILE_BYTES = 128 << 20  # of a merged file: compaction holds it in memory, and a thread scores it in 15 ms


def plan_compaction(files: Sequence[ShardUsage], max_rows: int) -> list[list[ShardUsage]]:
    """Return the files to rewrite, in groups of neighbors that become one new file.

    A file is left alone if all its rows are in use and it has no small neighbor to merge with.

    Args:
        files: the vector files of one space, by number.
        max_rows: the rows of a merged file.
    """
    groups: list[list[ShardUsage]] = []
    group: list[ShardUsage] = []
    for f in files:
        if f.referenced_rows == f.rows and f.referenced_rows > max_rows // 2:
            groups.append(group)
            group = []
            continue
        if sum(g.referenced_rows for g in group) + f.referenced_rows > max_rows:
            groups.append(group)
            group = []
        group.append(f)
    groups.append(group)
    return [g for g in groups if len(g) > 1 or (g and g[0].referenced_rows < g[0].rows)]


def compact(storage: Storage, writer: Writer, *, progress: Callable[[int], None] | None = None) -> dict[str, int]:
    """Drop the contents that no item has, then merge and clean the files of every space.

    Args:
        storage: the store.
        writer: the writer of the store.
        progress: called with the rows of every new file.

    Returns:
        ``{"files_before", "files_after", "rows_dropped", "bytes_freed"}``, all of vector files.

    Raises:
        StoreDamaged: if a vector file is missing or does not match its checksum, or a block of the catalog is damaged.
        StoreUnreadable: if a vector file cannot be read now.
        StoreIOError: if the disk is full or fails; every file that the catalog refers to is unchanged.
    """
    totals = {"files_before": 0, "files_after": 0, "rows_dropped": 0, "bytes_freed": 0}
    with writer.transaction() as con:
        shards.delete_unused_contents(con)
    for space in storage.spaces():
        files = _usage(storage, space)
        totals["files_before"] += len(files)
        for group in plan_compaction(files, max(1, memory_share(MERGED_FILE_BYTES, 8) // space.bytes_per_vector)):
            totals["rows_dropped"] += sum(f.rows - f.referenced_rows for f in group)
            totals["bytes_freed"] += _rewrite(storage, writer, space.key, [f.number for f in group])
            if progress is not None:
                progress(sum(f.referenced_rows for f in group))
        totals["files_after"] += len(_usage(storage, space))
    rewrite_catalog(writer)
    return totals


def rewrite_catalog(writer: Writer) -> None:
    """Write the rows of the catalog into a new file, which replaces it.

    DuckDB keeps deleted rows in its file: marked in blocks that are in use, and whole in free blocks.

    Raises:
        StoreDamaged: if a block of the catalog is damaged; it is unchanged.
        StoreIOError: if the disk is full or fails; the catalog is unchanged.
    """
    file = writer.layout.catalog
    writer.checkpoint()
    if reading.exists(writer.layout.wal):  # the disk has no room for a checkpoint, and so none for a second catalog
        return
    with disk_errors.disk_errors(f"rewrite {file}"), writer.catalog.exclusive(), atomic_path(file) as new:
        try:
            connection.copy_database(file, new)
        except duckdb.Error as e:
            raise explain(e, file, "read") from e


def _usage(storage: Storage, space: SpaceRecord) -> list[ShardUsage]:
    """Return the vector files of a space."""
    with storage.catalog.read() as con:
        return shards.shard_usage(con, space.key)


def _rewrite(storage: Storage, writer: Writer, space: str, numbers: list[int]) -> int:
    """Replace a group of files by one file of their rows in use, and return the freed bytes."""
    folder = storage.layout.shards_folder(space)
    paths = [storage.layout.shard_file(space, n) for n in numbers]
    size_before = sum(map(reading.file_size, paths))
    header = writer.replace_shards(space, numbers, *_used_rows(storage, space, numbers))
    writer.checkpoint()  # before the old files are removed: a lost log would refer to them again
    with disk_errors.disk_errors(f"remove vector files from {folder}"):
        for path in paths:
            path.unlink()
        sync_folder(folder)
    return size_before - (header.file_bytes if header else 0)


def _used_rows(storage: Storage, space: str, numbers: list[int]) -> tuple[NDArray[np.floating[Any]], list[str]]:
    """Return the vectors in use in some files, verified, and their contents."""
    with storage.catalog.read() as con:
        number_of_row, rows = shards.referenced_rows(con, space, numbers)
    vectors, digests = [], []
    for number in np.unique(number_of_row).tolist():
        file = shard.Shard(storage.layout.shard_file(space, number))
        file.verify()
        used = rows[number_of_row == number]
        vectors.append(file.vectors[used])
        digests.append(file.digests[used])
    if not vectors:
        return np.empty((0, 0), np.float32), []
    return np.concatenate(vectors), shard.hex_digests(np.concatenate(digests))

"""Small vector files merged into few, and rows that nothing refers to left behind.

Files never change: new ones are written, one transaction makes them count instead of the old, then the old are
removed. A reader keeps what it has mapped. A kill before the transaction leaves copies that the next writer enters or
removes; after it, old files that the next writer removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.storage import commit, disk_errors, recover, shard
from embedstore.storage.durable_files import sync_folder
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import first_row
from embedstore.storage.storage import Storage, Writer

MERGED_FILE_BYTES = 128 << 20  # of a merged file: what a compaction holds in memory, and a thread scores in 15 ms


@dataclass(frozen=True)
class ShardUsage:
    """One vector file: its number, its rows, and how many of them something refers to."""

    number: int
    rows: int
    referenced_rows: int


def plan_compaction(shards: Sequence[ShardUsage], max_rows: int) -> list[list[ShardUsage]]:
    """Which files to write anew, in groups of neighbours that become one file or, if large, a few.

    A file is left alone if all its rows are live and it has no small neighbour to merge with.

    Args:
        files: of one space, by number. most: rows of a merged file.
    """
    groups: list[list[ShardUsage]] = []
    run: list[ShardUsage] = []
    for f in [*shards, None]:
        if f is not None and (f.referenced_rows < f.rows or f.referenced_rows <= max_rows // 2):
            if run and sum(r.referenced_rows for r in run) + f.referenced_rows > max_rows:
                groups.append(run)
                run = []
            run.append(f)
            continue
        if run:
            groups.append(run)
            run = []
    return [g for g in groups if len(g) > 1 or g[0].referenced_rows < g[0].rows]


def compact(storage: Storage, writer: Writer, *, progress: Callable[[int], None] | None = None) -> dict[str, int]:
    """Merge and clean the files of every space, then forget contents that no item has.

    Args:
        storage, writer: the store, locked. report: called with the rows written so far.

    Returns:
        ``{"files_before", "files_after", "rows_dropped", "bytes_freed"}``.

    Raises:
        StoreIOError: the disk is full; every file that counts is as it was.
    """
    totals = {"files_before": 0, "files_after": 0, "rows_dropped": 0, "bytes_freed": 0}
    _drop_orphans(writer)
    for space in storage.spaces():
        files = _stored(storage, space)
        totals["files_before"] += len(files)
        for group in plan_compaction(files, max(1, MERGED_FILE_BYTES // space.bytes_per_vector)):
            totals["rows_dropped"] += sum(f.rows - f.referenced_rows for f in group)
            totals["bytes_freed"] += _rewrite(storage, writer, space, group)
            if progress is not None:
                progress(sum(f.referenced_rows for f in group))
        totals["files_after"] += len(_stored(storage, space))
    return totals


def _drop_orphans(writer: Writer) -> None:
    """Contents without items, and their vectors' rows."""
    with writer.transaction() as con:
        orphan = "content NOT IN (SELECT content FROM items WHERE content IS NOT NULL)"
        con.execute(f"DELETE FROM vectors WHERE {orphan}")
        con.execute(f"DELETE FROM contents WHERE {orphan}")


def _stored(storage: Storage, space: SpaceRecord) -> list[ShardUsage]:
    """The vector files of a space."""
    with storage.catalog.read() as con:
        rows = con.execute(
            'SELECT s.shard, s."rows", coalesce(v.live, 0) FROM shards s LEFT JOIN '
            "(SELECT shard, count(*) AS live FROM vectors WHERE space = $s GROUP BY shard) v USING (shard) "
            "WHERE s.space = $s ORDER BY s.shard",
            {"s": space.key},
        ).fetchall()
    return [ShardUsage(*row) for row in rows]


def _rewrite(storage: Storage, writer: Writer, space: SpaceRecord, group: Sequence[ShardUsage]) -> int:
    """One group: write, swap, remove. Bytes freed."""
    old = [f.number for f in group]
    paths = [storage.layout.shard_file(space.key, n) for n in old]
    before = sum(p.stat().st_size for p in paths)
    written = _write(storage, space, group)
    with writer.transaction() as con:
        con.execute("DELETE FROM vectors WHERE space = ? AND list_contains(?, shard)", [space.key, old])
        con.execute("DELETE FROM shards WHERE space = ? AND list_contains(?, shard)", [space.key, old])
        if written is not None:
            head, digests = written
            commit.insert_vectors(con, head, digests)
            con.execute("UPDATE counters SET next_shard = greatest(next_shard, ?)", [head.number + 1])
    # The old files go only when the swap no longer stands in the log alone: a lost log would name them again.
    recover.guarded_checkpoint(storage.layout, storage.catalog)
    with disk_errors.disk_errors(f"remove vector files from {storage.layout.shards_folder(space.key)}"):
        for path in paths:
            path.unlink()
        sync_folder(storage.layout.shards_folder(space.key))
    return before - (written[0].file_bytes if written else 0)


def _write(
    storage: Storage, space: SpaceRecord, group: Sequence[ShardUsage]
) -> tuple[shard.ShardHeader, list[str]] | None:
    """The live rows of a group as one new file; None if there are none."""
    with storage.catalog.read() as con:
        found = con.execute(
            'SELECT shard, "row"::BIGINT AS r FROM vectors WHERE space = ? AND list_contains(?, shard) '
            "ORDER BY shard, r",
            [space.key, [f.number for f in group]],
        ).fetchnumpy()
        number = int(first_row(con.execute("SELECT next_shard FROM counters"))[0])
    if not len(found["r"]):
        return None
    parts = list(_parts(storage, space, group, found["shard"], found["r"]))
    digests = np.concatenate([d for _, d in parts]).tobytes().hex()
    contents = [digests[i : i + 32] for i in range(0, len(digests), 32)]
    path = storage.layout.shard_file(space.key, number)
    vectors = np.concatenate([v for v, _ in parts])
    with disk_errors.disk_errors(f"write {path}"):
        return shard.write_shard(path, space=space.key, number=number, vectors=vectors, contents=contents), contents


def _parts(
    storage: Storage,
    space: SpaceRecord,
    group: Sequence[ShardUsage],
    shards: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
    """The live vectors and digests of each file, verified."""
    for f in group:
        source = shard.Shard(storage.layout.shard_file(space.key, f.number))
        source.verify()
        chosen = rows[shards == f.number]
        yield source.vectors[chosen], source.digests[chosen]

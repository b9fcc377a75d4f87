"""Mending what verification names: what is provable is put right, what is not is set aside, nothing is thrown away.

A vector that is lost is taken out of the catalog, so that the next ``embed`` makes exactly that vector again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.storage import disk_errors, layout, lock, recover, shard
from embedstore.storage.catalog import Catalog
from embedstore.storage.integrity import rebuild_catalog
from embedstore.storage.layout import Layout
from embedstore.storage.queries import shards
from embedstore.storage.queries.shards import ShardRecord
from embedstore.storage.sql import first_line, first_row
from embedstore.storage.writer import Writer


@dataclass
class StorageRepair:
    """What a repair did.

    Attributes:
        done: one sentence each. lost: contents, 32 hexadecimal digits each, that have no vector any more, by space.
    """

    actions: list[str] = field(default_factory=list)
    lost_contents: dict[str, list[str]] = field(default_factory=dict)


def repair(path: str | Path, *, wait: float = 0.0) -> StorageRepair:
    """Repair a store, also one that cannot be opened.

    Args:
        path: the store's folder.
        wait: seconds to wait for another writer.

    Raises:
        StoreBusy: if another process is writing.
        StoreDamaged: if neither the catalog nor the files next to the vectors say what the vectors mean.
        StoreIOError: if the disk is full or fails.
    """
    at = layout.find_store(Path(path))
    report = StorageRepair()
    with (
        lock.writer_lock(at.lock, "repair", wait=wait) as held,
        disk_errors.disk_errors(f"repair {at.root}", cure="free disk space and run it again"),
    ):
        writer = _open_catalog(Writer(at, Catalog(at.catalog), held), held, report)
        report.actions += _rows(writer)
        report.actions += recover.register_unknown_shards(writer)
        _shards(writer, report)
        report.actions += _indexes(at)
        writer.checkpoint()
    return report


def _open_catalog(writer: Writer, held: lock.WriterLock, report: StorageRepair) -> Writer:
    """Recover the catalog, or rebuild it from what can be read of it."""
    try:
        report.actions += recover.recover(writer, accept_data_loss=True)
        _readable(writer.catalog)
    except StoreDamaged as e:
        report.actions.append(f"the catalog cannot be used ({str(e).split('; run ')[0]})")
        writer.catalog.discard_connection()
        report.actions += rebuild_catalog.rebuild_catalog(writer.layout)
        writer = Writer(writer.layout, Catalog(writer.layout.catalog), held)
        report.actions += recover.register_unknown_shards(writer)
        report.actions += recover.recover(writer, accept_data_loss=True)
    return writer


def _readable(catalog: Catalog) -> None:
    """Read every value of every table once.

    Raises:
        StoreDamaged: a block is not what was written.
    """
    with catalog.read() as con:
        for (table,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'cat'").fetchall():
            try:
                con.execute(f'SELECT bit_xor(hash(t)) FROM cat."{table}" t').fetchall()
            except duckdb.Error as e:
                raise StoreDamaged(f"table {table}: {first_line(e)}") from e


_ROWS = {
    "contents that items name were entered": (
        "INSERT INTO contents BY NAME SELECT DISTINCT content FROM items WHERE content IS NOT NULL "
        "AND content NOT IN (SELECT content FROM contents)"
    ),
    "second vectors of a content were taken out": (
        "DELETE FROM vectors WHERE rowid NOT IN (SELECT min(rowid) FROM vectors GROUP BY space, content)"
    ),
    "second entries of a vector file were taken out": (
        "DELETE FROM shards WHERE rowid NOT IN (SELECT min(rowid) FROM shards GROUP BY space, shard)"
    ),
    "entries without a vector file were taken out": (
        "DELETE FROM vectors WHERE (space, shard) NOT IN (SELECT (space, shard) FROM shards)"
    ),
    "counters were set past the ids that are taken": (
        "UPDATE counters SET next_item = greatest(next_item, (SELECT coalesce(max(item), 0) + 1 FROM items)), "
        "next_shard = greatest(next_shard, (SELECT coalesce(max(shard), 0) + 1 FROM shards)), "
        "next_run = greatest(next_run, (SELECT coalesce(max(run), 0) + 1 FROM runs)) "
        "WHERE next_item <= (SELECT coalesce(max(item), 0) FROM items) "
        "OR next_shard <= (SELECT coalesce(max(shard), 0) FROM shards) "
        "OR next_run <= (SELECT coalesce(max(run), 0) FROM runs)"
    ),
}


def _rows(writer: Writer) -> list[str]:
    """Rows that contradict each other."""
    done = []
    with writer.transaction() as con:
        for said, statement in _ROWS.items():
            count = first_row(con.execute(statement))[0]
            if count:
                done.append(f"{count} {said}")
    return done


def _shards(writer: Writer, report: StorageRepair) -> None:
    """Check every vector file: a whole one stays, whole blocks of a damaged one move into a new one."""
    with writer.catalog.read() as con:
        known = shards.all_shards(con)
    for record in known:
        path = writer.layout.shard_file(record.space, record.number)
        good = _good(path, record.space, record.number, record.rows, record.checksum)
        if good is None:
            _replace(writer, record, None, np.arange(0), report)
        elif len(good[1]) < good[0].header.rows or not _aligned(writer.catalog, good[0]):
            _replace(writer, record, good[0], good[1], report)


def _good(
    path: Path, space: str, number: int, rows: int, checksum: str
) -> tuple[shard.Shard, NDArray[np.int64]] | None:
    """The file and its rows that are as they were written; None where nothing of it can be believed."""
    try:
        found = shard.Shard(path)
        h = found.header
        if (h.space, h.number, h.rows, h.checksum) != (space, number, rows, checksum):
            return None
        bad = found.corrupt_rows()
        if not len(bad):
            found.verify()
    except StoreDamaged:
        return None
    return found, np.setdiff1d(np.arange(h.rows), bad)


def _aligned(catalog: Catalog, file: shard.Shard) -> bool:
    """Return whether the catalog records the content of every row as the file does."""
    with catalog.read() as con:
        return not shards.misplaced_rows(con, file.header.space, file.header.number, file.contents)


def _replace(
    writer: Writer, record: ShardRecord, file: shard.Shard | None, good: NDArray[np.int64], report: StorageRepair
) -> None:
    """Move the whole rows that are in use into a new file, and quarantine the old one."""
    with writer.catalog.read() as con:
        used = shards.shard_contents(con, record.space, record.number)
    contents, wanted = (file.contents if file else []), set(used)
    kept = np.array([r for r in good if contents[r] in wanted], dtype=np.int64)
    saved = [contents[r] for r in kept]
    vectors = file.vectors[kept] if file else np.empty((0, 0), np.float32)
    writer.replace_shards(record.space, [record.number], vectors, saved)
    path = writer.layout.shard_file(record.space, record.number)
    quarantined = ""
    if path.exists():
        target = layout.quarantine_file(writer.layout, path, f"{record.space}-{path.name}")
        quarantined = f"; the damaged file is {target}"
    lost = sorted(wanted - set(saved))
    if lost:
        report.lost_contents.setdefault(record.space, []).extend(lost)
    report.actions.append(
        f"{path.name}: {len(kept)} of {len(used)} vectors were saved, {len(lost)} are lost{quarantined}"
    )


def _indexes(at: Layout) -> list[str]:
    """Half-written index files; whole ones are judged by their sidecars whenever they are used."""
    done = []
    for stray in sorted(at.root.glob("spaces/*/index/*.tmp")):
        stray.unlink()
        done.append(f"{stray.name}, half an index, was removed")
    return done

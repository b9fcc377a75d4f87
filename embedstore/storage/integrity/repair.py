"""Repair what a verification names: correct what is provable, quarantine the rest, throw nothing away.

A vector that is lost is taken out of the catalog, so that the next ``embed`` computes exactly that vector again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreBusy, StoreDamaged, StoreUnreadable
from embedstore.storage import disk_errors, durable_files, layout, lock, reading, recover, shard
from embedstore.storage.catalog import Catalog
from embedstore.storage.inbox.state import quarantine_bad_results
from embedstore.storage.integrity import rebuild_catalog, take_back
from embedstore.storage.integrity.report import Damage, Unread
from embedstore.storage.integrity.verify import check_tables, misaligned_rows
from embedstore.storage.layout import Layout
from embedstore.storage.queries import shards
from embedstore.storage.queries.shards import ShardRecord
from embedstore.storage.sql import fetch_value
from embedstore.storage.writer import Writer
from embedstore.wording import counted


@dataclass(frozen=True)
class StorageRepair:
    """The result of a repair of the storage.

    Attributes:
        actions: what was done, one sentence each.
        lost_contents: by space, the contents (32 hexadecimal digits each) whose vectors could not be saved.
    """

    actions: list[str]
    lost_contents: dict[str, list[str]]


@dataclass(frozen=True)
class _ShardRepair:
    """The replacement of one damaged vector file."""

    action: str
    space: str
    lost: list[str]


def repair(path: str | Path, *, wait: float = 0.0) -> StorageRepair:
    """Repair a store, also one that cannot be opened.

    Args:
        path: its folder.
        wait: seconds to wait for another writer.

    Returns:
        What was done, and which vectors were lost.

    Raises:
        StoreNotFound: if there is nothing at ``path``.
        NotAStore: if the folder is no store.
        StoreTooNew: if a later version created the store.
        StoreBusy: if another process is still writing after ``wait`` seconds.
        StoreDamaged: if neither the catalog nor the descriptions of the spaces can be used.
        StoreUnreadable: if a file cannot be read now; it is left as it is.
        StoreIOError: if the disk refuses.
    """
    at = layout.find_store(Path(path))
    disk = disk_errors.disk_errors(f"repair {at.root}", cure="make room and run it again")
    with lock.writer_lock(at.lock, "repair", wait=wait) as held, disk:
        writer, actions = _open_catalog(at, held)
        actions += _repair_rows(writer)
        actions += recover.register_unknown_shards(writer)
        replaced = list(_repair_shards(writer))
        actions += [s.action for s in replaced]
        actions += take_back.take_back_vectors(writer)
        actions += quarantine_bad_results(at)
        actions += _remove_unfinished_indexes(at)
        actions += writer.write_space_files()
        actions += _repair_marker(at)
        writer.checkpoint()
        return StorageRepair(actions, _lost_contents(writer, replaced))


def _repair_marker(at: Layout) -> list[str]:
    """Write the marker file again if it does not match its checksum."""
    if not (problem := layout.marker_problem(at)):
        return []
    layout.rewrite_marker(at)
    return [
        f"{layout.MARKER}: {problem}; it was written again as it is (the store's id may have changed: replicas that "
        "belong to another store now are written again)"
    ]


def _lost_contents(writer: Writer, replaced: list[_ShardRepair]) -> dict[str, list[str]]:
    """Return the contents, by space, whose vectors were in damaged files and are nowhere else."""
    lost: dict[str, list[str]] = {}
    for s in replaced:
        lost.setdefault(s.space, []).extend(s.lost)
    with writer.catalog.read() as con:
        gone = {s: sorted(shards.contents_without_vector(con, s, c, of_items=False)) for s, c in lost.items() if c}
    return {space: contents for space, contents in gone.items() if contents}


def _open_catalog(at: Layout, held: lock.WriterLock) -> tuple[Writer, list[str]]:
    """Return a writer of the recovered catalog, or of a new one with what could be saved, and what was done."""
    writer, actions = Writer(at, Catalog(at.catalog), held), list[str]()
    try:
        actions += _recover_catalog(writer)
    except StoreDamaged:
        writer.catalog.discard_connection()
        try:  # a catalog is given up only if a second look finds it damaged, too
            actions += _recover_catalog(writer)
        except StoreDamaged as e:
            actions.append(f"the catalog cannot be used ({str(e).split('; run ')[0]})")
        else:
            return writer, actions
        writer.catalog.discard_connection()
        actions += rebuild_catalog.rebuild_catalog(at)
        writer = Writer(at, Catalog(at.catalog), held)
        actions += recover.register_unknown_shards(writer)
        actions += recover.recover(writer, accept_data_loss=True)
    return writer, actions


def _recover_catalog(writer: Writer) -> list[str]:
    """Recover the catalog and read every value of it; return what was done.

    Raises:
        StoreDamaged: if the catalog was read and found wrong.
        StoreUnreadable: if it cannot be read now.
    """
    actions = recover.recover(writer, accept_data_loss=True)
    with writer.catalog.read() as con:
        for finding in check_tables(con):
            if isinstance(finding, Damage):
                raise StoreDamaged(f"{finding.location}: {finding.problem}")
            if isinstance(finding, Unread):
                raise StoreUnreadable(str(finding))
    return actions


_ROWS = {
    "contents that items name were added": (
        "INSERT INTO contents BY NAME SELECT DISTINCT content FROM items WHERE content IS NOT NULL "
        "AND content NOT IN (SELECT content FROM contents)"
    ),
    "second vectors of a content were removed": (
        "DELETE FROM vectors WHERE rowid NOT IN (SELECT min(rowid) FROM vectors GROUP BY space, content)"
    ),
    "second rows of a vector file were removed": (
        "DELETE FROM shards WHERE rowid NOT IN (SELECT min(rowid) FROM shards GROUP BY space, shard)"
    ),
    "rows without a vector file were removed": (
        "DELETE FROM vectors WHERE (space, shard) NOT IN (SELECT (space, shard) FROM shards)"
    ),
    "counters were set past the ids in use": (
        "UPDATE counters SET next_item = greatest(next_item, (SELECT coalesce(max(item), 0) + 1 FROM items)), "
        "next_shard = greatest(next_shard, (SELECT coalesce(max(shard), 0) + 1 FROM shards)), "
        "next_run = greatest(next_run, (SELECT coalesce(max(run), 0) + 1 FROM runs)) "
        "WHERE next_item <= (SELECT coalesce(max(item), 0) FROM items) "
        "OR next_shard <= (SELECT coalesce(max(shard), 0) FROM shards) "
        "OR next_run <= (SELECT coalesce(max(run), 0) FROM runs)"
    ),
}


def _repair_rows(writer: Writer) -> list[str]:
    """Correct rows of the catalog that contradict each other."""
    actions = []
    with writer.transaction() as con:
        for action, statement in _ROWS.items():
            count = fetch_value(con, statement)
            if count:
                actions.append(f"{count} {action}")
    return actions


def _repair_shards(writer: Writer) -> Iterator[_ShardRepair]:
    """Check every vector file; write the whole blocks of a damaged one to a new file."""
    with writer.catalog.read() as con:
        known = shards.all_shards(con)
    for record in known:
        intact = _intact_rows(writer.layout.shard_file(record.space, record.number), record)
        if intact is None:
            yield _replace_shard(writer, record, None, np.arange(0))
        elif len(intact[1]) < record.rows or misaligned_rows(writer.catalog, intact[0]):
            yield _replace_shard(writer, record, *intact)


def _intact_rows(path: Path, record: ShardRecord) -> tuple[shard.Shard, NDArray[np.int64]] | None:
    """Return a vector file and the rows that match their checksums, or None where nothing in it can be trusted."""
    try:
        file = shard.Shard(path, in_memory=True)
        h = file.header
        if (h.space, h.number, h.rows, h.checksum) != (record.space, record.number, record.rows, record.checksum):
            return None
        bad = file.corrupt_rows()
        if not len(bad):
            file.verify()
    except StoreDamaged:
        return None
    return file, np.setdiff1d(np.arange(h.rows), bad)


def _replace_shard(
    writer: Writer, record: ShardRecord, file: shard.Shard | None, intact: NDArray[np.int64]
) -> _ShardRepair:
    """Keep a damaged file in the quarantine, then register a new file of its intact rows in use instead of it."""
    path = writer.layout.shard_file(record.space, record.number)
    kept_as = None
    if reading.exists(path):
        kept_as = layout.quarantine_file(writer.layout, path, f"{record.space}-{path.name}", link=True)
    with writer.catalog.read() as con:
        found = shards.shard_contents(con, record.space, record.number)
    used, contents = set(found), file.contents if file else []
    kept = np.array([r for r in intact if contents[r] in used], dtype=np.int64)
    kept_contents = [contents[r] for r in kept]
    vectors = file.vectors[kept] if file else np.empty((0, 0), np.float32)
    writer.replace_shards(record.space, [record.number], vectors, kept_contents)
    moved = ""
    if kept_as is not None:
        path.unlink()
        durable_files.sync_folder(path.parent)
        moved = f"; the damaged file is {kept_as}"
    lost = sorted(used - set(kept_contents))
    action = f"{path.name}: {len(kept)} of {counted(len(found), 'vector')} were saved, {len(lost)} are lost{moved}"
    return _ShardRepair(action, record.space, lost)


def _remove_unfinished_indexes(at: Layout) -> list[str]:
    """Remove half-written index files, unless a build is writing them. Whole ones are checked when they are used."""
    actions = []
    for folder in (at.index_folder(space.name) for space in reading.list_folder(at.root / "spaces")):
        unfinished = reading.list_folder(folder, "*.tmp")
        if not unfinished:
            continue
        with suppress(StoreBusy), lock.writer_lock(folder / layout.DERIVED_LOCK, "repair", wait=None):
            for path in unfinished:
                path.unlink(missing_ok=True)
                actions.append(f"{path.name}, an unfinished index, was removed")
    return actions

"""Recovery from a crash: undo a torn checkpoint, cut a torn log, register vector files that the catalog lost.

Everything that changes a file runs under the writer's lock.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import duckdb

from embedstore.errors import StoreDamaged
from embedstore.storage import checkpoint, commit_counter, disk_errors, shard
from embedstore.storage.catalog import Catalog
from embedstore.storage.durable_files import sync_folder
from embedstore.storage.layout import COMMIT_COUNTER, Layout, quarantine_file
from embedstore.storage.queries import counters, shards
from embedstore.storage.reading import exists, file_size, list_folder, read_errors
from embedstore.storage.shard_cache import SHARDS
from embedstore.storage.sql import fetch_column
from embedstore.storage.store_files import open_regular
from embedstore.storage.writer import Writer

_MAX_CUTS = 8  # of one log; a log that is still torn after that has more than a torn end


def recover(writer: Writer, *, accept_data_loss: bool = False) -> list[str]:
    """Repair what a crash explains.

    Args:
        writer: the writer of the store.
        accept_data_loss: continue with what is left where acknowledged commits are missing; only ``repair`` does.

    Returns:
        What was done, one sentence each; empty after a clean shutdown.

    Raises:
        StoreDamaged: if the catalog cannot be opened and has no copy to restore, or acknowledged commits are missing.
        StoreTooNew: if the catalog has migrations that this version does not know.
        StoreIOError: if the disk is full or fails.
    """
    layout, catalog = writer.layout, writer.catalog
    with disk_errors.disk_errors(f"recover {layout.root}", cure="free disk space and open it again"):
        actions = checkpoint.restore_interrupted_checkpoint(layout, catalog)
        if exists(layout.wal):
            sync_folder(layout.root)  # the last writer may have crashed before the log's name was on the disk
        actions += _cut_torn_log(layout, catalog)
        catalog.migrate()
        actions += _check_commit_count(layout, catalog, accept_data_loss=accept_data_loss)
        return actions + _register_new_shards(writer)


def has_unregistered_shards(layout: Layout, catalog: Catalog) -> bool:
    """Return whether there are vector files with numbers that the catalog has not given out yet.

    Then either the catalog lost them, or a writer is about to register them.

    Raises:
        StoreDamaged: if acknowledged commits or the tables are missing.
    """
    acknowledged = read_acknowledged(layout) or 0  # before the catalog, since a writer may be active
    with catalog.read() as con:
        try:
            count = counters.read_commit_count(con)
            if acknowledged > count:
                raise _lost_commits(layout, acknowledged, count)
            next_shard = counters.next_shard(con)
            spaces = fetch_column(con, "SELECT space FROM spaces")
        except duckdb.CatalogException as e:
            raise StoreDamaged(f"{layout.catalog} lacks the store's tables; run `embedstore repair STORE`") from e
    return any(number >= next_shard for s in spaces for number, _ in _shard_files(layout, s))


def read_acknowledged(layout: Layout) -> int | None:
    """Return how many commits were acknowledged; None if the file is missing or neither of its records is whole.

    Raises:
        StoreUnreadable: if the file cannot be read now.
    """
    with read_errors(layout.root / COMMIT_COUNTER):
        return commit_counter.read(layout.root)


def register_unknown_shards(writer: Writer) -> list[str]:
    """Register every vector file that the catalog does not have, if it holds vectors that no other file has.

    Unlike recovery this includes files that the catalog once had.

    Returns:
        What was done, one sentence each.
    """
    with writer.catalog.read() as con:
        known = {(s.space, s.number) for s in shards.all_shards(con)}
        spaces = fetch_column(con, "SELECT space FROM spaces ORDER BY space")
    unknown = [(s, path) for s in spaces for n, path in _shard_files(writer.layout, s) if (s, n) not in known]
    return [_register(writer, s, path) for s, path in unknown if _has_unique_vectors(writer, s, path)]


def _check_commit_count(layout: Layout, catalog: Catalog, *, accept_data_loss: bool) -> list[str]:
    """Compare the catalog's count of commits with the acknowledged one."""
    acknowledged, count = read_acknowledged(layout), catalog.commit_count()
    if acknowledged == count:
        return []
    if acknowledged is not None and acknowledged > count and not accept_data_loss:
        raise _lost_commits(layout, acknowledged, count)
    commit_counter.reset(layout.root, count)
    if acknowledged is None:
        return [f"{COMMIT_COUNTER} was missing or damaged and was created again"] if count else []
    lost = acknowledged - count
    return [f"{lost} acknowledged commits are lost: check what is missing, and embed it again"] if lost > 0 else []


def _lost_commits(layout: Layout, acknowledged: int, count: int) -> StoreDamaged:
    """Return the error for a catalog that is older than the acknowledged count."""
    return StoreDamaged(
        f"{layout.catalog} is at commit {count}, but commit {acknowledged} was acknowledged: its log "
        f"{layout.wal.name} was deleted, truncated or replaced; restore the log (quarantine/ keeps what was cut off), "
        "or run `embedstore repair STORE`, which registers the vector files again and continues without the rest"
    )


def _cut_torn_log(layout: Layout, catalog: Catalog) -> list[str]:
    """Cut the log where its last, unfinished entry begins; the whole log is copied to the quarantine."""
    actions: list[str] = []
    for _ in range(_MAX_CUTS):
        try:
            with catalog.read() as con:
                con.execute("SELECT 1 FROM duckdb_tables() WHERE database_name = 'cat'")
                return actions
        except StoreDamaged as e:
            position = _torn_position(str(e))
            if position is None or not exists(layout.wal) or position >= file_size(layout.wal):
                raise
        actions.append(_cut(layout, position))
    with catalog.read():
        return actions


def _torn_position(message: str) -> int | None:
    """Return the byte of the log at which DuckDB's message reports the damage."""
    match = re.search(r"Corrupt WAL file.*?byte position (\d+)", message)
    return int(match[1]) if match else None


def _cut(layout: Layout, position: int) -> str:
    """Shorten the log; its copy is on the disk first."""
    original = quarantine_file(layout, layout.wal, f"{layout.wal.name}.{time.time_ns()}", copy=True)
    with os.fdopen(open_regular(layout.wal, os.O_RDWR), "r+b") as f:
        f.truncate(position)
        os.fsync(f.fileno())
    return f"the log ended in an unfinished entry: it was cut at byte {position}, the original is {original}"


def _shard_files(layout: Layout, space: str) -> list[tuple[int, Path]]:
    """Return the vector files of a space by number; files with other names are ignored."""
    paths = [(p.stem, p) for p in list_folder(layout.shards_folder(space), "*.vec")]
    return sorted((int(stem), p) for stem, p in paths if stem.isdecimal())


def _register_new_shards(writer: Writer) -> list[str]:
    """Register whole vector files that the catalog does not have, and quarantine damaged ones."""
    with writer.catalog.read() as con:
        known = {(s.space, s.number) for s in shards.all_shards(con)}
        spaces = fetch_column(con, "SELECT DISTINCT space FROM spaces ORDER BY space")
        next_shard = counters.next_shard(con)
    actions: list[str] = []
    for space in spaces:
        for stray in list_folder(writer.layout.shards_folder(space), "*.tmp"):
            stray.unlink()
        for number, path in _shard_files(writer.layout, space):
            if (space, number) not in known:
                handle = _remove_replaced if number < next_shard else _register
                actions.append(handle(writer, space, path))
    return actions


def _remove_replaced(writer: Writer, space: str, path: Path) -> str:
    """Remove a file that the catalog no longer has; quarantine it if an item's vector is in no other file."""
    if _has_unique_vectors(writer, space, path, of_items=True):
        target = quarantine_file(writer.layout, path, f"{space}-{path.name}")
        return f"{path.name} is not in the catalog any more and holds vectors that no other file has: {target}"
    path.unlink()
    return f"{path.name}, replaced by a later file, was removed"


def _has_unique_vectors(writer: Writer, space: str, path: Path, *, of_items: bool = False) -> bool:
    """Return whether a vector (of an item) is in this file and no other whole file, or the file is damaged."""
    try:
        file = shard.Shard(path, in_memory=True)
        file.verify()
    except StoreDamaged:
        return True
    with writer.catalog.read() as con:
        others = [n for n in shards.shards_of_contents(con, space, file.contents) if n != int(path.stem)]
        whole = [n for n in others if _is_whole(path.with_name(f"{n:09d}.vec"))]
        return shards.has_unique_contents(con, space, file.contents, whole, of_items=of_items)


def _is_whole(path: Path) -> bool:
    """Return whether every byte of a vector file is what was written; each file is read once in a process."""
    try:
        SHARDS.verify(SHARDS.open(path))
    except StoreDamaged:
        return False
    return True


def _register(writer: Writer, space: str, path: Path) -> str:
    """Register one vector file in the catalog, or quarantine it."""
    try:
        file = shard.Shard(path, in_memory=True)
        file.verify()
        if (file.header.space, file.header.number) != (space, int(path.stem)):
            raise StoreDamaged(f"{path} is file {file.header.number} of space {file.header.space} by its own header")
    except StoreDamaged as e:
        return f"{e}: moved to {quarantine_file(writer.layout, path, f'{space}-{path.name}')}"
    with writer.transaction() as con:
        shards.insert_found_shard(con, file.header, file.contents)
    return f"{file.header.rows} vectors in {path.name} were not in the catalog: they were registered again"

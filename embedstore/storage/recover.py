"""Opening after a crash: undo a torn checkpoint, cut a torn log, take back vectors that the catalog lost.

Every function here runs under the writer's lock.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import duckdb
import numpy as np

from embedstore.errors import StoreDamaged, StoreError
from embedstore.storage import commit_counter, disk_errors, shard
from embedstore.storage.catalog import Catalog, read_commit_count
from embedstore.storage.durable_files import copy_synced, sync_folder
from embedstore.storage.layout import COMMIT_COUNTER, COMPLETE, Layout, quarantine_file
from embedstore.storage.sql import first_row, utc_now

CHECKPOINT_BYTES = 16 << 20  # of log: replayed at each open, about 5 ms per MiB
_CUTS = 8  # of one log, before its damage is called more than a torn end


def recover(layout: Layout, catalog: Catalog, *, accept_data_loss: bool = False) -> list[str]:
    """Mend what is provable.

    Args:
        layout, catalog: the store.
        accept: go on with what is left where acknowledged commits are gone; only ``repair`` does.

    Returns:
        What was done, one sentence each; empty after a clean shutdown.

    Raises:
        StoreDamaged: the catalog cannot be opened and there is nothing to restore it from, or commits are gone.
        StoreIOError: the disk refuses.
    """
    with disk_errors.disk_errors(f"mend {layout.root}", cure="make room and open it again"):
        done = restore_interrupted_checkpoint(layout, catalog)
        if layout.wal.exists():
            sync_folder(layout.root)  # its writer may have died, or failed, before the name was on the disk
        done += _cut_torn_log(layout, catalog)
        catalog.migrate()
        done += _agree(layout, catalog, accept=accept_data_loss)
        return done + _adopt(layout, catalog)


def has_interrupted_checkpoint(layout: Layout) -> bool:
    """A checkpoint is under way or was interrupted: not even a reader may trust the catalog."""
    return (layout.guard / COMPLETE).exists()


def has_unregistered_shards(layout: Layout, catalog: Catalog) -> bool:
    """There are vector files with numbers that the catalog has not given yet: it lost them, or a writer is at it.

    Raises:
        StoreDamaged: commits that were acknowledged are gone.
    """
    acknowledged = commit_counter.read(layout.root) or 0  # first: a writer may go on meanwhile
    with catalog.read() as con:
        try:
            if acknowledged > (count := read_commit_count(con)):
                raise _gone(layout, acknowledged, count)
            following = first_row(con.execute("SELECT next_shard FROM counters"))[0]
            spaces = [key for (key,) in con.execute("SELECT space FROM spaces").fetchall()]
        except duckdb.CatalogException as e:
            raise StoreDamaged(f"{layout.catalog} lacks the store's tables; run `embedstore repair`") from e
    return any(number >= following for s in spaces for number, _ in _files(layout, s))


def guarded_checkpoint(layout: Layout, catalog: Catalog, *, min_log_bytes: int = 0) -> None:
    """Fold the log into the catalog, with a copy beside it while its blocks are rewritten in place.

    What was committed is durable without it, so a disk without room for the copy only means a longer log.

    Args:
        layout, catalog: the store.
        above: do nothing while the log is not longer than this many bytes.

    Raises:
        StoreIOError: the disk failed half-way; the copy was put back, or will be when the store is opened next.
    """
    if not layout.wal.exists() or layout.wal.stat().st_size <= min_log_bytes:
        return
    with disk_errors.disk_errors(f"clear {layout.guard}", cure="mend the disk and run it again"):
        _under_guard(layout, catalog)


def _under_guard(layout: Layout, catalog: Catalog) -> None:
    """Copy, mark, fold in, take the copy away."""
    with catalog.exclusive():
        restore_interrupted_checkpoint(layout, catalog)
        try:
            layout.guard.mkdir()
            copy_synced(layout.catalog, layout.guard / layout.catalog.name)
            copy_synced(layout.wal, layout.guard / layout.wal.name)
        except OSError:
            _discard(layout.guard)
            return
        try:
            _mark(layout.guard / COMPLETE)
            catalog.checkpoint()
            sync_folder(layout.root)  # the log's removal; only then is the copy not needed any more
        except StoreError:
            restore_interrupted_checkpoint(layout, catalog)
            return
        _discard(layout.guard)


def restore_interrupted_checkpoint(layout: Layout, catalog: Catalog) -> list[str]:
    """Put the copy back if a checkpoint did not finish; the copy and the finished checkpoint mean the same.

    The copy is moved, not copied: that needs no room, and a file that is no longer in the guard was put back by
    an attempt before this one.
    """
    if not has_interrupted_checkpoint(layout):
        _discard(layout.guard)
        return []
    with catalog.exclusive():
        for suffix in (".checkpoint", ".recovery"):
            stray = layout.wal.with_name(layout.wal.name + suffix)
            if stray.exists():
                quarantine_file(layout, stray, f"{stray.name}.{time.time_ns()}")
        for name in (layout.catalog.name, layout.wal.name):
            if (layout.guard / name).exists():
                (layout.guard / name).replace(layout.root / name)
        sync_folder(layout.root)
        sync_folder(layout.guard)
        _discard(layout.guard)
    return ["a checkpoint was interrupted: the catalog was restored from its guard copy"]


def _agree(layout: Layout, catalog: Catalog, *, accept: bool) -> list[str]:
    """The catalog against its witness."""
    acknowledged, count = commit_counter.read(layout.root), catalog.commit_count()
    if acknowledged == count:
        return []
    if acknowledged is not None and acknowledged > count and not accept:
        raise _gone(layout, acknowledged, count)
    commit_counter.reset(layout.root, count)
    if acknowledged is None:
        return [f"{COMMIT_COUNTER} was missing or damaged and was made again"] if count else []
    lost = acknowledged - count
    return [f"{lost} acknowledged commits are gone: see what is missing, and embed it again"] if lost > 0 else []


def _gone(layout: Layout, acknowledged: int, count: int) -> StoreDamaged:
    """The catalog is younger than what was acknowledged."""
    return StoreDamaged(
        f"{layout.catalog} is at commit {count}, but commit {acknowledged} was acknowledged: its log "
        f"{layout.wal.name} was deleted, cut or exchanged; bring it back (quarantine/ keeps what was cut), "
        "or run `embedstore repair`, which takes vectors back from their files and goes on without the rest"
    )


def _cut_torn_log(layout: Layout, catalog: Catalog) -> list[str]:
    """Cut the log where its last, unfinished entry begins; the whole log goes to quarantine."""
    done: list[str] = []
    for _ in range(_CUTS):
        try:
            with catalog.read() as con:
                con.execute("SELECT 1 FROM duckdb_tables() WHERE database_name = 'cat'")
                return done
        except StoreDamaged as e:
            position = _torn_at(str(e))
            if position is None or not layout.wal.exists() or position >= layout.wal.stat().st_size:
                raise
        done.append(_cut(layout, position))
    with catalog.read():
        return done


def _torn_at(said: str) -> int | None:
    """Where DuckDB says that the log breaks off."""
    found = re.search(r"Corrupt WAL file.*?byte position (\d+)", said)
    return int(found[1]) if found else None


def _cut(layout: Layout, position: int) -> str:
    """Shorten the log; the copy is on the disk first."""
    layout.quarantine.mkdir(exist_ok=True)
    kept = layout.quarantine / f"{layout.wal.name}.{time.time_ns()}"
    copy_synced(layout.wal, kept)
    sync_folder(layout.quarantine)
    with layout.wal.open("r+b") as f:
        f.truncate(position)
        os.fsync(f.fileno())
    return f"the log ended in an unfinished entry: cut at byte {position}, the original is {kept}"


def _files(layout: Layout, space: str) -> list[tuple[int, Path]]:
    """The vector files of a space by number; what is not named like one is not ours to judge."""
    found = [(p.stem, p) for p in layout.shards_folder(space).glob("*.vec")]
    return sorted((int(stem), p) for stem, p in found if stem.isdecimal())


def _adopt(layout: Layout, catalog: Catalog) -> list[str]:
    """Enter whole vector files that the catalog does not know; set aside those that are not whole."""
    with catalog.read() as con:
        known = set(con.execute("SELECT space, shard FROM shards").fetchall())
        spaces = {key for (key,) in con.execute("SELECT space FROM spaces").fetchall()}
        following = first_row(con.execute("SELECT next_shard FROM counters"))[0]
    done: list[str] = []
    for space in sorted(spaces):
        for stray in layout.shards_folder(space).glob("*.tmp"):
            stray.unlink()
        for number, path in _files(layout, space):
            if (space, number) in known:
                continue
            if number < following:
                done.append(_left_over(layout, catalog, space, path))
            else:
                done.append(_adopt_one(layout, catalog, space, path))
    return done


def register_unknown_shards(layout: Layout, catalog: Catalog) -> list[str]:
    """As at opening, and also files that the catalog once knew, where they hold vectors that nothing else has."""
    with catalog.read() as con:
        known = set(con.execute("SELECT space, shard FROM shards").fetchall())
        spaces = {key for (key,) in con.execute("SELECT space FROM spaces").fetchall()}
    unknown = [(s, path) for s in sorted(spaces) for n, path in _files(layout, s) if (s, n) not in known]
    return [_adopt_one(layout, catalog, s, path) for s, path in unknown if _is_only_copy(catalog, s, path, of="rows")]


def _left_over(layout: Layout, catalog: Catalog, space: str, path: Path) -> str:
    """A file that the catalog gave up on purpose: gone where every vector that is still asked for stands elsewhere."""
    if _is_only_copy(catalog, space, path):
        kept = quarantine_file(layout, path, f"{space}-{path.name}")
        return f"{path.name} is not in the catalog any more and holds vectors that nothing else has: {kept}"
    path.unlink()
    return f"{path.name}, replaced by a later file, was removed"


def _is_only_copy(catalog: Catalog, space: str, path: Path, *, of: str = "items") -> bool:
    """Some vector (of an item) is in this file and in no other that is there, or the file cannot be read."""
    try:
        found = shard.Shard(path)
        found.verify()
    except StoreDamaged:
        return True
    rows = {"content": np.array(found.contents, dtype=object)}  # noqa: F841 - read by SQL
    with catalog.read() as con:
        entered = con.execute("SELECT shard FROM shards WHERE space = ? AND shard <> ?", [space, int(path.stem)])
        others = [n for (n,) in entered.fetchall() if _is_whole(path.with_name(f"{n:09d}.vec"))]
        only = con.execute(
            f"SELECT count(*) FROM rows WHERE content::UUID IN (SELECT content::UUID FROM {of}) AND content::UUID "
            "NOT IN (SELECT content FROM vectors WHERE space = ? AND list_contains(?::BIGINT[], shard))",
            [space, others],
        )
        return bool(first_row(only)[0])


def _is_whole(path: Path) -> bool:
    """A vector file that is there in its full length."""
    try:
        shard.read_shard_header(path)
    except StoreDamaged:
        return False
    return True


def _adopt_one(layout: Layout, catalog: Catalog, space: str, path: Path) -> str:
    """Enter one vector file into the catalog, or set it aside."""
    try:
        found = shard.Shard(path)
        found.verify()
        if (found.header.space, found.header.number) != (space, int(path.stem)):
            raise StoreDamaged(f"{path} says that it is {found.header.number} of space {found.header.space}")
    except StoreDamaged as e:
        return f"{e}: set aside as {quarantine_file(layout, path, f'{space}-{path.name}')}"
    h = found.header
    rows = {"content": np.array(found.contents, dtype=object), "n": np.arange(h.rows)}  # noqa: F841 - read by SQL
    con = catalog.scratch
    con.execute("CREATE OR REPLACE TABLE memory.main.adopted AS SELECT content::UUID AS content, n FROM rows")
    with catalog.write() as con:
        fresh = "content NOT IN (SELECT content FROM vectors WHERE space = $s)"
        con.execute(
            "INSERT INTO contents BY NAME SELECT DISTINCT content FROM memory.main.adopted "
            "WHERE content NOT IN (SELECT content FROM contents)"
        )
        con.execute(
            f"INSERT INTO vectors SELECT $s, content, $n, n FROM memory.main.adopted WHERE {fresh}",
            {"s": space, "n": h.number},
        )
        con.execute(
            "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?)",
            [space, h.number, h.rows, h.file_bytes, h.checksum, utc_now()],
        )
        con.execute("UPDATE counters SET next_shard = greatest(next_shard, ?)", [h.number + 1])
    return f"{h.rows} vectors in {path.name} were not in the catalog: taken back"


def _mark(path: Path) -> None:
    """Make an empty file that survives a power cut."""
    path.touch()
    sync_folder(path.parent)
    sync_folder(path.parent.parent)


def _discard(guard: Path) -> None:
    """Remove the guard, its mark first."""
    if not guard.exists():
        return
    (guard / COMPLETE).unlink(missing_ok=True)
    sync_folder(guard)
    for path in guard.iterdir():
        path.unlink()
    guard.rmdir()

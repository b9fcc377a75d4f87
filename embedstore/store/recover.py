"""Opening after a crash: undo a torn checkpoint, cut a torn log, take back vectors that the catalog lost.

Every function here runs under the writer's lock.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np

from embedstore.errors import StoreDamaged
from embedstore.store import shard
from embedstore.store.catalog import Catalog, utc_now
from embedstore.store.layout import Layout, copy_synced, sync_folder

CHECKPOINT_BYTES = 16 << 20  # of log: replayed at each open, about 5 ms per MiB


def recover(layout: Layout, catalog: Catalog) -> list[str]:
    """Mend what is provable.

    Returns:
        What was done, one sentence each; empty after a clean shutdown.

    Raises:
        StoreDamaged: the catalog cannot be opened and there is nothing to restore it from.
    """
    done = _undo_checkpoint(layout)
    done += _cut_torn_log(layout, catalog)
    catalog.migrate()
    return done + _adopt(layout, catalog)


def needs_recovery(layout: Layout) -> bool:
    """A checkpoint was interrupted: not even a reader may trust the catalog."""
    return (layout.guard / "COMPLETE").exists()


def guarded_checkpoint(layout: Layout, catalog: Catalog, *, above: int = 0) -> None:
    """Fold the log into the catalog, with a copy beside it while its blocks are rewritten in place.

    Args:
        layout, catalog: the store.
        above: do nothing while the log is not longer than this many bytes.
    """
    if not layout.wal.exists() or layout.wal.stat().st_size <= above:
        return
    with catalog.undisturbed():
        _discard(layout.guard)
        layout.guard.mkdir()
        copy_synced(layout.catalog, layout.guard / layout.catalog.name)
        copy_synced(layout.wal, layout.guard / layout.wal.name)
        _mark(layout.guard / "COMPLETE")
        catalog.checkpoint()
        _discard(layout.guard)


def _undo_checkpoint(layout: Layout) -> list[str]:
    """Put the copy back if a checkpoint did not finish; the copy and the finished checkpoint mean the same."""
    if not needs_recovery(layout):
        _discard(layout.guard)
        return []
    for name in (layout.catalog.name, layout.wal.name):
        copy_synced(layout.guard / name, layout.root / f"{name}.restored")
    for name in (layout.catalog.name, layout.wal.name):
        (layout.root / f"{name}.restored").replace(layout.root / name)
    sync_folder(layout.root)
    _discard(layout.guard)
    return ["a checkpoint was interrupted: the catalog was restored from its guard copy"]


def _cut_torn_log(layout: Layout, catalog: Catalog) -> list[str]:
    """Cut the log where its last, unfinished entry begins; the whole log goes to quarantine."""
    try:
        with catalog.read():
            return []
    except StoreDamaged as e:
        found = re.search(r"Corrupt WAL file.*byte position (\d+)", str(e))
        if not found:
            raise
    position = int(found[1])
    layout.quarantine.mkdir(exist_ok=True)
    kept = layout.quarantine / f"{layout.wal.name}.{time.time_ns()}"
    copy_synced(layout.wal, kept)
    with layout.wal.open("r+b") as f:
        f.truncate(position)
    with catalog.read():
        return [f"the log ended in an unfinished entry: cut at byte {position}, the original is {kept}"]


def _adopt(layout: Layout, catalog: Catalog) -> list[str]:
    """Enter whole vector files that the catalog does not know; set aside those that are not whole."""
    with catalog.read() as con:
        known = set(con.execute("SELECT space, shard FROM shards").fetchall())
        spaces = {key for (key,) in con.execute("SELECT space FROM spaces").fetchall()}
    done: list[str] = []
    for space in sorted(spaces):
        folder = layout.shards(space)
        for stray in folder.glob("*.tmp"):
            stray.unlink()
        for path in sorted(folder.glob("*.vec")):
            if (space, int(path.stem)) not in known:
                done.append(_adopt_one(layout, catalog, space, path))
    return done


def _adopt_one(layout: Layout, catalog: Catalog, space: str, path: Path) -> str:
    """Enter one vector file into the catalog, or set it aside."""
    try:
        found = shard.Shard(path)
        found.verify()
        if found.header.space != space:
            raise StoreDamaged(f"{path} holds space {found.header.space}")
    except StoreDamaged as e:
        layout.quarantine.mkdir(exist_ok=True)
        path.replace(layout.quarantine / f"{space}-{path.name}")
        return f"{e}: set aside in {layout.quarantine}"
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
    (guard / "COMPLETE").unlink(missing_ok=True)
    sync_folder(guard)
    for path in guard.iterdir():
        path.unlink()
    guard.rmdir()

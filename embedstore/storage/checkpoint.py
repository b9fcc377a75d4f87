"""A checkpoint that can be undone: the log is written into the catalog with a copy of both next to them.

Every function here runs under the writer's lock.
"""

from __future__ import annotations

import time
from pathlib import Path

from embedstore.errors import StoreError
from embedstore.storage import disk_errors
from embedstore.storage.catalog import Catalog
from embedstore.storage.durable_files import copy_synced, sync_folder
from embedstore.storage.layout import COMPLETE, Layout, quarantine_file
from embedstore.storage.reading import exists, file_size, list_folder

CHECKPOINT_BYTES = 16 << 20  # of log, which is replayed whenever the store is opened: about 5 ms per MiB
LARGE_CATALOG = 256 << 20  # bytes, from which on the log may be a sixteenth: each checkpoint copies the whole catalog


def longest_log(layout: Layout) -> int:
    """Return the bytes of log that are kept between two checkpoints."""
    size = file_size(layout.catalog)
    return CHECKPOINT_BYTES if size < LARGE_CATALOG else size // 16


def has_interrupted_checkpoint(layout: Layout) -> bool:
    """Return whether a checkpoint is under way or was interrupted: then not even a reader may use the catalog."""
    return exists(layout.guard / COMPLETE)


def guarded_checkpoint(layout: Layout, catalog: Catalog, *, min_log_bytes: int = 0) -> None:
    """Write the log into the catalog, with a copy of both while blocks are rewritten in place.

    What was committed is durable without a checkpoint, so a disk without room for the copy only means a longer log.

    Args:
        layout: the paths of the store.
        catalog: its catalog.
        min_log_bytes: do nothing while the log is not longer than this.

    Raises:
        StoreIOError: if the disk fails during the checkpoint; the copy was restored, or is restored when the store
            is opened next.
    """
    if not exists(layout.wal) or file_size(layout.wal) <= min_log_bytes:
        return
    with disk_errors.disk_errors(f"clear {layout.guard}", cure="check the disk and run it again"), catalog.exclusive():
        restore_interrupted_checkpoint(layout, catalog)
        if _copy_files(layout):
            _checkpoint(layout, catalog)


def restore_interrupted_checkpoint(layout: Layout, catalog: Catalog) -> list[str]:
    """Restore the copy if a checkpoint did not finish; copy and finished checkpoint have the same rows.

    The copy is moved, not copied: that needs no room, and a file that is no longer in the guard folder was restored
    by an earlier attempt.

    Returns:
        A sentence for the user, if something was restored.
    """
    if not has_interrupted_checkpoint(layout):
        _remove_guard(layout.guard)
        return []
    with catalog.exclusive():
        for suffix in (".checkpoint", ".recovery"):
            stray = layout.wal.with_name(layout.wal.name + suffix)
            if exists(stray):
                quarantine_file(layout, stray, f"{stray.name}.{time.time_ns()}")
        for name in (layout.catalog.name, layout.wal.name):
            if exists(layout.guard / name):
                (layout.guard / name).replace(layout.root / name)
        sync_folder(layout.root)
        sync_folder(layout.guard)
        _remove_guard(layout.guard)
    return ["a checkpoint was interrupted: the catalog was restored from its guard copy"]


def _copy_files(layout: Layout) -> bool:
    """Copy catalog and log into the guard folder; False if the disk has no room."""
    try:
        layout.guard.mkdir()
        copy_synced(layout.catalog, layout.guard / layout.catalog.name)
        copy_synced(layout.wal, layout.guard / layout.wal.name)
    except OSError:
        _remove_guard(layout.guard)
        return False
    return True


def _checkpoint(layout: Layout, catalog: Catalog) -> None:
    """Run the checkpoint, then remove the copy; restore it if the checkpoint fails."""
    try:
        _mark_complete(layout.guard / COMPLETE)
        catalog.checkpoint()
        sync_folder(layout.root)  # the removal of the log; the copy is needed until that is on the disk
    except StoreError:
        restore_interrupted_checkpoint(layout, catalog)
        return
    _remove_guard(layout.guard)


def _mark_complete(path: Path) -> None:
    """Create an empty file that survives a power cut."""
    path.touch()
    sync_folder(path.parent)
    sync_folder(path.parent.parent)


def _remove_guard(guard: Path) -> None:
    """Remove the guard folder, its mark first."""
    if not exists(guard):
        return
    (guard / COMPLETE).unlink(missing_ok=True)
    sync_folder(guard)
    for path in list_folder(guard):
        path.unlink()
    guard.rmdir()

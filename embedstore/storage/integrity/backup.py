"""Copy a store consistently while other processes read and write it, and restore the copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import duckdb

from embedstore.errors import StoreDamaged, StoreIOError
from embedstore.storage import commit_counter, connection, layout, reading, shard
from embedstore.storage.catalog_errors import FAILURES, concerns_file, is_disk_error
from embedstore.storage.inbox.inbox import BUCKET, inboxes
from embedstore.storage.integrity.report import CheckProgress
from embedstore.storage.integrity.verify import is_registered
from embedstore.storage.layout import COPIED_FOLDERS, Layout
from embedstore.storage.queries.counters import read_commit_count
from embedstore.storage.queries.shards import ShardRecord, all_shards
from embedstore.storage.sql import first_line
from embedstore.storage.storage import Storage
from embedstore.storage.store_files import copy_regular

MAX_ATTEMPTS = 5  # a compaction may remove a file before it is copied: the copy starts again from a later generation


def backup(
    storage: Storage,
    target: str | Path,
    *,
    hard_link: bool = False,
    progress: Callable[[CheckProgress], None] = lambda _: None,
) -> dict[str, int]:
    """Copy one generation of a store to a new folder and check every vector file of the copy.

    The catalog is copied in one read, during which no commit can end (half a second for two million items);
    vector files never change, so they are copied afterwards.

    Args:
        storage: the store; writers may go on.
        target: a new folder outside of the store.
        hard_link: make hard links to the vector files instead of copies: instant, but on the same disk.
        progress: called after every vector file.

    Returns:
        ``{"shards", "bytes"}``: the number of vector files and their size.

    Raises:
        StoreExists: if ``target`` exists and is not an empty folder, or is inside the store.
        StoreDamaged: if a vector file is not what was written: a backup would keep the damage.
        StoreIOError: if the disk refuses; nothing is left at ``target``.
    """
    path = Path(target).absolute()
    layout.require_outside(path, storage.layout)
    counts: dict[str, int] = {}
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            layout.create_folder(path, lambda at: counts.update(_copy_store(storage, at, hard_link, progress)))
        except _FileReplaced as e:
            if attempt == MAX_ATTEMPTS:
                raise StoreDamaged(str(e)) from e
        else:
            break
    return counts


def restore(
    source: str | Path, target: str | Path, *, progress: Callable[[CheckProgress], None] = lambda _: None
) -> dict[str, int]:
    """Make a store from a backup and check every vector file of it.

    Args:
        source: the folder of the backup.
        target: a new folder.
        progress: called after every vector file.

    Returns:
        ``{"shards", "bytes"}``: the number of vector files and their size.

    Raises:
        StoreExists: if ``target`` exists and is not an empty folder; nothing is overwritten.
        StoreNotFound: if there is nothing at ``source``.
        NotAStore: if ``source`` is no store.
        StoreTooNew: if a later version created the backup.
        StoreDamaged: if a file of the backup is not what was written.
        StoreIOError: if the disk refuses; nothing is left at ``target``.
    """
    return backup(Storage.open(source), target, progress=progress)


class _FileReplaced(Exception):
    """A vector file was removed because a later one replaced it."""


def _copy_store(
    storage: Storage, at: Layout, hard_link: bool, progress: Callable[[CheckProgress], None]
) -> dict[str, int]:
    """Fill the temporary folder of a backup."""
    spaces, shards = _copy_catalog(storage, at)
    copy_regular(storage.layout.marker, at.marker)
    for space in spaces:
        at.shards_folder(space).mkdir(parents=True)
        if reading.exists(storage.layout.space_file(space)):
            copy_regular(storage.layout.space_file(space), at.space_file(space))
    total, done = sum(s.bytes for s in shards), 0
    for s in shards:
        _copy_shard(storage, s, at.shard_file(s.space, s.number), hard_link)
        done += s.bytes
        progress(CheckProgress("vectors", done, total))
    for inbox in inboxes(storage.layout):
        shutil.copytree(
            inbox.folder,
            at.inbox_folder(inbox.space),
            copy_function=_copy_if_there,
            ignore=shutil.ignore_patterns("*.tmp", BUCKET),  # results of a bucket belong to one store
        )
    for name in COPIED_FOLDERS:
        if reading.is_folder(storage.layout.root / name):
            shutil.copytree(storage.layout.root / name, at.root / name, copy_function=copy_regular)
    return {"shards": len(shards), "bytes": total}


def _copy_catalog(storage: Storage, at: Layout) -> tuple[list[str], list[ShardRecord]]:
    """Copy the catalog and its commit count in one read; return the spaces and vector files of that generation."""
    at.catalog.unlink(missing_ok=True)
    with storage.catalog.read() as con:
        files = all_shards(con)
        spaces = [s for (s,) in con.execute("SELECT space FROM spaces").fetchall()]
        count = read_commit_count(con)
        try:
            connection.attach_new_file(con, at.catalog, "copy")
            con.execute("COPY FROM DATABASE cat TO copy")
            con.execute("CHECKPOINT copy")
        except FAILURES as e:
            if is_disk_error(e) and not concerns_file(e, storage.catalog.file):  # "fsync failed" names no file
                raise OSError(first_line(e)) from e
            raise
        finally:
            with suppress(duckdb.Error):  # a failure of the disk may have detached it
                con.execute("DETACH copy")
    commit_counter.reset(at.root, count)
    return spaces, files


def _copy_if_there(source: str, target: str) -> None:
    """Copy a file of an inbox, unless the writer registered and removed it meanwhile: its part is done again then."""
    with suppress(FileNotFoundError):
        copy_regular(Path(source), Path(target))


def _copy_shard(storage: Storage, registered: ShardRecord, target: Path, hard_link: bool) -> None:
    """Copy one vector file and compare the copy with its checksum."""
    source = storage.layout.shard_file(registered.space, registered.number)
    try:
        _link_or_copy(source, target, hard_link)
    except FileNotFoundError as e:
        if is_registered(storage.catalog, registered.space, registered.number):
            raise StoreDamaged(f"{source} is missing; run `embedstore repair STORE`") from e
        raise _FileReplaced(f"{source} was replaced before it was copied; run it again") from e
    file = shard.Shard(target)
    if file.header.checksum != registered.checksum:
        raise StoreDamaged(f"{source} is not the file that the catalog names; run `embedstore repair STORE`")
    try:
        file.verify()
    except StoreDamaged as e:
        raise StoreDamaged(f"{source} does not match its checksum; run `embedstore repair STORE`") from e


def _link_or_copy(source: Path, target: Path, hard_link: bool) -> None:
    """Make a hard link or a copy."""
    if not hard_link:
        copy_regular(source, target)
        return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError as e:
        raise StoreIOError(f"cannot link {source} to {target}: {e.strerror}; leave --hard-link out") from e

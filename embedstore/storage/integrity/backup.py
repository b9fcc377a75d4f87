"""A consistent copy of a store while others read and write it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from embedstore.errors import StoreDamaged, StoreExists, StoreIOError
from embedstore.storage import commit_counter, connection, layout, shard
from embedstore.storage.integrity.verify import CheckProgress
from embedstore.storage.layout import Layout
from embedstore.storage.queries.counters import read_commit_count
from embedstore.storage.storage import Storage

MAX_ATTEMPTS = 5  # a file that was replaced by a later one while it was to be copied: take a newer generation

BESIDE = ("heads", "checkpoints")  # indexes are derived and are built again


def backup(
    storage: Storage,
    target: str | Path,
    *,
    link: bool = False,
    progress: Callable[[CheckProgress], None] = lambda _: None,
) -> dict[str, int]:
    """Copy one generation of a store into a new folder; every vector file is checked on the way.

    The catalog is copied in one read, which holds up a commit for as long (half a second for two million items);
    vector files never change, so they are copied afterwards.

    Args:
        storage: the store; writers may go on.
        target: a new folder.
        link: hard links instead of copies: at once and without room, but on the same disk.
        progress: called after every vector file.

    Returns:
        ``{"shards", "bytes"}``.

    Raises:
        StoreExists: something is at ``target``.
        StoreDamaged: a vector file is not what was written: a backup would keep the damage.
        StoreIOError: the disk refuses; nothing is left at ``target``.
    """
    path = Path(target).absolute()
    counts: dict[str, int] = {}
    for left in reversed(range(MAX_ATTEMPTS)):
        try:
            layout.create_folder(path, lambda at: counts.update(_fill(storage, at, link=link, progress=progress)))
        except _Replaced as e:
            if not left:
                raise StoreDamaged(str(e)) from e
        else:
            break
    return counts


def restore(
    source: str | Path, target: str | Path, *, progress: Callable[[CheckProgress], None] = lambda _: None
) -> dict[str, int]:
    """Make a store of a backup: the same copying the other way round, checked on the way.

    Raises:
        StoreExists: something is at ``target``; nothing is ever written over.
        StoreNotFound, NotAStore, StoreDamaged, StoreIOError: of the backup.
    """
    return backup(Storage.open(source), target, progress=progress)


class _Replaced(Exception):
    """A vector file is gone because a later one took its place."""


def _fill(storage: Storage, at: Layout, *, link: bool, progress: Callable[[CheckProgress], None]) -> dict[str, int]:
    """Copy everything into a folder that is not there yet by its name."""
    if at.root.is_relative_to(storage.layout.root):
        raise StoreExists(f"{at.root.parent} lies inside {storage.layout.root}; choose a folder outside of it")
    at.catalog.unlink(missing_ok=True)
    with storage.catalog.read() as con:
        files = con.execute("SELECT space, shard, bytes, checksum FROM shards ORDER BY ALL").fetchall()
        spaces = [s for (s,) in con.execute("SELECT space FROM spaces").fetchall()]
        count = read_commit_count(con)
        connection.attach_new_file(con, at.catalog, "copy")
        try:
            con.execute("COPY FROM DATABASE cat TO copy")
            con.execute("CHECKPOINT copy")
        finally:
            con.execute("DETACH copy")
    shutil.copyfile(storage.layout.marker, at.marker)
    commit_counter.reset(at.root, count)
    for space in spaces:
        at.shards_folder(space).mkdir(parents=True)
        if storage.layout.space_file(space).exists():
            shutil.copyfile(storage.layout.space_file(space), at.space_file(space))
    total, done = sum(int(f[2]) for f in files), 0
    for space, number, size, checksum in files:
        _copy(storage, space, number, checksum, at.shard_file(space, number), link=link)
        done += int(size)
        progress(CheckProgress("vectors", done, total))
    for name in BESIDE:
        if (storage.layout.root / name).is_dir():
            shutil.copytree(storage.layout.root / name, at.root / name)
    return {"shards": len(files), "bytes": total}


def _copy(storage: Storage, space: str, number: int, checksum: str, target: Path, *, link: bool) -> None:
    """One vector file, compared with its checksum after copying."""
    source = storage.layout.shard_file(space, number)
    try:
        _link_or_copy(source, target, link=link)
    except FileNotFoundError as e:
        with storage.catalog.read() as con:
            still = con.execute("SELECT 1 FROM shards WHERE space = ? AND shard = ?", [space, number]).fetchone()
        if still:
            raise StoreDamaged(f"{source} is missing; run `embedstore repair`") from e
        raise _Replaced(f"{source} was replaced while it was to be copied; run it again") from e
    found = shard.Shard(target)
    if found.header.checksum != checksum:
        raise StoreDamaged(f"{source} is another file than the catalog says; run `embedstore repair`")
    try:
        found.verify()
    except StoreDamaged as e:
        raise StoreDamaged(f"{source} does not match its checksum; run `embedstore repair`") from e


def _link_or_copy(source: Path, target: Path, *, link: bool) -> None:
    """A hard link where it is asked for and possible."""
    if link:
        try:
            os.link(source, target)
        except FileNotFoundError:
            raise
        except OSError as e:
            raise StoreIOError(f"cannot link {source} to {target}: {e.strerror}; leave --link out") from e
        return
    shutil.copyfile(source, target)

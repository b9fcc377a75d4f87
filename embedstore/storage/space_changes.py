"""Rename a space, or remove it with its vectors, indexes and checkpoint; the disk space is free afterwards."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from embedstore.errors import QueryError, SpaceMismatch
from embedstore.storage import disk_errors, durable_files, reading
from embedstore.storage.queries import space_rows
from embedstore.storage.spaces import SpaceRecord, related_spaces
from embedstore.storage.storage import Storage
from embedstore.storage.writer import Writer

DROP_MARKER = "DROPPED"  # in a space's folder: its files may be removed once the catalog does not have the space


def rename_space(storage: Storage, writer: Writer, old: str, new: str) -> None:
    """Give a space another name.

    Args:
        storage: the store.
        writer: the writer of the store.
        old: the name or key of the space.
        new: its new name.

    Raises:
        SpaceNotFound: if there is no space of the old name.
        QueryError: if the new name is empty or belongs to another space.
    """
    record = storage.space(old)
    if not new.strip() or any(new in (s.name, s.key) for s in storage.spaces() if s.key != record.key):
        raise QueryError(f"{new!r} is empty or the name of another space")
    with writer.transaction() as con:
        space_rows.rename_space(con, record.key, new)
    writer.update_space_files()


def drop_space(storage: Storage, writer: Writer, space: SpaceRecord) -> dict[str, int]:
    """Remove a space.

    One transaction removes it from the catalog, then its files are removed. After a crash in between, the next call
    removes them.

    Args:
        storage: the store.
        writer: the writer of the store.
        space: the space to remove.

    Returns:
        ``{"vectors", "bytes"}``: the removed vectors, and the freed bytes, files of earlier calls included.

    Raises:
        SpaceMismatch: if heads depend on the space, or it is the default or the only space.
        StoreIOError: if the disk fails.
    """
    _check_unused(storage, space)
    folder = storage.layout.space_folder(space.key)
    with disk_errors.disk_errors(f"write {folder}"):
        storage.layout.shards_folder(space.key).mkdir(parents=True, exist_ok=True)
        durable_files.write_synced(folder / DROP_MARKER, b"")
    with writer.transaction() as con:
        vectors = space_rows.delete_space(con, space.key)
    writer.checkpoint()  # a lost log must not refer to the files again
    return {"vectors": vectors, "bytes": remove_dropped_spaces(storage)}


def remove_dropped_spaces(storage: Storage) -> int:
    """Remove the files of dropped spaces, and return the freed bytes. The caller holds the writer's lock."""
    known = {record.key for record in storage.spaces()}
    freed = 0
    for marker in storage.layout.root.glob(f"spaces/*/{DROP_MARKER}"):
        folder = marker.parent
        if folder.name in known:
            with disk_errors.disk_errors(f"remove {marker}", cure="run it again"):
                marker.unlink()  # the call that wrote it stopped before its transaction
            continue
        for path in (storage.layout.root / "checkpoints" / folder.name, folder):
            freed += _remove_folder(path, last=path / DROP_MARKER)
    return freed


def _check_unused(storage: Storage, space: SpaceRecord) -> None:
    """Raise :class:`SpaceMismatch` if something needs the space."""
    with storage.catalog.read() as con:
        heads = space_rows.heads_of_space(con, space.key)
    spaces = storage.spaces()
    if heads:
        related = related_spaces(spaces, space.key)
        other = next((shlex.quote(s.name) for s in spaces if s.key in related), None)
        refit = f"`embedstore set-default STORE {other} --refit-heads` fits them there, " if other else ""
        raise SpaceMismatch(
            f"heads depend on space {space.name}: {', '.join(heads)}; {refit}"
            "`embedstore heads STORE --delete NAME` removes one"
        )
    others = [s.name for s in spaces if s.key != space.key]
    if not others:
        raise SpaceMismatch(
            f"{space.name} is the only space of {storage.layout.root}; delete the folder to remove the whole store"
        )
    if space.is_default:
        raise SpaceMismatch(
            f"{space.name} is the default space; run `embedstore set-default STORE {shlex.quote(others[0])}` first"
        )


def _remove_folder(folder: Path, *, last: Path) -> int:
    """Remove a folder and its files, one file last, and return the freed bytes."""
    if not reading.is_folder(folder):
        return 0
    with disk_errors.disk_errors(f"remove {folder}", cure="run it again"):
        freed = reading.folder_size(folder)
        for path in reading.list_folder(folder):
            if reading.is_folder(path):
                shutil.rmtree(path)
            elif path != last:
                path.unlink()
        last.unlink(missing_ok=True)
        folder.rmdir()
        durable_files.sync_folder(folder.parent)
    return freed

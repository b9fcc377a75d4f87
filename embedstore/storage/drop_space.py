"""A space taken out of a store with its vectors, indexes and checkpoint; the disk is free afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from embedstore.errors import SpaceMismatch
from embedstore.storage import disk_errors, durable_files, recover
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage, Writer

DROP_MARKER = "DROPPED"  # in a space's folder: what is in it may go once the catalog does not know the space


def drop_space(storage: Storage, writer: Writer, space: SpaceRecord) -> dict[str, int]:
    """Remove a space.

    The catalog forgets it in one transaction, then its files go. After a kill in between the next call removes them.

    Returns:
        ``{"vectors", "bytes"}``: rows forgotten and bytes freed, what an earlier call left among them.

    Raises:
        SpaceMismatch: heads depend on it, or it is the current one; names them and the cure.
        StoreIOError: the disk refuses.
    """
    _must_be_free(storage, space)
    at = storage.layout
    with disk_errors.disk_errors(f"write {at.root / 'spaces' / space.key}"):
        at.shards_folder(space.key).mkdir(parents=True, exist_ok=True)
        durable_files.write_synced(at.root / "spaces" / space.key / DROP_MARKER, b"")
    with writer.transaction() as con:
        vectors = con.execute("SELECT count(*) FROM vectors WHERE space = ?", [space.key]).fetchall()[0][0]
        for table in ("vectors", "shards", "failures", "spaces"):
            con.execute(f"DELETE FROM {table} WHERE space = ?", [space.key])
    recover.guarded_checkpoint(at, storage.catalog)  # a lost log must not name the files again
    return {"vectors": int(vectors), "bytes": remove_dropped_spaces(storage)}


def remove_dropped_spaces(storage: Storage) -> int:
    """Remove the files of dropped spaces; bytes freed. The caller holds the writer's lock."""
    known = {row.key for row in storage.spaces()}
    freed = 0
    for tomb in storage.layout.root.glob(f"spaces/*/{DROP_MARKER}"):
        folder = tomb.parent
        if folder.name in known:
            tomb.unlink()  # the catalog still has it: the call that wrote this did not get so far
            continue
        for path in (storage.layout.root / "checkpoints" / folder.name, folder):
            freed += _remove(path, last=path / DROP_MARKER)
    return freed


def _must_be_free(storage: Storage, space: SpaceRecord) -> None:
    """Refuse to drop what something needs."""
    heads = storage.sql("SELECT head FROM heads WHERE space = ? ORDER BY head", [space.key])[1]
    if heads:
        names = ", ".join(h for (h,) in heads)
        raise SpaceMismatch(
            f"heads depend on space {space.name}: {names}; `embedstore use STORE OTHER --refit` fits them in another "
            "space, `embedstore heads STORE --forget NAME` removes one"
        )
    others = [s.name for s in storage.spaces() if s.key != space.key]
    if not others:
        raise SpaceMismatch(
            f"{space.name} is the only space of {storage.layout.root}; delete the folder to drop it all"
        )
    if space.is_default:
        raise SpaceMismatch(
            f"{space.name} is the space that is used when none is named; `embedstore use STORE {others[0]}` first"
        )


def _remove(folder: Path, *, last: Path) -> int:
    """A folder and what is in it, one file last; bytes freed."""
    if not folder.is_dir():
        return 0
    with disk_errors.disk_errors(f"remove {folder}", cure="run it again"):
        freed = sum(Path(f, n).stat().st_size for f, _, names in os.walk(folder) for n in names)
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != last:
                path.unlink()
        last.unlink(missing_ok=True)
        folder.rmdir()
        durable_files.sync_folder(folder.parent)
    return freed

"""Files in the folder ``cache`` of a store: derived, safe to delete at any time, and perhaps from somebody else."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from embedstore.errors import UnsafeStore
from embedstore.storage.store_files import read_bounded


def read_derived(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a derived file.

    Raises:
        OSError: if there is none, or it cannot be read.
        ValueError: if it has more than ``max_bytes``.
        UnsafeStore: if it or one of its two folders is a link.
    """
    if _is_linked(path):
        raise UnsafeStore(f"{path.parent} is a link, and was not opened; delete it")
    return read_bounded(path, max_bytes)


def write_derived(path: Path, data: bytes) -> None:
    """Write a derived file; a disk that is full or cannot be written to is no error: it is derived again."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    if _is_linked(path):
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.unlink(missing_ok=True)  # it may be a link
            with temporary.open("xb") as f:
                f.write(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def delete_derived(folder: Path) -> None:
    """Delete the derived files of a folder of the cache; a link is deleted, and not followed.

    Raises:
        OSError: if one cannot be deleted.
    """
    if folder.parent.is_symlink() or not folder.is_dir() or folder.is_symlink():
        return
    for path in folder.iterdir():
        path.unlink(missing_ok=True)


def _is_linked(path: Path) -> bool:
    """Return whether a file is reached by a link."""
    return path.parent.is_symlink() or path.parent.parent.is_symlink()

"""Bytes that are on the disk when a call returns, and the checksum of a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import xxhash

_BLOCK = 1 << 22  # bytes read at a time


def file_xxh3(path: Path) -> str:
    """XXH3-128 of a file, 32 hexadecimal digits."""
    h = xxhash.xxh3_128()
    with path.open("rb") as f:
        while block := f.read(_BLOCK):
            h.update(block)
    return h.hexdigest()


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Force a folder's entries to the disk (a rename is not durable before this). A no-op on Windows."""
    if os.name != "nt":
        sync_file(path)


def sync_tree(root: Path) -> None:
    """Force everything below a folder to the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync_file(Path(folder, name))
        sync_folder(Path(folder))


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file and force the copy to the disk."""
    shutil.copyfile(source, target)
    sync_file(target)


@contextmanager
def atomic_write(target: Path, suffix: str = ".new") -> Iterator[BinaryIO]:
    """A whole new file or the old one: temporary name, fsync, rename, fsync of the folder.

    Args:
        target: what it will be called. suffix: of the temporary name.

    Raises:
        OSError: the disk refuses; ``target`` is as it was, and nothing is left beside it.
    """
    temporary = target.with_name(target.name + suffix)
    try:
        with temporary.open("wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def write_synced(target: Path, data: bytes) -> None:
    """The same of a few bytes."""
    with atomic_write(target) as f:
        f.write(data)


def write_output(target: Path, data: bytes) -> None:
    """Write a file that a user named: create missing parent folders, then write it as :func:`write_synced`.

    Args:
        target: Final path.
        data: Content of the file.

    Raises:
        OSError: if the disk refuses; ``target`` is unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    write_synced(target, data)

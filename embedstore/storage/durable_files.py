"""Write files and folders that are on the disk when the call returns, and compute checksums of files."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import xxhash

from embedstore.storage.store_files import copy_regular, open_binary, require_no_holes

_BLOCK = 1 << 22  # bytes read at a time


def file_xxh3(path: Path) -> str:
    """Return the XXH3-128 of a file as 32 hexadecimal digits.

    Raises:
        UnsafeStore: if it is mostly holes: a terabyte of them would be read for minutes.
        OSError: if the file cannot be read.
    """
    require_no_holes(path)
    h = xxhash.xxh3_128()
    with open_binary(path) as f:
        while block := f.read(_BLOCK):
            h.update(block)
    return h.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        UnsafeStore: if it is mostly holes.
        OSError: if the file cannot be read.
    """
    require_no_holes(path)
    with open_binary(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    fd = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Force a folder's entries to the disk: a rename is not durable before. Does nothing on Windows."""
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
    copy_regular(source, target)
    sync_file(target)


@contextmanager
def atomic_path(target: Path, suffix: str = ".new") -> Iterator[Path]:
    """Yield a temporary path; force the file written there to the disk and rename it to ``target``.

    Args:
        target: final path; a file that exists there is replaced.
        suffix: suffix of the temporary name.

    Yields:
        The temporary path, in the folder of ``target``.

    Raises:
        OSError: if the disk refuses; ``target`` is unchanged and the temporary file is removed.
    """
    temporary = target.with_name(target.name + suffix)
    try:
        temporary.unlink(missing_ok=True)  # it may be a link, in a store from somebody else
        yield temporary
        sync_file(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


@contextmanager
def atomic_write(target: Path, suffix: str = ".new") -> Iterator[BinaryIO]:
    """Yield a binary file that replaces ``target`` when the block ends; see :func:`atomic_path`.

    Args:
        target: final path; a file that exists there is replaced.
        suffix: suffix of the temporary name.

    Yields:
        The temporary file, open for writing.

    Raises:
        OSError: if the disk refuses; ``target`` is unchanged and the temporary file is removed.
    """
    with atomic_path(target, suffix) as temporary, temporary.open("wb") as f:
        yield f


def write_synced(target: Path, data: bytes) -> None:
    """Replace ``target`` with a file of these bytes; see :func:`atomic_path`.

    Args:
        target: final path.
        data: content of the file.

    Raises:
        OSError: if the disk refuses; ``target`` is unchanged.
    """
    with atomic_write(target) as f:
        f.write(data)


def write_output(target: Path, data: bytes) -> None:
    """Write a file that a user named: create missing parent folders, then write it as :func:`write_synced`.

    Args:
        target: final path.
        data: content of the file.

    Raises:
        OSError: if the disk refuses; ``target`` is unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    write_synced(target, data)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Fill a temporary folder next to ``target``, force it to the disk, and rename it into place.

    Temporary folders of the same target that crashed processes left are removed first.

    Args:
        target: final path; absent, or an empty folder.

    Yields:
        The temporary folder.

    Raises:
        OSError: if the disk refuses; the temporary folder is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.creating")
    try:
        temporary.mkdir()
        yield temporary
        sync_tree(temporary)
        temporary.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _remove_abandoned(target: Path) -> None:
    """Remove the temporary folders of crashed processes; nothing in them was ever acknowledged."""
    for folder in target.parent.glob(f".{glob.escape(target.name)}.*.creating"):
        pid = folder.name.removeprefix(f".{target.name}.").removesuffix(".creating")
        if pid.isdigit() and (int(pid) == os.getpid() or not _is_running(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    """Return whether a process runs; True where the system does not answer."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True

"""The files of a store, which may come from somebody else: regular files and folders, no links, JSON of limited size.

Every store is checked here before it is opened (:func:`require_regular_entries`), and its files are opened here
(:func:`open_regular`): a link, a named pipe or a device is never followed, waited for, read or written.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from embedstore.errors import UnsafeStore
from embedstore.json_objects import parse_json_object
from embedstore.storage.reading import is_absent, unreadable

MAX_JSON_BYTES = 16 << 20  # of a JSON file: half a million vector files in the description of an index
MAX_HEAD_BYTES = 256 << 20  # of head.json; the names of a million classes take about 30 MB
_SAFE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_MIN_SPARSE_BYTES, _MAX_COMPRESSION = 1 << 30, 64  # file systems that compress store a part of a file's length
_COPY_BLOCK = 1 << 22  # bytes copied at a time
_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@dataclass(frozen=True)
class IrregularEntry:
    """Something in a store's folder that is neither a regular file nor a folder.

    Attributes:
        path: relative to the store, with ``/``.
        kind: such as ``symbolic link``.
        target: where a link points.
    """

    path: str
    kind: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.path!r} is a {self.kind}" + (f" to {self.target!r}" if self.target else "")


def irregular_entries(root: Path, names: Sequence[str]) -> Iterator[IrregularEntry]:
    """Yield what is neither a regular file nor a folder among the entries of a folder, and below them.

    Args:
        root: the folder; it may itself be a link.
        names: how the entries of the folder begin that are looked at, in lower case: the others are never opened.

    Yields:
        The entries, in no order.

    Raises:
        OSError: if a folder cannot be listed.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        with _scan(root / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                if not folder and not entry.name.lower().startswith(tuple(names)):
                    continue
                if _is_link(entry) or not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                    yield _describe(Path(entry.path), path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(f"{path}/")


def _scan(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    """List a folder; one that a writer removed meanwhile has no entries."""
    try:
        return os.scandir(folder)
    except FileNotFoundError:
        return nullcontext(iter(()))


def require_regular_entries(root: Path, names: Sequence[str], *, cure: str) -> None:
    """Refuse a folder that holds links, named pipes, sockets or devices.

    Args:
        root: the folder; it may itself be a link.
        names: how the entries of the folder begin that are looked at, in lower case.
        cure: what the user can do.

    Raises:
        UnsafeStore: if there is one.
        StoreUnreadable: if a folder cannot be listed now.
    """
    try:
        found = next(irregular_entries(root, names), None)
    except OSError as e:
        raise unreadable(Path(e.filename or root), e) from e
    if found is not None:
        raise UnsafeStore(f"{root} was not opened: {found}, and only regular files and folders belong there; {cure}")


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a regular file; links are not followed, and nothing is waited for.

    Args:
        path: the file.
        flags: as for :func:`os.open`.

    Raises:
        UnsafeStore: if it is a link, a named pipe, a socket or a device; or if it shall be written and has a second
            name, which may be outside of the store.
        OSError: if it cannot be opened.
    """
    try:
        fd = os.open(path, flags | _SAFE_FLAGS, 0o666)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise _unsafe(path, "is a link, a socket or a device, and was not opened") from e
        raise
    try:
        s = os.fstat(fd)
        if not stat.S_ISREG(s.st_mode) and not stat.S_ISDIR(s.st_mode):
            raise _unsafe(path, "is not a regular file, and was not opened")
        if flags & (os.O_WRONLY | os.O_RDWR):
            _require_one_name(path, s)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_binary(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        UnsafeStore: if it is a link, a named pipe, a socket or a device.
        OSError: if it cannot be opened.
    """
    return os.fdopen(open_regular(path), "rb")


def require_writable_in_place(path: Path) -> None:
    """Refuse a file that shall be changed in place, and that is not a regular file with one name.

    Args:
        path: the file; it may be missing.

    Raises:
        UnsafeStore: if it is a link, or has a second name, which may be outside of the store.
        StoreUnreadable: if it cannot be looked at now.
    """
    try:
        s = path.lstat()
    except OSError as e:
        if is_absent(e):
            return
        raise unreadable(path, e) from e
    if not stat.S_ISREG(s.st_mode):
        raise _unsafe(path, "is not a regular file, and was not opened")
    _require_one_name(path, s)


def require_no_holes(path: Path) -> None:
    """Refuse a large file that takes hardly any space: it would be read and copied in its whole length.

    Raises:
        UnsafeStore: if it is one.
    """
    try:
        s = path.stat()
    except OSError:  # who opens it reports that
        return
    if _is_mostly_holes(s):
        raise UnsafeStore(
            f"{path} {_stored_size(s)}, and was not read; restore it from a backup, or ask for an export of the store"
        )


def copy_regular(source: str | Path, target: str | Path) -> None:
    """Copy a regular file that is not mostly holes.

    Args:
        source: the file.
        target: the copy.

    Raises:
        UnsafeStore: if it is a link, a named pipe, a socket or a device, or is mostly holes.
        OSError: if it cannot be copied.
    """
    require_no_holes(Path(source))
    with open_binary(Path(source)) as f, Path(target).open("wb") as copy:
        shutil.copyfileobj(f, copy, _COPY_BLOCK)


def read_bounded(path: Path, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """Return the bytes of a file of limited size.

    Raises:
        UnsafeStore: if it is a link, a named pipe, a socket or a device.
        OSError: if it cannot be read.
        ValueError: if it is larger, or is mostly holes.
    """
    with open_binary(path) as f:
        s = os.fstat(f.fileno())
        if s.st_size > max_bytes:  # before its bytes are read, which can be a terabyte of holes
            raise ValueError(f"it has {s.st_size:,} bytes, of {max_bytes:,} at most")
        if _is_mostly_holes(s):
            raise ValueError(f"it {_stored_size(s)}")
        data = f.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    return data


def read_json_object(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file of limited size.

    Raises:
        UnsafeStore: if it is a link, a named pipe, a socket or a device.
        OSError: if it cannot be read.
        ValueError: if it is larger, is mostly holes, is not JSON, or is nested too deeply.
        TypeError: if it is not an object.
    """
    return parse_json_object(read_bounded(path, max_bytes))


def _is_mostly_holes(s: os.stat_result) -> bool:
    """Return whether a large file takes hardly any space."""
    return s.st_size > _MIN_SPARSE_BYTES and _stored_bytes(s) < s.st_size // _MAX_COMPRESSION


def _stored_bytes(s: os.stat_result) -> int:
    """Return the bytes that a file takes on the disk; its length where the system does not say it."""
    return int(getattr(s, "st_blocks", s.st_size // 512) * 512)


def _stored_size(s: os.stat_result) -> str:
    """Return the sizes of a file that is mostly holes, in words."""
    return f"has {s.st_size:,} bytes of which {_stored_bytes(s):,} are stored"


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a symbolic link, or a junction of Windows."""
    is_junction = getattr(entry, "is_junction", None)
    return entry.is_symlink() or bool(is_junction and is_junction())


def _describe(path: Path, relative: str) -> IrregularEntry:
    """Return what an entry is."""
    kind = _KINDS.get(stat.S_IFMT(path.lstat().st_mode), "junction")
    try:
        target = os.fspath(path.readlink()) if kind in ("symbolic link", "junction") else ""
    except OSError:
        target = ""
    return IrregularEntry(relative, kind, target)


def _require_one_name(path: Path, s: os.stat_result) -> None:
    """Refuse a regular file with a second name: a change in place would also change that file."""
    if stat.S_ISREG(s.st_mode) and s.st_nlink > 1:
        raise _unsafe(path, "has a second name (a hard link), and a change of it would change that file too")


def _unsafe(path: Path, problem: str) -> UnsafeStore:
    """Return the error for one file."""
    return UnsafeStore(f"{path} {problem}; copy the store without links (`cp -rL STORE COPY`) and use the copy")

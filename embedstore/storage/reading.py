"""Look at the files of a store, and keep apart what is absent, what cannot be read now, and what was read.

A passing error of the system (no permission, too many open files, no memory, a stale mount, a failing disk) says
nothing about the bytes of a file. It is reported as :class:`~embedstore.errors.StoreUnreadable`, and nothing is
repaired, removed or rebuilt because of it. ``Path.exists``, ``Path.is_file`` and ``Path.glob`` hide such errors,
depending on the version of Python, so code that decides what becomes of a file uses these functions.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedstore.errors import EmbedstoreError, StoreDamaged, StoreUnreadable

# Errors that say what is, or is not, at a path; every other one says only that the system did not answer.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})

_CURES = {
    errno.EACCES: "give this user the permission",
    errno.EPERM: "give this user the permission",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "close programs that have many files open",
    errno.ENOMEM: "free memory",
    errno.ESTALE: "mount the file system again",
    errno.EIO: "check the disk",
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.EROFS: "mount the file system for writing",
}
_MESSAGES = sorted(((os.strerror(c), c) for c in errno.errorcode if c not in ABSENT), key=lambda m: -len(m[0]))


_FILE_IN_MESSAGE = re.compile(r'file "([^"]+)"')  # as DuckDB names it


def is_absent(error: OSError) -> bool:
    """Return whether an error says that there is no such file, or that something else is at its path."""
    return error.errno in ABSENT


def cure_of(code: int | None, otherwise: str = "check the disk") -> str:
    """Return what a person can do about an error of the system."""
    return _CURES.get(code or 0, otherwise)


def unreadable(path: Path, error: OSError) -> StoreUnreadable:
    """Return the error for a file that cannot be read now."""
    return _unreadable(path, error.strerror or str(error), error.errno)


def passing_error(path: Path, message: str) -> StoreUnreadable | None:
    """Return the error for a file that a library could not read now, None if its message is about something else.

    Args:
        path: the file.
        message: the message of the library's error; DuckDB and FAISS end theirs with the text of the system's error.
    """
    code = next((code for text, code in _MESSAGES if f": {text}" in message), None)
    named = _FILE_IN_MESSAGE.search(message)
    if code is None or (named and not _is_file_or_log(named[1], path)):
        return None
    return _unreadable(path, os.strerror(code), code)


def passing_error_of_named_file(message: str) -> StoreUnreadable | None:
    """Return the error for the file that a library's message names and could not read now, None for other messages."""
    named = _FILE_IN_MESSAGE.search(message)
    return passing_error(Path(named[1].removesuffix(".wal")), message) if named else None


def _is_file_or_log(named: str, path: Path) -> bool:
    """Return whether DuckDB names a file or its log; the path may be the name alone, as reports show it."""
    file = Path(named.removesuffix(".wal"))
    return file.name == path.name and (len(path.parts) == 1 or file.resolve() == path.resolve())


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Report why a file that the store needs was not read.

    Raises:
        StoreDamaged: if the file is missing.
        StoreUnreadable: if it cannot be read now.
    """
    try:
        yield
    except OSError as e:
        if isinstance(e, EmbedstoreError):
            raise
        if is_absent(e):
            raise StoreDamaged(f"{path} is missing ({e.strerror}); run `embedstore repair STORE`") from e
        raise unreadable(path, e) from e


def exists(path: Path) -> bool:
    """Return whether something is at a path.

    Raises:
        StoreUnreadable: if the system does not answer.
    """
    return _mode(path) is not None


def is_file(path: Path) -> bool:
    """Return whether a regular file is at a path.

    Raises:
        StoreUnreadable: if the system does not answer.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_folder(path: Path) -> bool:
    """Return whether a folder is at a path.

    Raises:
        StoreUnreadable: if the system does not answer.
    """
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_link(path: Path) -> bool:
    """Return whether a symbolic link is at a path.

    Raises:
        StoreUnreadable: if the system does not answer.
    """
    mode = _mode(path, follow_links=False)
    return mode is not None and stat.S_ISLNK(mode)


def file_size(path: Path) -> int:
    """Return the bytes of a file that the store needs.

    Raises:
        StoreDamaged: if the file is missing, or a part of its path is not a folder.
        StoreUnreadable: if the system does not answer.
    """
    with read_errors(path):
        return path.stat().st_size


def folder_size(folder: Path) -> int:
    """Return the bytes of every file below a folder; links are not followed, and what is removed meanwhile counts 0.

    Raises:
        StoreUnreadable: if a folder or a file cannot be looked at now.
    """
    return sum(_size_or_zero(Path(parent, name)) for parent, _, names in _walk(folder) for name in names)


def list_folder(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the entries of a folder that match a pattern, by name; none if there is no folder.

    Raises:
        StoreUnreadable: if the folder cannot be listed now.
    """
    try:
        paths = list(folder.iterdir())
    except OSError as e:
        if is_absent(e):
            return []
        raise unreadable(folder, e) from e
    return sorted(path for path in paths if path.match(pattern))


def list_files(folder: Path) -> list[Path]:
    """Return the regular files below a folder, sorted; none if there is no folder. Links are left out.

    Raises:
        StoreUnreadable: if a folder or a file cannot be looked at now: ``rglob`` would leave it out in silence.
    """
    paths = (Path(parent, name) for parent, _, names in _walk(folder) for name in names)
    return sorted(path for path in paths if stat.S_ISREG(_mode(path, follow_links=False) or 0))


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk through a folder; unlike ``os.walk``, do not hide that a folder cannot be listed."""

    def refuse(error: OSError) -> None:
        if not is_absent(error):
            raise unreadable(Path(error.filename), error) from error

    return os.walk(folder, onerror=refuse)


def _size_or_zero(path: Path) -> int:
    """Return the bytes of a file itself, not of what it links to; 0 if nothing is there."""
    try:
        return path.lstat().st_size
    except OSError as e:
        if is_absent(e):
            return 0
        raise unreadable(path, e) from e


def _mode(path: Path, *, follow_links: bool = True) -> int | None:
    """Return the mode of what is at a path; None if nothing is there."""
    try:
        return path.stat(follow_symlinks=follow_links).st_mode
    except ValueError:  # a name that no file can have
        return None
    except OSError as e:
        if is_absent(e):
            return None
        raise unreadable(path, e) from e


def _unreadable(path: Path, problem: str, code: int | None) -> StoreUnreadable:
    return StoreUnreadable(
        f"cannot read {path} now: {problem}; it may be whole and was left as it is; {cure_of(code)} and run it again"
    )

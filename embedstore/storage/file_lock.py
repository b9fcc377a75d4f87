"""Locks of open files, which end with the process that holds them."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from embedstore.errors import StoreIOError
from embedstore.storage.reading import cure_of

NO_LOCK_CODES = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of a file system without locks

if os.name == "nt":  # pragma: no cover - exercised on Windows only
    import msvcrt

    def try_lock(f: IO[Any], path: Path) -> bool:
        """Take the lock; False if another process holds it. The byte is behind the text, which stays readable."""
        f.seek(1 << 20)
        try:
            msvcrt.locking(f.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True

    def release(f: IO[Any]) -> None:
        """Release the lock."""
        f.seek(1 << 20)
        with suppress(OSError):
            msvcrt.locking(f.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]

    def is_free(f: IO[Any]) -> bool:
        """Return whether nobody holds the lock of an open file."""
        if not try_lock(f, Path()):
            return False
        release(f)
        return True
else:
    import fcntl

    def try_lock(f: IO[Any], path: Path) -> bool:
        """Take the lock; False if another process holds it.

        Raises:
            StoreIOError: if the file system has no locks.
        """
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as e:
            raise _lock_error(path, e) from e
        return True

    def release(f: IO[Any]) -> None:
        """Release the lock, also for a child that was forked in the meantime and has the same open file."""
        fcntl.flock(f, fcntl.LOCK_UN)

    def is_free(f: IO[Any]) -> bool:
        """Return whether nobody holds the lock of an open file; it needs no permission to write."""
        try:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        fcntl.flock(f, fcntl.LOCK_UN)
        return True


def is_current(f: IO[Any], path: Path) -> bool:
    """Return whether an open file is still the one at its path; it may have been replaced or removed."""
    try:
        return os.path.samestat(os.fstat(f.fileno()), path.stat())
    except OSError:
        return False


def no_locks(path: Path) -> StoreIOError:
    """Return the error for a file system that has no locks."""
    return StoreIOError(
        f"cannot lock {path}: its file system has no file locks, without which a store is not safe; copy the store to "
        "a local disk, or mount the file system with locks (NFS: with its lock service, without `nolock`)"
    )


def _lock_error(path: Path, error: OSError) -> StoreIOError:
    """Return the error for a lock that cannot be taken, whoever holds it."""
    if error.errno in NO_LOCK_CODES:
        return no_locks(path)
    return StoreIOError(f"cannot lock {path}: {error.strerror}; {cure_of(error.errno)} and run it again")

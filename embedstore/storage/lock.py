"""The lock of the only writer, across processes; readers need no lock."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from embedstore.errors import StoreBusy, StoreIOError, StoreNotFound
from embedstore.storage.reading import cure_of, exists, is_absent
from embedstore.storage.store_files import open_binary, open_regular

NO_LOCK_CODES = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of a file system without locks

if os.name == "nt":  # pragma: no cover - exercised on Windows only
    import msvcrt

    def _acquire(f: IO[str]) -> bool:
        """Take the lock; False if another process holds it. The byte is behind the text, which stays readable."""
        f.seek(1 << 20)
        try:
            msvcrt.locking(f.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True

    def _release(f: IO[str]) -> None:
        """Release the lock."""
        f.seek(1 << 20)
        with suppress(OSError):
            msvcrt.locking(f.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]

    def _can_share(f: IO[Any]) -> bool:
        """Return whether nobody holds the lock."""
        if not _acquire(f):
            return False
        _release(f)
        return True
else:
    import fcntl

    def _can_share(f: IO[Any]) -> bool:
        """Return whether nobody holds the lock."""
        try:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _acquire(f: IO[str]) -> bool:
        """Take the lock; False if another process holds it."""
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as e:
            raise _lock_error(Path(f.name), e) from e
        return True

    def _release(f: IO[str]) -> None:
        """Release the lock, also for a child that was forked in the meantime and has the same open file."""
        fcntl.flock(f, fcntl.LOCK_UN)


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


@dataclass(frozen=True)
class WriterLock:
    """The lock that a writer holds.

    Attributes:
        pid: the process that holds it.
        unclean: whether the previous writer ended without releasing it: it was killed, or the power failed.
    """

    pid: int
    after_crash: bool


@contextmanager
def writer_lock(path: Path, operation: str, *, wait: float = 0.0) -> Iterator[WriterLock]:
    """Hold the lock of the only writer.

    Args:
        path: the ``LOCK`` file.
        operation: a few words for other writers that have to wait.
        wait: seconds to wait for another writer.

    Raises:
        StoreBusy: if another process is writing; names the process, since when, and its operation.
        StoreIOError: if the folder cannot be written to.
        UnsafeStore: if the lock file is a link, or has a second name.
    """
    f = _open_locked(path, time.monotonic() + wait)
    held = WriterLock(os.getpid(), after_crash=_holder(f) is not None)
    with f:
        _write(f, {"pid": held.pid, "since": datetime.now(UTC).isoformat(timespec="seconds"), "doing": operation})
        try:
            yield held
        finally:
            if os.getpid() == held.pid:  # a forked child that leaves the block does not hold the lock
                _write(f, None)
                _release(f)


def _open_locked(path: Path, deadline: float) -> IO[str]:
    """Open and lock the lock file."""
    while True:
        f = _open(path)
        if _acquire(f):
            if _is_current(f, path):
                return f
        elif time.monotonic() >= deadline:
            with f:
                holder = _holder(f) or "another process"
            raise StoreBusy(f"{path.parent} is being written by {holder}; wait for it, or pass --wait SECONDS")
        f.close()
        time.sleep(0.05)


def _open(path: Path) -> IO[str]:
    """Open the lock file, and create it if it is missing."""
    try:
        return os.fdopen(open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+", encoding="utf-8")
    except OSError as e:
        if is_absent(e) and not exists(path.parent):
            raise StoreNotFound(f"there is no {path.parent} any more: it was moved or deleted; open it again") from e
        raise StoreIOError(
            f"cannot write to {path.parent}: {e.strerror}; {cure_of(e.errno, 'writing needs permission there')}"
        ) from e


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock; True if that cannot be found out. Needs no permission to write."""
    try:
        f = open_binary(path)
    except OSError as e:
        return not is_absent(e)
    with f:
        return not _can_share(f)


def _is_current(f: IO[str], path: Path) -> bool:
    """Return whether the locked file is still the one at its path; it may have been replaced in the meantime."""
    try:
        return os.path.samestat(os.fstat(f.fileno()), path.stat())
    except OSError:
        return False


def _holder(f: IO[str]) -> str | None:
    """Return who is recorded in the lock file; None if nobody is."""
    f.seek(0)
    try:
        text = f.read(1 << 16)
    except (OSError, UnicodeDecodeError):
        return None
    try:
        d = json.loads(text)
        return f"process {d['pid']} since {d['since']} ({d['doing']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process" if text.strip() else None


def _write(f: IO[str], holder: dict[str, object] | None) -> None:
    """Record who holds the lock, or nobody. A full disk does no harm: the lock holds without the record."""
    with suppress(
        OSError
    ):  # not through the file object: its buffer would be written, and fail, again when it is closed
        os.ftruncate(f.fileno(), 0)
        if holder:
            os.write(f.fileno(), json.dumps(holder).encode())

"""The lock of the only writer, across processes; readers need no lock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from embedstore.errors import StoreBusy, StoreIOError, StoreNotFound, UnsafeStore
from embedstore.storage import forks, wait_queue
from embedstore.storage.file_lock import is_current, is_free, release, try_lock
from embedstore.storage.reading import cure_of, exists, is_absent
from embedstore.storage.store_files import open_binary, open_regular, read_json_object

RECOVERING = "recovering"  # what a reader does that found the traces of a crash, or of a writer that ends just now
_POLL_SECONDS = 0.05
_RECOVERY_SECONDS = 10.0  # that a writer waits for such a reader, even if it is to wait for no other writer
_MAX_RECORD_BYTES = 1 << 16  # of the record of the holder


@dataclass(frozen=True)
class WriterLock:
    """The lock that a writer holds.

    Attributes:
        pid: the process that holds it.
        after_crash: whether the previous writer ended without releasing it: it was killed, or the power failed.
    """

    pid: int
    after_crash: bool


@dataclass(frozen=True)
class LockHolder:
    """Who writes to a store now.

    Attributes:
        pid: the process.
        since: when it began, ISO 8601.
        operation: a few words that say what it does.
    """

    pid: int
    since: str
    operation: str


def lock_holder(path: Path) -> LockHolder | None:
    """Return who holds the lock, None if nobody does or it is not known. Needs no permission to write.

    The record is read first: the lock of a file without one is not tested, which could keep a writer from starting.
    """
    try:
        record = read_json_object(path, _MAX_RECORD_BYTES)
        holder = LockHolder(int(record["pid"]), str(record["since"]), str(record["doing"]))
    except (OSError, ValueError, KeyError, TypeError, UnsafeStore):
        return None
    return holder if is_locked(path) else None


@contextmanager
def writer_lock(path: Path, operation: str, *, wait: float | None = 0.0) -> Iterator[WriterLock]:
    """Hold the lock of the only writer. Writers that wait get it in the order in which they came.

    Args:
        path: the ``LOCK`` file.
        operation: a few words for other writers that have to wait.
        wait: seconds to wait for other writers, those that wait already included. A reader that recovers the store
            is always waited for. None is for a caller without such an option: it does not wait.

    Raises:
        StoreBusy: if another process is writing, or waits to; names the process, since when, and its operation.
        StoreNotFound: if the folder was moved or deleted.
        StoreIOError: if the folder cannot be written to, or its file system has no locks.
    """
    f = _open_locked(path, wait, waits_for_readers=operation != RECOVERING)
    held = WriterLock(os.getpid(), after_crash=_holder(f) is not None)
    with f:
        _write(f, {"pid": held.pid, "since": datetime.now(UTC).isoformat(timespec="seconds"), "doing": operation})
        try:
            yield held
        finally:
            if os.getpid() == held.pid:  # a forked child that leaves the block does not hold the lock
                _write(f, None)
                release(f)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock; True if that cannot be found out. Needs no permission to write."""
    try:
        f = open_binary(path)
    except OSError as e:
        return not is_absent(e)
    with f:
        return not is_free(f)


def _open_locked(path: Path, wait: float | None, *, waits_for_readers: bool) -> IO[str]:
    """Open and lock the lock file, after every writer that waits already."""
    if f := _open_unless_writing(path, _RECOVERY_SECONDS if waits_for_readers else 0.0):
        return f
    if wait is None or wait <= 0:
        raise _busy(path, has_option=wait is not None)
    deadline = time.monotonic() + wait
    with wait_queue.ticket(path, wait) as own:
        while time.monotonic() < deadline:
            if wait_queue.first_in_queue(path) == own and (f := _try_open(path)):
                return f
            time.sleep(_POLL_SECONDS)
    raise _busy(path)


def _open_unless_writing(path: Path, seconds: float) -> IO[str] | None:
    """Return the lock file, open and locked; None if a writer is there, or a reader recovers for longer than that."""
    deadline = time.monotonic() + seconds
    while wait_queue.first_in_queue(path) is None:
        if f := _try_open(path):
            return f
        holder = lock_holder(path)  # None: its record is not written yet, or it has just ended
        if (holder and holder.operation != RECOVERING) or time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_SECONDS)
    return None


def _try_open(path: Path) -> IO[str] | None:
    """Return the lock file, open and locked; None if another process holds the lock."""
    f = _open(path)
    forks.close_in_child(f)
    try:
        if try_lock(f, path) and is_current(f, path):
            return f
    except BaseException:
        f.close()
        raise
    f.close()
    return None


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


def _busy(path: Path, *, has_option: bool = True) -> StoreBusy:
    """Return the error for a lock that another process holds, or waits for."""
    with _open(path) as f:
        holder = _holder(f)
    holder = holder or "another process" if is_locked(path) else "processes that wait for it"
    cure = "wait for it, or pass --wait SECONDS" if has_option else "wait until it has ended"
    return StoreBusy(f"{path.parent} is being written by {holder}; {cure}")


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
    except (ValueError, KeyError, TypeError):
        return "another process" if text.strip() else None


def _write(f: IO[str], holder: dict[str, object] | None) -> None:
    """Record who holds the lock, or nobody. A full disk does no harm: the lock holds without the record."""
    with suppress(
        OSError
    ):  # not through the file object: its buffer would be written, and fail, again when it is closed
        os.ftruncate(f.fileno(), 0)
        if holder:
            os.write(f.fileno(), json.dumps(holder).encode())

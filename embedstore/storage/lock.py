"""One writer at a time, across processes; readers need no lock."""

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

from embedstore.errors import StoreBusy, StoreIOError

if os.name == "nt":  # pragma: no cover - exercised on Windows only
    import msvcrt

    def _acquire(f: IO[str]) -> bool:
        """Take the lock; False if another holds it. The byte lies past the text, which stays readable."""
        f.seek(1 << 20)
        try:
            msvcrt.locking(f.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True

    def _release(f: IO[str]) -> None:
        """Give the lock back."""
        f.seek(1 << 20)
        with suppress(OSError):
            msvcrt.locking(f.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
else:
    import fcntl

    def _acquire(f: IO[str]) -> bool:
        """Take the lock; False if another holds it."""
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _release(f: IO[str]) -> None:
        """Give the lock back, also for a child that was forked meanwhile and holds the same open file."""
        fcntl.flock(f, fcntl.LOCK_UN)


@dataclass(frozen=True)
class WriterLock:
    """The writer's place, as it was found.

    Attributes:
        pid: who holds it.
        unclean: the writer before this one ended without giving it back: it was killed, or the power went.
    """

    pid: int
    after_crash: bool


@contextmanager
def writer_lock(path: Path, operation: str, *, wait: float = 0.0) -> Iterator[WriterLock]:
    """Hold the store's only writer's place.

    Args:
        lock: the ``LOCK`` file.
        doing: a few words for whoever has to wait.
        wait: seconds to wait for another writer to finish.

    Raises:
        StoreBusy: another process is writing; the message says which, since when, and what.
        StoreIOError: the folder cannot be written to.
    """
    f = _locked(path, time.monotonic() + wait)
    held = WriterLock(os.getpid(), after_crash=_holder(f) is not None)
    with f:
        _write(f, {"pid": held.pid, "since": datetime.now(UTC).isoformat(timespec="seconds"), "doing": operation})
        try:
            yield held
        finally:
            if os.getpid() == held.pid:  # a forked child leaving the block holds nothing
                _write(f, None)
                _release(f)


def _locked(lock: Path, deadline: float) -> IO[str]:
    """The lock file, open and locked."""
    while True:
        try:
            f = lock.open("a+", encoding="utf-8")
        except OSError as e:
            raise StoreIOError(f"cannot write to {lock.parent}: {e.strerror}; writing needs permission there") from e
        if _acquire(f):
            if _same(f, lock):
                return f
        elif time.monotonic() >= deadline:
            with f:
                who = _holder(f) or "another process"
            raise StoreBusy(f"{lock.parent} is being written by {who}; wait for it, or pass --wait SECONDS")
        f.close()
        time.sleep(0.05)


def _same(f: IO[str], lock: Path) -> bool:
    """The locked file is the one that is there by that name (it may have been replaced meanwhile)."""
    try:
        return os.path.samestat(os.fstat(f.fileno()), lock.stat())
    except OSError:
        return False


def _holder(f: IO[str]) -> str | None:
    """Who wrote itself into the lock file; None where nobody did."""
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
    """Say who holds the lock, or nobody. The lock holds without it, so a full disk is no obstacle."""
    with suppress(OSError):  # past the file object: its buffer would be written again, and fail again, at the end
        os.ftruncate(f.fileno(), 0)
        if holder:
            os.write(f.fileno(), json.dumps(holder).encode())

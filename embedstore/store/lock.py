"""One writer at a time, across processes; readers need no lock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from embedstore.errors import StoreBusy

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
else:
    import fcntl

    def _acquire(f: IO[str]) -> bool:
        """Take the lock; False if another holds it."""
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def writer(lock: Path, doing: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the store's only writer's place.

    Args:
        lock: the ``LOCK`` file.
        doing: a few words for whoever has to wait.
        wait: seconds to wait for another writer to finish.

    Raises:
        StoreBusy: another process is writing; the message says which, since when, and what.
    """
    deadline = time.monotonic() + wait
    with lock.open("a+", encoding="utf-8") as f:
        while not _acquire(f):
            if time.monotonic() >= deadline:
                raise StoreBusy(f"{lock.parent} is being written by {_holder(f)}; wait for it, or pass --wait SECONDS")
            time.sleep(0.05)
        _write(f, {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds"), "doing": doing})
        try:
            yield
        finally:
            _write(f, None)  # closing the file gives the lock back


def _holder(f: IO[str]) -> str:
    """Who wrote itself into the lock file."""
    f.seek(0)
    try:
        d = json.loads(f.read())
        return f"process {d['pid']} since {d['since']} ({d['doing']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _write(f: IO[str], holder: dict[str, object] | None) -> None:
    """Say who holds the lock, or nobody."""
    f.seek(0)
    f.truncate()
    if holder:
        f.write(json.dumps(holder))
    f.flush()

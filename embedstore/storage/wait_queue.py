"""The queue of writers that wait for a lock: whoever came first is next, and nobody who came later is.

A waiting writer has a ticket: a file ``LOCK.000000001`` next to the lock, which it keeps locked. The number says who
came first. A ticket whose lock is free belongs to a process that ended, and one whose time is over to a process that
is stopped: both are removed by whoever finds them.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from embedstore.storage import forks
from embedstore.storage.disk_errors import disk_errors
from embedstore.storage.file_lock import is_free, release, try_lock
from embedstore.storage.reading import list_folder
from embedstore.storage.store_files import open_binary, open_regular

GRACE_SECONDS = 2.0  # seconds after which a waiting writer should have given up
_DRAFT_SECONDS = 60.0  # after which a ticket without a number is left over


@contextmanager
def ticket(lock: Path, wait: float) -> Iterator[Path]:
    """Wait in the queue of a lock: yield the ticket, and remove it at the end.

    Args:
        lock: the lock file.
        wait: seconds after which the writer gives up.

    Raises:
        StoreIOError: if the folder cannot be written to.
    """
    with disk_errors(f"wait for {lock}"):
        path, f = _draw(lock)
        os.write(f.fileno(), f"{time.time() + wait:.3f}".encode())
    try:
        yield path
    finally:
        with suppress(OSError, ValueError):  # a forked child has it closed
            path.unlink(missing_ok=True)
            release(f)
        f.close()


def first_in_queue(lock: Path) -> Path | None:
    """Return the ticket of the writer that is next, None if nobody waits; tickets of ended processes are removed."""
    for path in _tickets(lock):
        if _is_waiting(path):
            return path
        with suppress(OSError):
            path.unlink(missing_ok=True)
    return None


def _draw(lock: Path) -> tuple[Path, IO[bytes]]:
    """Create a ticket behind every other one, locked before it has a number: nobody takes it for an old one."""
    draft = lock.with_name(f"{lock.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    _remove_old_drafts(lock)
    draft.unlink(missing_ok=True)  # of an ended process that had the same number
    f = os.fdopen(open_regular(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL), "r+b", buffering=0)
    forks.close_in_child(f)
    try_lock(f, draft)
    while True:
        last = max((int(path.suffix[1:]) for path in _tickets(lock)), default=0)
        path = lock.with_name(f"{lock.name}.{last + 1:09d}")
        with suppress(FileExistsError):  # another writer drew that number
            os.link(draft, path)
            draft.unlink()
            return path, f


def _remove_old_drafts(lock: Path) -> None:
    """Remove the drafts of processes that were killed before they had a number; a living one needs a moment only."""
    pattern = re.compile(re.escape(lock.name) + r"\.\d+\.\d+\.tmp")
    for path in list_folder(lock.parent):
        with suppress(FileNotFoundError):
            if pattern.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _DRAFT_SECONDS:
                path.unlink()


def _tickets(lock: Path) -> list[Path]:
    """Return the tickets of a lock in the order of their numbers."""
    pattern = re.compile(re.escape(lock.name) + r"\.\d{9}")
    return [path for path in list_folder(lock.parent) if pattern.fullmatch(path.name)]


def _is_waiting(path: Path) -> bool:
    """Return whether the writer of a ticket still waits."""
    try:
        with open_binary(path) as f:
            if is_free(f):
                return False
            text = f.read(32)
    except FileNotFoundError:
        return False
    try:
        return time.time() < float(text) + GRACE_SECONDS
    except ValueError:
        return True  # it was drawn just now

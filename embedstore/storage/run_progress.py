"""How far the run of a writer is, for other processes: a small file in the cache, which may be missing."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from embedstore.errors import UnsafeStore
from embedstore.storage.layout import Layout
from embedstore.storage.store_files import read_bounded

SECONDS = 1.0  # between two records
_MAX_BYTES = 1 << 12


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        pid: the process.
        done: files that were read and committed, or failed.
        total: files to read.
    """

    pid: int
    done: int
    total: int


class ProgressRecorder:
    """Records how far a run is, at most once per second. A disk that refuses it is no error.

    Args:
        layout: the paths of the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._path = _file(layout)
        self._next = 0.0

    def record(self, done: int, total: int) -> None:
        """Record the files that are done, and all of them."""
        now = time.monotonic()
        if now < self._next or self._path.parent.is_symlink():
            return
        self._next = now + SECONDS
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            temporary.unlink(missing_ok=True)  # it may be a link
            with temporary.open("x", encoding="ascii") as f:
                json.dump(asdict(RunProgress(os.getpid(), done, total)), f)
            temporary.replace(self._path)

    def close(self) -> None:
        """Remove the record: the run is over."""
        if not self._path.parent.is_symlink():
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
                self._path.parent.rmdir()  # unless something else is cached


def read_progress(layout: Layout, pid: int) -> RunProgress | None:
    """Return how far the run of a process is, None if that is not known."""
    path = _file(layout)
    if path.parent.is_symlink():
        return None
    try:
        found = json.loads(read_bounded(path, _MAX_BYTES))
        progress = RunProgress(int(found["pid"]), int(found["done"]), int(found["total"]))
    except (OSError, ValueError, KeyError, TypeError, UnsafeStore):
        return None
    return progress if progress.pid == pid and 0 <= progress.done <= progress.total else None


def _file(layout: Layout) -> Path:
    """Return the file of the record."""
    return layout.cache / "run.json"

"""Pages and frames from processes of their own: a file that hangs, crashes or eats memory costs only itself."""

from __future__ import annotations

import atexit
import json
import os
import threading
from typing import Any

from embedstore.errors import ImageError
from embedstore.media.extraction.kinds import ExtractionKind
from embedstore.media.worker_process import WorkerProcess
from embedstore.resources import available_cores, memory_share, memory_slots
from embedstore.types import FailureReason

TIMEOUT_SECONDS = 60.0  # for one page or frame, or for the list of those of a file
MAX_MEMORY_BYTES = 4 << 30  # that one request may take
USUAL_MEMORY_BYTES = 1 << 30  # of a process: as many run at once as fit into the memory

_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from embedstore.media.extraction import worker; worker.main({}, {})"
)


class ExtractionPool:
    """Processes that open PDF files and videos; for many threads. They are started when they are needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(memory_slots(available_cores(), USUAL_MEMORY_BYTES))
        self._idle: list[WorkerProcess] = []

    def ask(self, kind: ExtractionKind, path: str, **request: Any) -> tuple[dict[str, Any], bytes]:
        """Return what a process answers.

        Args:
            kind: the kind of the file.
            path: the path of the file, as ``os.fsdecode`` gives it.
            request: what is wanted of it.

        Raises:
            ImageError: if the file cannot be read, the package is missing, or the process takes too long or crashes
                twice.
        """
        kind.require()
        text = json.dumps({"kind": kind.name, "path": os.fsencode(path).hex(), **request}).encode()
        with self._slots:
            try:
                return self._try(text)
            except ImageError as e:
                if e.reason is not FailureReason.CRASHED:
                    raise
                return self._try(text)

    def close(self) -> None:
        """End the idle processes."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def _try(self, text: bytes) -> tuple[dict[str, Any], bytes]:
        """Ask one process."""
        worker = self._take()
        try:
            facts, data = worker.ask(text, b"")
        except BaseException:
            worker.end()
            raise
        if facts.get("reason") == FailureReason.NO_MEMORY:
            worker.end()
        else:
            with self._lock:
                self._idle.append(worker)
        if "reason" in facts:
            raise ImageError(FailureReason(facts["reason"]), facts["detail"])
        return facts, data

    def _take(self) -> WorkerProcess:
        """Return an idle process, or a new one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return WorkerProcess(_CODE.format(TIMEOUT_SECONDS, memory_share(MAX_MEMORY_BYTES, 1)), TIMEOUT_SECONDS)


_pool = ExtractionPool()


def extraction_pool() -> ExtractionPool:
    """Return the pool of this process."""
    return _pool


def _leave_parent() -> None:
    """Forget the processes of the parent in a forked child."""
    global _pool  # noqa: PLW0603 - the processes are of the whole process
    _pool = ExtractionPool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parent)


@atexit.register
def _end_processes() -> None:
    """End the idle processes with this one."""
    _pool.close()

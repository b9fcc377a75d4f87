"""Unusual files decoded in processes of their own: one that hangs, crashes or uses too much memory costs only itself.

The processes are started as plain programs (no fork, no import of the user's ``__main__``), only when the first such
file is decoded, and as many as there are threads that wait for one and the memory has room for.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ImageError
from embedstore.media.worker_process import WorkerProcess
from embedstore.resources import memory_share, memory_slots
from embedstore.space import Preprocess
from embedstore.types import ContentInfo, FailureReason

TIMEOUT_SECONDS = 30.0  # for one file; the slowest files that are accepted (100 scans of 12 megapixels) take about one
MAX_MEMORY_BYTES = 4 << 30  # that one file may take; the largest image that is accepted takes about half of it
USUAL_MEMORY_BYTES = 2 << 30  # of a process: as many run at once as fit into the memory
MAX_WORKERS = 256  # more than there are threads that decode
MAX_FILES_PER_WORKER = 1000  # files after which a worker is replaced, so that a leak in it is bounded

WORKER_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from embedstore.media.image import isolation_worker; isolation_worker.main({}, {})"
)


class WorkerPool:
    """A pool of processes that work on one file at a time; for many threads.

    Args:
        timeout_seconds: seconds that one file may take; by default :data:`TIMEOUT_SECONDS`.
        memory_bytes: bytes that one file may take; by default :data:`MAX_MEMORY_BYTES`, or the memory of this process
            (machine or container) where that is less.
        max_workers: how many processes there are at most.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float | None = None,
        memory_bytes: int | None = None,
        max_workers: int = MAX_WORKERS,
    ) -> None:
        self._timeout = TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        self._memory_bytes = memory_share(MAX_MEMORY_BYTES, 1) if memory_bytes is None else memory_bytes
        self._slots = threading.BoundedSemaphore(memory_slots(max_workers, USUAL_MEMORY_BYTES))
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._all: set[WorkerProcess] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every process, also one that is decoding."""
        with self._lock:
            self._closed = True
            workers, self._all, self._idle = list(self._all), set(), []
        for worker in workers:
            worker.end()

    def _code(self) -> str:
        """Return the program of a process, with gaps for seconds and bytes."""
        return WORKER_CODE

    def _ask(self, settings: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Return what a process answers for one file.

        Raises:
            ImageError: if the file cannot be decoded, that takes too long, or the process crashes twice (one try more,
                because the first process may have been killed from outside).
        """
        with self._slots:
            try:
                return self._try(settings, data)
            except ImageError as e:
                if e.reason is not FailureReason.CRASHED or self._closed:
                    raise
                return self._try(settings, data)

    def _try(self, settings: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Ask one process."""
        worker = self._acquire()
        try:
            answer = worker.ask(settings, data)
        except BaseException:
            self._discard(worker)
            raise
        if worker.served >= MAX_FILES_PER_WORKER or answer[0].get("reason") == FailureReason.NO_MEMORY:
            self._discard(worker)
        else:
            self._release(worker)
        if "reason" in answer[0]:
            raise ImageError(FailureReason(answer[0]["reason"]), answer[0]["detail"])
        return answer

    def _acquire(self) -> WorkerProcess:
        """Return an idle worker, or a new one."""
        with self._lock:
            if self._closed:
                raise ImageError(FailureReason.CRASHED, "decoding was stopped")
            if self._idle:
                return self._idle.pop()
            worker = WorkerProcess(self._code().format(self._timeout, self._memory_bytes), self._timeout)
            self._all.add(worker)
            return worker

    def _release(self, worker: WorkerProcess) -> None:
        """Make a worker idle."""
        with self._lock:
            if not self._closed:
                self._idle.append(worker)

    def _discard(self, worker: WorkerProcess) -> None:
        """End a worker."""
        with self._lock:
            self._all.discard(worker)
        worker.end()


class DecodeWorkerPool(WorkerPool):
    """A pool of processes that decode and resize.

    Args:
        preprocess: how to resize and crop.
        timeout_seconds: see :class:`WorkerPool`.
        memory_bytes: see :class:`WorkerPool`.
    """

    def __init__(
        self, preprocess: Preprocess, *, timeout_seconds: float | None = None, memory_bytes: int | None = None
    ) -> None:
        super().__init__(timeout_seconds=timeout_seconds, memory_bytes=memory_bytes)
        self._settings = json.dumps(asdict(preprocess)).encode()

    def prepare(self, data: bytes) -> tuple[NDArray[np.uint8], ContentInfo]:
        """Decode, resize and crop one file.

        Args:
            data: the bytes of the file.

        Returns:
            uint8 ``(3, H, W)``, and facts about the image.

        Raises:
            ImageError: if the image cannot be decoded, decoding takes too long, or the process crashes twice.
        """
        facts, pixels = self._ask(self._settings, data)
        array = np.frombuffer(pixels, dtype=np.uint8).reshape(tuple(facts["shape"]))
        return array, ContentInfo(facts["width"], facts["height"], facts["format"])

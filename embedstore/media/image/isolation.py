"""Odd files decoded in processes of their own: one that hangs, crashes or eats memory costs that file only.

The processes are started as plain programs (no fork, no import of the user's ``__main__``), only when the first odd
file comes, and as many as there are threads that wait for one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ImageError
from embedstore.media.image.isolation_worker import receive, send
from embedstore.space import Preprocess
from embedstore.types import FailureReason, ImageInfo

TIMEOUT_SECONDS = 30.0  # seconds; the slowest files that are accepted (100 scans of 12 megapixels) take about one
MAX_MEMORY_BYTES = (
    4 << 30
)  # bytes of address space; the largest image that is accepted takes about half of it on its way to RGB
MAX_FILES_PER_WORKER = 1000  # files after which a worker is replaced, so that nothing it leaks adds up

_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from embedstore.media.image import isolation_worker; isolation_worker.main({}, {})"
)


class DecodeWorkerPool:
    """Workers for one preprocessing; used by many threads, closed by leaving the block.

    Args:
        p: the preprocessing.
        deadline: seconds a file may take, by default :data:`DEADLINE`.
        memory: bytes of address space of a worker, by default :data:`MEMORY`.
    """

    def __init__(
        self, preprocess: Preprocess, *, timeout_seconds: float | None = None, memory_bytes: int | None = None
    ) -> None:
        self._settings = json.dumps(asdict(preprocess)).encode()
        self._deadline = TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds
        self._memory = MAX_MEMORY_BYTES if memory_bytes is None else memory_bytes
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None) -> None:
        self.close()

    def prepare(self, data: bytes) -> tuple[NDArray[np.uint8], ImageInfo]:
        """Decode and resize one file.

        Returns:
            uint8 ``(3, H, W)``, and the picture's facts.

        Raises:
            ImageError: TIMED_OUT, CRASHED (twice: a worker that was killed from outside gets a second chance), or
                whatever decoding says.
        """
        try:
            return self._once(data)
        except ImageError as e:
            if e.reason is not FailureReason.CRASHED or self._closed:
                raise
            return self._once(data)

    def close(self) -> None:
        """End every worker, also one that is at work; none is left behind."""
        with self._lock:
            self._closed = True
            workers, self._all, self._idle = list(self._all), set(), []
        for worker in workers:
            worker.end()

    def _once(self, data: bytes) -> tuple[NDArray[np.uint8], ImageInfo]:
        """One attempt."""
        worker = self._take()
        try:
            answer = worker.ask(self._settings, data)
        except BaseException:
            self._drop(worker)
            raise
        if worker.served >= MAX_FILES_PER_WORKER or answer[0].get("reason") == FailureReason.NO_MEMORY:
            self._drop(worker)
        else:
            self._give(worker)
        facts, pixels = answer
        if "reason" in facts:
            raise ImageError(FailureReason(facts["reason"]), facts["detail"])
        shaped = np.frombuffer(pixels, dtype=np.uint8).reshape(tuple(facts["shape"]))
        return shaped, ImageInfo(facts["width"], facts["height"], facts["format"])

    def _take(self) -> _Worker:
        """An idle worker, or a new one."""
        with self._lock:
            if self._closed:
                raise ImageError(FailureReason.CRASHED, "decoding was stopped")
            if self._idle:
                return self._idle.pop()
            worker = _Worker(self._deadline, self._memory)
            self._all.add(worker)
            return worker

    def _give(self, worker: _Worker) -> None:
        """Back among the idle."""
        with self._lock:
            if not self._closed:
                self._idle.append(worker)

    def _drop(self, worker: _Worker) -> None:
        """A worker that is not used any more."""
        with self._lock:
            self._all.discard(worker)
        worker.end()


class _Worker:
    """One process."""

    def __init__(self, deadline: float, memory: int) -> None:
        self._deadline = deadline
        self.served = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(deadline, memory), json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, settings: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a file, wait for the answer.

        Raises:
            ImageError: TIMED_OUT, CRASHED.
        """
        late = threading.Event()
        timer = threading.Timer(self._deadline, self._too_late, (late,))
        timer.daemon = True
        timer.start()
        try:
            send(self._pipe(self._process.stdin), settings, data)
            answer = receive(self._pipe(self._process.stdout))
        except OSError:
            answer = None
        finally:
            timer.cancel()
        if answer is None:
            if late.is_set():
                raise ImageError(FailureReason.TIMED_OUT, f"decoding took more than {self._deadline:g} s")
            raise ImageError(FailureReason.CRASHED, f"the decoder died of it ({self._death()})")
        self.served += 1
        facts: dict[str, Any] = json.loads(answer[0])
        return facts, answer[1]

    def end(self) -> None:
        """Kill it and take its remains away."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                self._pipe(pipe).close()

    def _too_late(self, late: threading.Event) -> None:
        """The deadline has passed."""
        late.set()
        with suppress(OSError):
            self._process.kill()

    def _death(self) -> str:
        """How it ended, in words."""
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        """A pipe that was asked for."""
        if pipe is None:
            raise OSError("no pipe")
        return pipe

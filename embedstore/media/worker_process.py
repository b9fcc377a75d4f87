"""A process of our own that does what may hang, crash or use too much memory: both ends of its pipes.

A request is two lengths (8 bytes each, little-endian), a text, and bytes. An answer is two lengths, a JSON object, and
bytes. Nothing is pickled. The process ends when its input ends; the kernel ends it when a request takes too long, also
if its parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from embedstore.cgroups import group_memory_left
from embedstore.errors import ImageError
from embedstore.types import FailureReason

ADDRESS_SPACE, DATA = 0, 5  # fields of /proc/self/statm
GRACE_SECONDS = 5.0  # after the timeout, which the parent enforces
CONTAINER_RESERVE_BYTES = 64 << 20  # of a container's memory, for its other processes while a request runs
LEAST_REQUEST_BYTES = 64 << 20  # that one request may take also where the container has less left

Answer = tuple[dict[str, Any], bytes]


class WorkerProcess:
    """One process that answers one request at a time.

    Args:
        code: Python that the process runs; ``sys.path`` is its first argument, as JSON.
        timeout_seconds: seconds that one request may take.
        name: what the process is, for messages.
    """

    def __init__(self, code: str, timeout_seconds: float, name: str = "the decoder") -> None:
        self._timeout, self._name = timeout_seconds, name
        self.served = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, settings: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a file and wait for the answer: facts as JSON, and pixels.

        Raises:
            ImageError: if the answer takes too long or the process dies.
        """
        timed_out = threading.Event()
        timer = threading.Timer(self._timeout, self._on_timeout, (timed_out,))
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
            if timed_out.is_set():
                raise ImageError(FailureReason.TIMED_OUT, f"decoding took more than {self._timeout:g} s")
            raise ImageError(FailureReason.CRASHED, f"{self._name} crashed ({self._exit_status()})")
        self.served += 1
        facts: dict[str, Any] = json.loads(answer[0])
        return facts, answer[1]

    def end(self) -> None:
        """Kill the process, wait for it and close its pipes."""
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                self._pipe(pipe).close()

    def _on_timeout(self, timed_out: threading.Event) -> None:
        """Kill the process: the file takes too long."""
        timed_out.set()
        with suppress(OSError):
            self._process.kill()

    def _exit_status(self) -> str:
        """Say how the process ended."""
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        """Return the pipe, which Popen types as optional."""
        if pipe is None:
            raise OSError("no pipe")
        return pipe


def serve(answer: Callable[[bytes, bytes], Answer], timeout_seconds: float, memory_bytes: int) -> None:
    """Answer requests from standard input to standard output until the input ends.

    Args:
        answer: returns facts and bytes for the text and the bytes of a request.
        timeout_seconds: seconds that one request may take.
        memory_bytes: bytes of address space that the process may add to what it has now; 0 is no limit. In a container
            (control group) one request may take what the container has left, where that is less.
    """
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    _silence_output()
    _limit_memory(memory_bytes)
    _prefer_as_victim()
    while (request := receive(requests)) is not None:
        if memory_bytes:
            limit_to_container()
        _set_alarm(timeout_seconds + GRACE_SECONDS)
        try:
            facts, data = answer(*request)
        except MemoryError:
            facts, data = {"reason": FailureReason.NO_MEMORY.value, "detail": "decoding ran out of memory"}, b""
        _set_alarm(0)
        send(answers, json.dumps(facts).encode(), data)
        del request, data


def send(pipe: IO[bytes], text: bytes, data: bytes) -> None:
    """Write one request or answer."""
    pipe.write(len(text).to_bytes(8, "little") + len(data).to_bytes(8, "little") + text)
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Read one request or answer; return None at the end of the pipe."""
    lengths = pipe.read(16)
    if len(lengths) < 16:
        return None
    text = pipe.read(int.from_bytes(lengths[:8], "little"))
    length = int.from_bytes(lengths[8:], "little")
    data = pipe.read(length)
    return None if len(data) < length else (text, data)


def _silence_output() -> None:
    """Discard what libraries print, and leave Ctrl-C in the terminal to the parent."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _limit_memory(memory_bytes: int) -> None:
    """Limit what the process may add to its address space, and write no core file."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_bytes:
            most = _memory_bytes(ADDRESS_SPACE) + memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (most, most))


def limit_to_container() -> None:
    """Let the next request take no more than the container has left: an error in place of a process that is killed.

    The limit is on data, not on address space, of which threads reserve far more than they use.
    """
    left = group_memory_left()
    if left is None:
        return
    import resource

    most = _memory_bytes(DATA) + max(left - CONTAINER_RESERVE_BYTES, LEAST_REQUEST_BYTES)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _memory_bytes(field: int) -> int:
    """Return the bytes of address space or of data that this process has; 0 where that is unknown."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[field]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _prefer_as_victim() -> None:
    """Let the kernel end this process before the run, where memory runs out in a container."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _set_alarm(seconds: float) -> None:
    """Let the kernel end this process after so many seconds; 0 cancels it."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)

"""Worker processes on this machine, one for each device: one thread waits for each of them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from embedstore.errors import EmbedstoreError, EngineError, ImageError
from embedstore.pipeline.distributed.part_workers import POLL_SECONDS, EndedPart

ALIKE = ("precision", "runtime", "decoder", "folded_batchnorms")  # what all processes must have chosen


class EmbeddingProcess(Protocol):
    """One worker process."""

    def embed(self, part: int) -> dict[str, Any]:
        """Embed a part and return its report, with its ``node`` and what was ``settled``.

        Raises:
            ImageError: if the process dies.
        """

    def end(self) -> None:
        """Kill the process."""


StartProcess = Callable[[dict[str, Any]], EmbeddingProcess]


class LocalWorkers:
    """Worker processes that embed one part at a time each; one that dies is replaced.

    The first process embeds the first part alone and chooses precision, decoder and batch size, which the others get.

    Args:
        starts: start a process, one function for each; they get what the first process chose, which is nothing for
            that one.

    Attributes:
        settled: what the first process chose; None before its first part has ended.
    """

    def __init__(self, starts: Sequence[StartProcess]) -> None:
        self.settled: dict[str, Any] | None = None
        self._starts, self._processes = starts, dict[int, EmbeddingProcess]()
        self._free = deque(range(len(starts)))
        self._ended: queue.Queue[tuple[int, EndedPart]] = queue.Queue()
        self._running, self._problem, self._lost = 0, "", 0
        self._lock, self._is_closed = threading.Lock(), False
        self._threads = ThreadPoolExecutor(len(starts), "worker")

    @property
    def places(self) -> int:
        """How many parts are embedded at once."""
        return len(self._starts) - self._lost

    @property
    def running(self) -> int:
        """How many parts are being embedded."""
        return self._running

    @property
    def has_room(self) -> bool:
        """Whether another part can be begun."""
        return bool(self._free) and (self.settled is not None or not self._running)

    def require_places(self) -> None:
        """Require that a process can be started: each place where none could is given up.

        Raises:
            EngineError: if no place is left.
        """
        if not self.places:
            raise EngineError(
                f"no worker process can be started ({self._problem}); free memory or processes, or use the engine "
                "local; what was embedded is kept"
            )

    def begin(self, part: int) -> None:
        """Give a part to a process that has none."""
        place = self._free.popleft()
        self._running += 1
        self._threads.submit(self._embed, place, part)

    def wait(self) -> list[EndedPart]:
        """Return the parts that ended, after a second at the latest.

        Raises:
            EngineError: if two processes chose differently.
        """
        if not self._running:
            return []
        try:
            place, ended = self._ended.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return []
        self._running -= 1
        if ended.began:
            self._free.append(place)
        else:
            self._lost, self._problem = self._lost + 1, ended.problem
        if ended.report is not None:
            self._settle(ended.report)
        return [ended]

    def close(self) -> None:
        """Kill every process and wait for the threads."""
        with self._lock:
            self._is_closed = True
            processes = list(self._processes.values())
        for process in processes:
            process.end()
        self._threads.shutdown(cancel_futures=True)

    def _embed(self, place: int, part: int) -> None:
        """Embed a part, on the thread of a place."""
        try:
            ended = EndedPart(part, self._process(place).embed(part))
        except ImageError as e:
            self._processes.pop(place).end()
            ended = EndedPart(part, problem=e.detail)
        except EmbedstoreError as e:
            ended = EndedPart(part, problem=str(e), error=e)
        except OSError as e:
            ended = EndedPart(part, problem=str(e), began=False)
        except Exception as e:  # whatever it is: the run waits for an answer
            ended = EndedPart(part, problem=f"{type(e).__name__}: {e}")
        self._ended.put((place, ended))

    def _process(self, place: int) -> EmbeddingProcess:
        """Return the process of a place; a new one where there is none."""
        with self._lock:
            if self._is_closed:
                raise OSError("the run has ended")
            if place not in self._processes:
                self._processes[place] = self._starts[place](self.settled or {})
            return self._processes[place]

    def _settle(self, report: dict[str, Any]) -> None:
        """Remember what the first process chose, and require that the others have chosen it too.

        Raises:
            EngineError: if they have not: the vectors of one run are computed alike.
        """
        settled: dict[str, Any] | None = report["settled"]
        if self.settled is None or settled is None:
            self.settled = self.settled if settled is None else settled
            return
        for name in ALIKE:
            if settled.get(name) != self.settled.get(name):
                raise EngineError(
                    f"process {report['node']} computes with {name} {settled.get(name)}, and the first process with "
                    f"{self.settled.get(name)}; use --precision fp32 --runtime eager --decoder pillow; what was "
                    "embedded is kept"
                )

"""An iterator that runs ahead on its own thread, by at most a given number of values."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

PUT_SECONDS = 0.1  # between two checks of whether the producer shall stop
GET_SECONDS = 0.2  # between two checks of whether the run shall stop


class Prefetch(Generic[T]):
    """The values of an iterator, computed on another thread.

    Args:
        values: the iterator; only the new thread uses it.
        size: how many values may wait to be taken.
        stop_requested: if true, the values end early.
    """

    def __init__(self, values: Iterator[T], size: int, stop_requested: Callable[[], object]) -> None:
        self._queue: queue.Queue[T | _End] = queue.Queue(maxsize=size)
        self._stop_requested = stop_requested
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._produce, args=(values,), name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        """Yield the values; raise here what the iterator raises there."""
        while not self._stop_requested():
            try:
                value = self._queue.get(timeout=GET_SECONDS)
            except queue.Empty:
                continue
            if isinstance(value, _End):
                if value.error is not None:
                    raise value.error
                return
            yield value

    def stop(self) -> None:
        """Ask the thread to end after the value that it is computing."""
        self._stopped.set()

    def join(self) -> None:
        """Wait for the thread."""
        self._thread.join()

    def _produce(self, values: Iterator[T]) -> None:
        """Compute the values."""
        try:
            for value in values:
                self._put(value)
                if self._stopped.is_set():
                    return
            self._put(_End())
        except BaseException as e:
            self._put(_End(e))

    def _put(self, value: T | _End) -> None:
        """Queue a value, waiting for room unless the thread shall end."""
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._queue.put(value, timeout=PUT_SECONDS)
                return


class _End:
    """The last value in the queue, with the error that ended the iterator."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

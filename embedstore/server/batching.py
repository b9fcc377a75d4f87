"""Requests that arrive together are encoded together: one pass of a network costs little more for many than for one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ServerError

MAX_BATCH = 64
WAIT_SECONDS = 0.004  # for further requests after the first; a forward pass takes several times as long
Query = TypeVar("Query")
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class _Waiting(Generic[Query]):
    """One query that waits for its vector."""

    query: Query
    vector: Future[Vector] = field(default_factory=Future)


class Batcher(Generic[Query]):
    """Encodes the queries of many threads in one thread, in batches. A query that fails alone fails nobody else.

    Args:
        encode: returns the vectors of some queries, float32 ``(n, D)``.
    """

    def __init__(self, encode: Callable[[Sequence[Query]], Vector]) -> None:
        self._encode = encode
        self._waiting: queue.SimpleQueue[_Waiting[Query] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def encode(self, queries: Sequence[Query]) -> Vector:
        """Return the vectors of queries, float32 ``(n, D)``; other threads' queries may be encoded with them.

        Raises:
            EmbedstoreError: what the encoder raises for them.
            ServerError: if the server ends.
        """
        waiting = [_Waiting(query) for query in queries]
        with self._lock:
            if self._closed:
                raise ServerError("the server ends; start it again")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="embedstore-encode", daemon=True)
                self._thread.start()
            for one in waiting:
                self._waiting.put(one)
        return np.stack([one.vector.result() for one in waiting])

    def close(self) -> None:
        """End the thread after the queries that wait."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)

    def _run(self) -> None:
        """Encode batch after batch until the end."""
        while (batch := self._next_batch()) is not None:
            try:
                vectors = self._encode([one.query for one in batch])
            except Exception:  # which of them it was is not known
                for one in batch:
                    self._encode_alone(one)
            else:
                for one, vector in zip(batch, vectors, strict=True):
                    one.vector.set_result(vector)

    def _encode_alone(self, one: _Waiting[Query]) -> None:
        """Encode one query, and pass on its own error."""
        try:
            one.vector.set_result(self._encode([one.query])[0])
        except Exception as e:
            one.vector.set_exception(e)

    def _next_batch(self) -> list[_Waiting[Query]] | None:
        """Wait for a query, and return it with those that arrive shortly after it; None at the end."""
        first = self._waiting.get()
        if first is None:
            return None
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                following = self._waiting.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                break
            if following is None:
                self._waiting.put(None)
                break
            batch.append(following)
        return batch

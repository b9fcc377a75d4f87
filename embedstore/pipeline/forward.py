"""Stage "forward": batches through the backbone on threads of their own, in order.

The main thread commits while the backbone computes; the number of batches in progress is bounded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.pipeline.decode import PreparedFile


class BatchEncoder(Protocol):
    """What the stage needs of an encoder; both numbers may change after the first batch.

    Attributes:
        batch_size: items in one batch.
        concurrency: batches at once.
    """

    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def concurrency(self) -> int: ...  # noqa: D102

    def encode(self, inputs: list[Any]) -> NDArray[np.float32]:
        """Return the vectors ``(B, D)`` of what the stage "decode" made of B items."""


@dataclass(frozen=True)
class EncodedBatch:
    """One batch.

    Attributes:
        files: the files in order, also those that failed or have a vector already.
        vectors: one for each file that has an input, in order; None if no file has.
    """

    files: list[PreparedFile]
    vectors: NDArray[np.float32] | None


@dataclass(frozen=True)
class _TimedVectors:
    """The vectors of a batch, and when the backbone began and ended."""

    vectors: NDArray[np.float32]
    begin: float
    end: float


class ForwardStage:
    """The backbone's stage.

    Args:
        encoder: from inputs to vectors.
        batch_size: items in one batch; None is the encoder's own.
        max_files: files in one batch, with and without input.
        initializer: called first by every thread.

    Attributes:
        seconds: wall time in which at least one batch was being computed.
        item_count: how many items were computed.
    """

    def __init__(
        self,
        encoder: BatchEncoder,
        *,
        batch_size: int | None = None,
        max_files: int,
        initializer: Callable[[], None] = lambda: None,
    ) -> None:
        self.seconds = 0.0
        self.item_count = 0
        self._encoder, self._batch_size, self._max_files = encoder, batch_size, max_files
        self._initializer = initializer
        self._width = 0
        self._pool = self._open_pool()
        self._in_progress: deque[tuple[list[PreparedFile], Future[_TimedVectors] | None]] = deque()
        self._counted_until = 0.0

    def run(self, files: Iterable[PreparedFile]) -> Iterator[EncodedBatch]:
        """Yield the files in batches, in order, with their vectors."""
        waiting: list[PreparedFile] = []
        inputs = 0
        for file in files:
            waiting.append(file)
            inputs += file.input is not None
            # the second limit is for a long run of duplicates or failures: nothing to compute, much to write
            if inputs >= (self._batch_size or self._encoder.batch_size) or len(waiting) >= self._max_files:
                self._submit(waiting)
                waiting, inputs = [], 0
                yield from self._finished()
        if waiting:
            self._submit(waiting)
        yield from self._finished(wait_for_all=True)

    def close(self) -> None:
        """Drop batches that have not begun, and wait for those that have."""
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, files: list[PreparedFile]) -> None:
        """Start a batch, on as many threads as the backbone can use by now."""
        if self._encoder.concurrency != self._width:
            self._pool.shutdown(wait=False)
            self._pool = self._open_pool()
        inputs = [file.input for file in files if file.input is not None]
        self._in_progress.append((files, self._pool.submit(self._encode, inputs) if inputs else None))

    def _open_pool(self) -> ThreadPoolExecutor:
        """Return a pool with a thread for every forward pass at once."""
        self._width = self._encoder.concurrency
        return ThreadPoolExecutor(self._width, thread_name_prefix="forward", initializer=self._initializer)

    def _finished(self, *, wait_for_all: bool = False) -> Iterator[EncodedBatch]:
        """Yield the batches that are finished, in order; wait if too many are in progress, or for all."""
        while self._in_progress:
            files, future = self._in_progress[0]
            has_room = len(self._in_progress) <= self._width
            if has_room and not wait_for_all and future is not None and not future.done():
                return
            vectors = None if future is None else self._count(future.result())
            self._in_progress.popleft()
            yield EncodedBatch(files, vectors)

    def _encode(self, inputs: list[Any]) -> _TimedVectors:
        """Compute the vectors of one batch."""
        begin = time.perf_counter()
        vectors = self._encoder.encode(inputs)
        return _TimedVectors(vectors, begin, time.perf_counter())

    def _count(self, batch: _TimedVectors) -> NDArray[np.float32]:
        """Add up items and seconds, and return the vectors; time in which two batches overlap is counted once."""
        self.seconds += max(0.0, batch.end - max(batch.begin, self._counted_until))
        self._counted_until = max(self._counted_until, batch.end)
        self.item_count += len(batch.vectors)
        return batch.vectors

"""Batches through the backbone on threads of their own, handed back in the order in which they came.

The main thread collects and commits while the backbone computes; a bounded number of batches is under way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.pipeline.decoder_choice import stack_pixels
from embedstore.pipeline.read import PreparedFile

EncodeFunction = Callable[[Any], NDArray[np.float32]]  # uint8 (B, 3, H, W), an array or a tensor on a device


@dataclass(frozen=True)
class EncodedBatch:
    """One batch: the files in order, failed and known ones too, and a vector for each that has pixels."""

    files: list[PreparedFile]
    vectors: NDArray[np.float32] | None


class ForwardStage:
    """The backbone's stage.

    Args:
        encode: pixels to vectors.
        parallel: how many batches at once, asked before every batch: a backbone may know only after its first one.
        start: called by every thread first.

    Attributes:
        seconds: wall time in which at least one batch was being computed.
        images: that were computed.
    """

    def __init__(
        self, encode: EncodeFunction, concurrency: Callable[[], int], initializer: Callable[[], None] = lambda: None
    ) -> None:
        self.seconds = 0.0
        self.image_count = 0
        self._encode, self._parallel, self._start = encode, concurrency, initializer
        self._width = 1
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="forward", initializer=initializer)
        self._under_way: deque[tuple[list[PreparedFile], Future[tuple[NDArray[np.float32], float, float]] | None]] = (
            deque()
        )
        self._until = 0.0

    def submit(self, files: list[PreparedFile], pixels: list[Any]) -> None:
        """Start a batch."""
        self._widen()
        self._under_way.append((files, self._pool.submit(self._one, pixels) if pixels else None))

    def done(self, *, wait_for_all: bool = False) -> list[EncodedBatch]:
        """Batches that are finished, in order; waits where too many are under way, or for all."""
        out = []
        while self._under_way:
            files, future = self._under_way[0]
            room = len(self._under_way) <= self._width
            if room and not wait_for_all and future is not None and not future.done():
                break
            vectors = self._result(future)
            self._under_way.popleft()
            out.append(EncodedBatch(files, vectors))
        return out

    def close(self) -> None:
        """Let go of batches that were not begun, and wait for those that were."""
        self._pool.shutdown(cancel_futures=True)

    def _widen(self) -> None:
        """As many threads as the backbone can use by now."""
        if (wanted := self._parallel()) != self._width:
            self._pool.shutdown(wait=False)
            self._pool = ThreadPoolExecutor(wanted, thread_name_prefix="forward", initializer=self._start)
            self._width = wanted

    def _one(self, pixels: list[Any]) -> tuple[NDArray[np.float32], float, float]:
        """Vectors, and from when to when."""
        begin = time.perf_counter()
        vectors = self._encode(stack_pixels(pixels))
        return vectors, begin, time.perf_counter()

    def _result(self, future: Future[tuple[NDArray[np.float32], float, float]] | None) -> NDArray[np.float32] | None:
        """The vectors of a batch; spans that overlap are counted once."""
        if future is None:
            return None
        vectors, begin, end = future.result()
        self.seconds += max(0.0, end - max(begin, self._until))
        self._until = max(self._until, end)
        self.image_count += len(vectors)
        return vectors

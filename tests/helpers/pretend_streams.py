"""Streams of the pretended devices: which work has certainly ended before other work begins.

Nothing overlaps on a CPU, so an order that nobody asked for would never be noticed. Each stream therefore counts its
work, and knows how much of the others' work it waits for. Faults are:

- work that reads what another stream writes, and does not wait for it;
- memory that is free, and so handed out again by the stream that owns it, while other streams may still use it;
- a hardware decoder, which does not wait for its stream, while there is work on that.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class PretendedStream:
    """One stream.

    Attributes:
        gpu: its device.
        queued: how many operations it got.
        done: how many of them have ended for certain, since the host waited.
        seen: how many operations of other streams end before its next one begins.
    """

    def __init__(self, gpu: Any) -> None:
        self.gpu, self.queued, self.done = gpu, 0, 0
        self.seen: Counter[PretendedStream] = Counter()
        gpu.streams.append(self)

    @property
    def clock(self) -> Counter[PretendedStream]:
        """All operations that have ended when it has done what it got."""
        return self.seen | Counter({self: self.queued})

    def waits_for(self, other: PretendedStream, queued: int) -> bool:
        """Return whether its next operation begins after so many of another stream."""
        return other is self or max(self.seen[other], other.done) >= queued

    def wait_event(self, event: Any) -> None:
        self.seen |= event.clock

    def finish(self) -> None:
        """The host has waited for it."""
        for stream, queued in self.clock.items():
            stream.done = max(stream.done, queued)


@dataclass
class StreamUse:
    """Which streams use a piece of memory.

    Attributes:
        owner: the stream that was current when it was allocated: it hands the memory out again.
        written: the stream that wrote it last, and its count then.
        used: by stream, its count at the last use.
        recorded: the streams whose use the owner waits for.
    """

    owner: PretendedStream
    written: tuple[PretendedStream, int] | None = None
    used: dict[PretendedStream, int] = field(default_factory=dict)
    recorded: set[PretendedStream] = field(default_factory=set)

    def fault_of_freeing(self) -> str:
        """Return what is wrong if the memory is handed out again now, or ""."""
        for stream, queued in self.used.items():
            if stream not in self.recorded and not self.owner.waits_for(stream, queued):
                return "memory was handed out again while another stream may use it"
        return ""


class StreamOrder:
    """The current stream of each thread, and the check of every operation.

    Args:
        fault: records a fault and raises it.
    """

    def __init__(self, fault: Callable[[str], None]) -> None:
        self._fault = fault
        self._current = threading.local()

    def current(self, gpu: Any) -> PretendedStream:
        """Return the stream on which this thread queues its work."""
        return getattr(self._current, "streams", {}).get(gpu.device, gpu.default_stream)

    @contextmanager
    def on(self, stream: PretendedStream) -> Iterator[None]:
        """Queue the work of this thread on a stream."""
        before = getattr(self._current, "streams", {})
        self._current.streams = before | {stream.gpu.device: stream}
        try:
            yield
        finally:
            self._current.streams = before

    def ran(self, gpu: Any, reads: Sequence[StreamUse], writes: Sequence[StreamUse]) -> None:
        """Count an operation on the current stream; it must wait for who wrote what it reads."""
        stream = self.current(gpu)
        stream.queued += 1
        for use in reads:
            if use.written is not None and not stream.waits_for(*use.written):
                self._fault("a stream reads what another one writes, without waiting for it")
            use.used[stream] = stream.queued
        for use in writes:
            use.written = (stream, stream.queued)
            use.used[stream] = stream.queued

    def require_idle(self, gpu: Any) -> None:
        """Require that the current stream has nothing to do: a hardware decoder does not wait for it."""
        stream = self.current(gpu)
        if stream.done < stream.queued:
            self._fault("a hardware decoder writes before the work that is queued on its stream")

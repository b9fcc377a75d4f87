"""SIGINT and SIGTERM while embedding: finish the batch, commit, leave. A second signal leaves at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether, and by which signal, the run was asked to stop."""

    def __init__(self) -> None:
        self.requested = 0

    def ask(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        if self.requested:
            self.leave()
        self.requested = number

    def leave(self) -> None:
        """End as the signal would have: KeyboardInterrupt for SIGINT, exit status 128 + number otherwise."""
        if self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        if self.requested:
            raise SystemExit(128 + self.requested)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Catch the signals inside the block; a no-op outside the main thread, where Python has no handlers."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, stop.ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

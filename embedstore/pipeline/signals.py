"""SIGINT and SIGTERM while embedding: finish the batch, commit, leave. A second signal leaves at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Whether, and by which signal, the run was asked to stop."""

    def __init__(self) -> None:
        self.signal_number = 0

    def handle(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        if self.signal_number:
            self.raise_if_requested()
        self.signal_number = number

    def raise_if_requested(self) -> None:
        """End as the signal would have: KeyboardInterrupt for SIGINT, exit status 128 + number otherwise."""
        if self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal_number:
            raise SystemExit(128 + self.signal_number)


@contextmanager
def catch_stop_signals() -> Iterator[StopSignal]:
    """Catch the signals inside the block; a no-op outside the main thread, where Python has no handlers."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, stop.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""SIGINT, SIGTERM and SIGHUP while embedding: finish the batch, commit and end. A second signal ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Whether the run shall stop.

    Attributes:
        signal_number: the number of the first signal that was caught; 0 if there was none.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._is_postponed = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        if self.signal_number and not self._is_postponed:
            self.raise_if_requested()
        self.signal_number = number

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """Let every signal wait until the end of the block, which only waits for what must not be left half done."""
        self._is_postponed = True
        try:
            yield
        finally:
            self._is_postponed = False

    def raise_if_requested(self) -> None:
        """End as the signal would have.

        Raises:
            KeyboardInterrupt: if the signal was SIGINT.
            SystemExit: if it was another one, with status 128 + number.
        """
        if self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal_number:
            raise SystemExit(128 + self.signal_number)


@contextmanager
def catch_stop_signals() -> Iterator[StopSignal]:
    """Catch the signals inside the block, but not a SIGHUP that ``nohup`` ignores.

    Do nothing outside the main thread, where Python allows no handlers.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    caught = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        caught.append(signal.SIGHUP)  # the terminal was closed
    before = {s: signal.signal(s, stop.handle) for s in caught}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

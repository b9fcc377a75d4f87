"""Ctrl-C during a DuckDB query: DuckDB returns to Python only when a query is done, so a thread interrupts it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Interrupt running queries at once on SIGINT inside the block; a write is finished first.

    Does nothing outside the main thread, or while other code (an embedding run) handles the signal.

    Raises:
        KeyboardInterrupt: if a query was interrupted, in place of the error of that query.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    interrupted = threading.Event()
    threading.Thread(target=_watch, args=(read_end, interrupted), daemon=True).start()
    try:
        yield
    except Exception as e:
        if interrupted.is_set():
            raise KeyboardInterrupt from e
        raise
    finally:
        signal.set_wakeup_fd(previous)
        os.close(write_end)


def _watch(fd: int, interrupted: threading.Event) -> None:
    """Interrupt queries at each SIGINT, until the other end of the pipe is closed."""
    with os.fdopen(fd, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                interrupted.set()
                _interrupt_queries()


def _interrupt_queries() -> None:
    """Interrupt the queries of this process. Without a loaded DuckDB there are none, and no reason to load it."""
    catalog = sys.modules.get("embedstore.storage.catalog")
    if catalog is not None:
        catalog.interrupt_queries()

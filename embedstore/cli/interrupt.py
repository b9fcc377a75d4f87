"""Ctrl-C while DuckDB is at work: its calls return to Python only when they are done, so a thread tells it to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside the block SIGINT ends a long question at once; what is being written is finished first.

    A no-op outside the main thread, and while something else (a run that embeds) handles the signal.

    Raises:
        KeyboardInterrupt: in place of whatever the question said when it was ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    here, there = os.pipe()
    os.set_blocking(there, False)
    before = signal.set_wakeup_fd(there, warn_on_full_buffer=False)
    ended = threading.Event()
    threading.Thread(target=_listen, args=(here, ended), daemon=True).start()
    try:
        yield
    except Exception as e:
        if ended.is_set():
            raise KeyboardInterrupt from e
        raise
    finally:
        signal.set_wakeup_fd(before)
        os.close(there)


def _listen(fd: int, ended: threading.Event) -> None:
    """Until the other end is closed."""
    with os.fdopen(fd, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                ended.set()
                _interrupt()


def _interrupt() -> None:
    """Where DuckDB was never loaded, there is nothing to end (and no reason to load it)."""
    catalog = sys.modules.get("embedstore.storage.catalog")
    if catalog is not None:
        catalog.interrupt_queries()

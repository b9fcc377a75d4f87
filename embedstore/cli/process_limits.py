"""Limits that the process of a query obeys although DuckDB does not look for an interrupt or count an allocation.

One value of a query can take seconds and gigabytes (``repeat``, ``levenshtein``). The command that runs one query and
changes nothing can then end itself; a program that uses the library cannot.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedstore.resources import available_cores
from embedstore.storage.query_limits import QueryLimits

_GRACE = 3.0  # seconds after the limit in which DuckDB ends the query in the orderly way
_OTHER_MEMORY = 1 << 30  # what Python, the result's text and the allocator take
_STACK = 16 << 20  # of each thread of DuckDB, of which there is one per core


@contextmanager
def hard_limits(limits: QueryLimits) -> Iterator[None]:
    """End the process if a query goes on after its time, and refuse memory beyond its limit.

    Args:
        limits: the limits of the query. DuckDB and the rows in Python may each take the memory.
    """
    message = f"embedstore: the query took more than {limits.seconds:g} s; raise the limit with --timeout SECONDS\n"
    timer = threading.Timer(min(limits.seconds + _GRACE, threading.TIMEOUT_MAX), _exit, [message])
    timer.daemon = True
    timer.start()
    try:
        with _limited_memory(2 * limits.memory_bytes + _OTHER_MEMORY):
            yield
    finally:
        timer.cancel()


def _exit(message: str) -> None:
    """Print a line and end the process at once: a thread of DuckDB does not return."""
    with suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, message.encode())
    os._exit(1)


@contextmanager
def _limited_memory(more: int) -> Iterator[None]:
    """Let the process take this much memory more than now; does nothing where the system has no such limit."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [used + more + _STACK * available_cores(), soft, hard]
    resource.setrlimit(resource.RLIMIT_DATA, (min(n for n in limits if n != resource.RLIM_INFINITY), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

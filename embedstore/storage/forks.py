"""What a forked child must not share with its parent: locks, connections and threads.

A child inherits open files and memory, but no threads. It would hold the parent's locks for as long as it lives, and
freeing an inherited DuckDB connection waits for threads that are not there. So every lock file and every connection is
registered here, and the child leaves all of them behind at once, before any other code of it runs.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import IO, Any
from weakref import WeakSet, ref

_lock_files: WeakSet[IO[Any]] = WeakSet()
_owners: dict[int, tuple[ref[Any], Callable[[Any], None]]] = {}


def close_in_child(file: IO[Any]) -> None:
    """Close a locked file in every child: the lock stays the parent's, and ends with the parent."""
    _lock_files.add(file)


def reset_in_child(owner: object, reset: Callable[[Any], None]) -> None:
    """Call ``reset(owner)`` in every child, as long as the owner exists.

    Args:
        owner: the object that holds what a child must not use; not referenced.
        reset: drops it.
    """
    key = id(owner)
    _owners[key] = ref(owner, lambda _: _owners.pop(key, None)), reset


def never_free(inherited: object) -> None:
    """Keep an object of the parent for ever: freeing it, also when the child exits, could wait for ever."""
    if hasattr(ctypes, "pythonapi"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def _leave_parent() -> None:
    """Leave behind what belongs to the parent; runs in a new child."""
    for file in list(_lock_files):
        file.close()
    _lock_files.clear()
    for reference, reset in list(_owners.values()):
        if (owner := reference()) is not None:
            reset(owner)
    if "duckdb" in sys.modules:  # its own connection is freed when the interpreter ends
        never_free(sys.modules["duckdb"].default_connection())
    for name, function in (("faiss", "omp_set_num_threads"), ("torch", "set_num_threads")):
        if name in sys.modules:  # their threads stayed in the parent: a second one would be waited for
            getattr(sys.modules[name], function, lambda _: None)(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parent)

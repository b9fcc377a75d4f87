"""What a forked child must not share with its parent: locks, connections and threads.

A child inherits open files and memory, but no threads. It would hold the parent's locks for as long as it lives, and
freeing an inherited DuckDB connection waits for threads that are not there. So every lock file and every connection is
registered here, and the child leaves all of them behind at once, before any other code of it runs.

A fork also waits for the imports of other threads: the lock of a module that is being imported would never be released
in the child, which would hang at its own import of that module.
"""

from __future__ import annotations

import _imp
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import IO, Any
from weakref import WeakSet, ref

PATIENCE = 5.0  # seconds that a fork waits for other threads
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"  # the file name of the frames of an import that is under way

_lock_files: WeakSet[IO[Any]] = WeakSet()
_forked = False  # True in a child that was forked after the import of this module
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


def is_forked_child() -> bool:
    """Return whether this process was forked from one that had imported this package: it computes with one thread."""
    return _forked


def never_free(inherited: object) -> None:
    """Keep an object of the parent for ever: freeing it, also when the child exits, could wait for ever."""
    if hasattr(ctypes, "pythonapi"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def _hold_imports() -> None:
    """Let no other thread import during a fork: wait for imports that are under way, and let none begin."""
    deadline = time.monotonic() + PATIENCE
    _imp.acquire_lock()
    while _is_import_under_way() and time.monotonic() < deadline:
        _imp.release_lock()
        time.sleep(0.005)
        _imp.acquire_lock()


def _is_import_under_way() -> bool:
    """Return whether another thread is importing a module."""
    own = threading.get_ident()
    return any(_is_importing(frame) for thread, frame in sys._current_frames().items() if thread != own)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a frame, or one that called it, belongs to the import system."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False


def _leave_parent() -> None:
    """Leave behind what belongs to the parent; runs in a new child."""
    global _forked  # noqa: PLW0603 - a fact about the process
    _forked = True
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
    os.register_at_fork(before=_hold_imports, after_in_parent=_imp.release_lock, after_in_child=_imp.release_lock)

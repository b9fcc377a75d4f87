"""The memory and the cores that this process may use: those of the machine, or less where a container says so."""

from __future__ import annotations

import math
import os
import re
import sys
from functools import cache
from pathlib import Path

from embedstore.cgroups import GroupLimits, group_limits

_granted: list[int] = []  # cores that a scheduler gave to this process


def memory_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory of this process: the least of the machine's and of every limit on its control groups.

    Args:
        root: the folder that holds ``proc`` and ``sys``.

    Returns:
        Bytes; None where the system says neither.
    """
    known = [n for n in (_machine_memory(root), group_limits(root).memory_bytes) if n]
    return min(known, default=None)


def memory_share(most: int, parts: int) -> int:
    """Return how much one use of memory may take: ``most`` bytes, less where the process has little memory.

    Args:
        most: bytes on a machine with enough memory.
        parts: the use may take one of so many parts of the process's memory.
    """
    whole = _own_memory()
    return most if whole is None else max(1, min(most, whole // parts))


def memory_slots(most: int, bytes_each: int) -> int:
    """Return how many uses of memory may run at once: at least one.

    Args:
        most: on a machine with enough memory.
        bytes_each: what one of them may take.
    """
    whole = _own_memory()
    return most if whole is None else max(1, min(most, whole // bytes_each))


def available_cores() -> int:
    """Return how many cores this process may use: those it may run on, or less where somebody says so.

    That may be its control group, or a scheduler that shares a machine among processes; see :func:`grant_cores`.
    """
    limits = [_runnable_cores(), *_granted]
    if (quota := _own_groups().cores) is not None:
        limits.append(math.ceil(quota))
    return max(1, min(limits))


def grant_cores(count: int) -> None:
    """Let this process use at most so many cores, which a scheduler gave to it.

    Args:
        count: at least one; a later call replaces it.
    """
    _granted[:] = [count]


def limit_library_threads() -> None:
    """Let libraries that are imported later (PyTorch, FAISS, BLAS) start a thread per available core, and no more.

    They count the cores of the machine: in a container with two of 64 cores, 64 threads would wait for each other. The
    variable is OpenMP's; a value that the user has set stays.
    """
    if available_cores() < _runnable_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))


def _runnable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _own_memory() -> int | None:
    """Return the memory of this process, read once."""
    return memory_bytes()


@cache
def _own_groups() -> GroupLimits:
    """Return the limits of this process's control groups, read once."""
    return group_limits()


def _machine_memory(root: Path) -> int | None:
    """Return the bytes of memory of the machine; None where the system does not say."""
    try:
        found = re.search(r"^MemTotal:\s*(\d+) kB$", (root / "proc/meminfo").read_text(encoding="ascii"), re.M)
        if found and int(found[1]):
            return 1024 * int(found[1])
    except (OSError, ValueError):
        pass
    return _memory_of_system()


def _memory_of_system() -> int | None:
    """Return the bytes of memory as the C library or Windows reports them."""
    if sys.platform == "win32":
        import ctypes

        kilobytes = ctypes.c_ulonglong()
        if ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes)):
            return 1024 * kilobytes.value
        return None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None

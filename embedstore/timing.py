"""Where the time of one command goes: named steps, kept in the order in which they ended; and on how many cores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

wanted = False  # to be printed when the command ends
_steps: list[tuple[str, float]] = []


@contextmanager
def step(name: str) -> Iterator[None]:
    """Keep how long the block took; steps stand beside each other, never inside one another."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        _steps.append((name, time.perf_counter() - begin))


def add(name: str, seconds: float) -> None:
    """Keep a step that was timed elsewhere."""
    _steps.append((name, seconds))


def age() -> float | None:
    """Seconds since this process began, to a hundredth; None where the system does not say."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return up - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def report() -> list[tuple[str, float]]:
    """Every step with its seconds; what lies between them, and the whole, last."""
    whole = age()
    if whole is None:
        return list(_steps)
    return [*_steps, ("other", max(0.0, whole - sum(s for _, s in _steps))), ("altogether", whole)]

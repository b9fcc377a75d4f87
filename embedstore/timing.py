"""Where the time of one command goes: named steps, kept in the order in which they ended; and on how many cores."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class CommandTiming:
    """Steps of one command; whether they are to be printed when it ends."""

    print_requested: bool = False
    steps: list[tuple[str, float]] = field(default_factory=list)


_running: list[CommandTiming] = []  # empty in a program that only uses the library: its searches leave nothing behind


@contextmanager
def record_command() -> Iterator[CommandTiming]:
    """Keep the steps of what the block does."""
    _running.append(CommandTiming())
    try:
        yield _running[-1]
    finally:
        _running.pop()


@contextmanager
def time_step(name: str) -> Iterator[None]:
    """Keep how long the block took; steps stand beside each other, never inside one another."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        add_step(name, time.perf_counter() - begin)


def add_step(name: str, seconds: float) -> None:
    """Keep a step that was timed elsewhere."""
    if _running:
        _running[-1].steps.append((name, seconds))


def request_report() -> None:
    """The steps of this command are to be printed."""
    if _running:
        _running[-1].print_requested = True


def process_age() -> float | None:
    """Seconds since this process began, to a hundredth; None where the system does not say."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return up - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def step_report(steps: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Every step with its seconds; what lies between them, and the whole, last."""
    whole = process_age()
    if whole is None:
        return steps
    return [*steps, ("other", max(0.0, whole - sum(s for _, s in steps))), ("altogether", whole)]

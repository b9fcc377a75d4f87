"""Measure where the time of one command goes: named steps, in the order in which they ended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class CommandTiming:
    """The steps of one command, and whether to print them when it ends."""

    print_requested: bool = False
    steps: list[tuple[str, float]] = field(default_factory=list)


_running: list[CommandTiming] = []  # empty in a program that uses the library, so that its searches record nothing


@contextmanager
def record_command() -> Iterator[CommandTiming]:
    """Record the steps of a block."""
    _running.append(CommandTiming())
    try:
        yield _running[-1]
    finally:
        _running.pop()


@contextmanager
def time_step(name: str) -> Iterator[None]:
    """Record how long a block takes; steps must not be nested."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        add_step(name, time.perf_counter() - begin)


def add_step(name: str, seconds: float) -> None:
    """Record a step that was timed elsewhere."""
    if _running:
        _running[-1].steps.append((name, seconds))


def request_report() -> None:
    """Print the steps of this command when it ends."""
    if _running:
        _running[-1].print_requested = True


def process_age() -> float | None:
    """Return the seconds since this process started, to a hundredth; None where the system does not report it."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return up - started / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def step_report(steps: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return every step with its seconds; then the rest, and the total."""
    whole = process_age()
    if whole is None:
        return steps
    return [*steps, ("other", max(0.0, whole - sum(s for _, s in steps))), ("total", whole)]

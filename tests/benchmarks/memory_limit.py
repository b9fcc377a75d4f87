"""Run this process within a limit of memory, mapped pages and the cache of its files included: a cgroup of Linux."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def limit_memory(size: int) -> str:
    """Move this process into a new cgroup of so many bytes; return "" or why it cannot be done."""
    folder, file = CGROUPS, "memory.max"
    if not (CGROUPS / "cgroup.controllers").exists():
        folder, file = CGROUPS / "memory", "memory.limit_in_bytes"
    group = folder / f"benchmark-{os.getpid()}"
    try:
        group.mkdir()
        (group / file).write_text(str(size))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as e:
        return f"no memory limit can be set here ({e.strerror}: {e.filename})"
    return ""


def remove_groups() -> None:
    """Remove the cgroups of processes that have ended."""
    for folder in (CGROUPS, CGROUPS / "memory"):
        for group in folder.glob("benchmark-*"):
            with suppress(OSError):  # a process is in it
                group.rmdir()


def most_used() -> int | None:
    """Return the most bytes that the cgroup of this process has used; None if that is not known."""
    for group in (CGROUPS / "memory" / f"benchmark-{os.getpid()}", CGROUPS / f"benchmark-{os.getpid()}"):
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            if (group / name).exists():
                return int((group / name).read_text())
    return None

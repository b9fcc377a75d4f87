"""The limits of memory and processor time that Linux control groups (containers, jobs, services) set for this process.

A limit holds for a group and for every group inside it, so the least one on the way from the group of the process to
the root counts. Version 1 has one tree of groups for each controller, version 2 one tree for all; a machine may use
both (kernel documentation: "Control Group v2", and "Memory Resource Controller" for version 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MEMORY_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
_USED_FILES = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}  # limits that kill
_CONTROLLERS = frozenset({"memory", "cpu"})
_MAX_DIGITS = 30  # of a number: the kernel writes at most 20
_UNIFIED = "cgroup2"  # the file system of version 2, which has no list of controllers


@dataclass(frozen=True)
class GroupLimits:
    """What the groups of a process allow together.

    Attributes:
        memory_bytes: the least limit of memory; None without one.
        cores: the least share of processor time, in cores; None without one.
    """

    memory_bytes: int | None = None
    cores: float | None = None


@dataclass(frozen=True)
class _Mount:
    """A mounted tree of groups.

    Attributes:
        root: the group that appears at the mount point; a container may see a part of the tree only.
        point: the mount point.
        controllers: the cgroup controllers of version 1; empty for version 2.
    """

    root: PurePosixPath
    point: PurePosixPath
    controllers: frozenset[str]


def group_limits(root: Path = Path("/")) -> GroupLimits:
    """Return the limits of this process; what cannot be read or understood is no limit.

    Args:
        root: the folder that holds ``proc`` and ``sys``.
    """
    memory: list[int] = []
    cores: list[float] = []
    for folder in dict.fromkeys(_group_folders(root)):
        memory += [n for name in _MEMORY_FILES if (n := _positive(_read(folder / name)))]
        memory += _positives(re.findall(r"^hierarchical_memory_limit (\d+)$", _read(folder / "memory.stat"), re.M))
        cores += _core_limits(folder)
    return GroupLimits(min(memory, default=None), min(cores, default=None))


def group_memory_left(root: Path = Path("/")) -> int | None:
    """Return how much more memory the groups of this process may take before the kernel ends one of their processes.

    Args:
        root: the folder that holds ``proc`` and ``sys``.

    Returns:
        Bytes, those included that files which nobody reads any more take in the page cache; None without a limit.
    """
    left: list[int] = []
    for folder in dict.fromkeys(_group_folders(root)):
        for limit_name, used_name in _USED_FILES.items():
            limit, used = _positive(_read(folder / limit_name)), _positive(_read(folder / used_name))
            if limit is not None and used is not None:
                left.append(max(0, limit - used + _unused_cache(folder)))
    return min(left, default=None)


def _unused_cache(folder: Path) -> int:
    """Return the bytes of a group's page cache that the kernel drops first; version 1 adds ``total_``."""
    counts = re.findall(r"^(?:total_)?inactive_file (\d+)$", _read(folder / "memory.stat"), re.M)
    return max(_positives(counts), default=0)


def _group_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, and of those around them."""
    groups = _own_groups(_read(root / "proc/self/cgroup"))
    for mount in _mounts(_read(root / "proc/self/mountinfo")):
        for controllers, group in groups:
            if controllers == mount.controllers or controllers & mount.controllers & _CONTROLLERS:
                inner = _below(group, mount.root)
                for path in (inner, *inner.parents):
                    yield root / str(mount.point / path).lstrip("/")


def _own_groups(text: str) -> list[tuple[frozenset[str], PurePosixPath]]:
    """Return the controllers (none for version 2) and the path of each group in ``/proc/self/cgroup``."""
    fields = (line.split(":", 2) for line in text.splitlines())
    return [
        (frozenset(controllers.split(",")) - {""}, PurePosixPath(path))
        for _, controllers, path in (f for f in fields if len(f) == 3)
    ]


def _mounts(text: str) -> Iterator[_Mount]:
    """Yield the mounted trees of groups in ``/proc/self/mountinfo``."""
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        fields, types = place.split(" "), kind.split(" ")
        if len(fields) < 5 or len(types) < 3 or types[0] not in ("cgroup", _UNIFIED):
            continue
        controllers = frozenset() if types[0] == _UNIFIED else frozenset(types[2].split(","))
        yield _Mount(PurePosixPath(_unescape(fields[3])), PurePosixPath(_unescape(fields[4])), controllers)


def _below(group: PurePosixPath, root: PurePosixPath) -> PurePosixPath:
    """Return the path of a group in a mount; where the mount does not show the group, that of the mount's root."""
    inside = ".." not in group.parts and group.is_relative_to(root)
    return group.relative_to(root) if inside else PurePosixPath()


def _core_limits(folder: Path) -> Iterator[float]:
    """Yield the limits of processor time of one group, in cores."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    old = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    for used, of in ((quota, period), old):
        if (microseconds := _positive(used)) and (whole := _positive(of)):
            yield microseconds / whole


def _positives(texts: list[str]) -> list[int]:
    """Return the numbers above 0 among some texts."""
    return [n for text in texts if (n := _positive(text))]


def _positive(text: str) -> int | None:
    """Return a number above 0; None for ``max``, ``-1`` and whatever else is no limit."""
    text = text.strip()
    return (int(text) or None) if text.isascii() and text.isdigit() and len(text) < _MAX_DIGITS else None


def _read(path: Path) -> str:
    """Return the text of a file; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


def _unescape(text: str) -> str:
    r"""Return a path of mountinfo, where a space is written as ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)

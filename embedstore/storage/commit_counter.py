"""The number of acknowledged commits, in a file next to the catalog.

DuckDB opens a catalog whose log was deleted, truncated or replaced without an error, with fewer rows. So every
transaction counts itself in the catalog, and after its commit is on the disk the count is written to this file and
synced before the commit is acknowledged. A catalog with a lower count has lost acknowledged commits.

The file has two records, for even and for odd counts, 4 KiB apart: writing one never touches the other, so a torn
write leaves the previous count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from embedstore.storage import reading
from embedstore.storage.durable_files import write_synced
from embedstore.storage.layout import COMMIT_COUNTER
from embedstore.storage.store_files import open_binary, open_regular

_APART = 4096  # bytes: the least that disks write at once
_MAGIC = b"EMBEDST1"


def read(folder: Path) -> int | None:
    """Return the count; None if the file is missing or neither record is valid.

    Args:
        folder: the store's folder.

    Raises:
        OSError: if the file cannot be read.
    """
    try:
        with open_binary(folder / COMMIT_COUNTER) as f:
            data = f.read(2 * _APART)
    except FileNotFoundError:
        return None
    counts = [_count(data[at : at + 24]) for at in (0, _APART)]
    return max((c for c in counts if c is not None), default=None)


@contextmanager
def open_for_commit(folder: Path) -> Iterator[Callable[[int], None]]:
    """Open the file before a commit, so that a file that cannot be written to prevents the commit.

    Yields:
        A function that writes the next count and forces it to the disk; this needs one sync and no disk space.

    Raises:
        OSError: if the file cannot be opened; in the function, if the disk fails.
    """
    fd = open_regular(folder / COMMIT_COUNTER, os.O_WRONLY)
    try:
        yield lambda count: _advance(fd, count)
    finally:
        os.close(fd)


def _advance(fd: int, count: int) -> None:
    """Write a count to its record and force it to the disk."""
    os.lseek(fd, _APART * (count % 2), os.SEEK_SET)
    os.write(fd, _record(count))
    os.fsync(fd)


def reset(folder: Path, count: int) -> None:
    """Create the file, or set a lower count.

    Raises:
        OSError: if the disk is full or fails.
    """
    write_synced(folder / COMMIT_COUNTER, 2 * _record(count).ljust(_APART, b"\0"))


def exists(folder: Path) -> bool:
    """Return whether the file exists."""
    return reading.exists(folder / COMMIT_COUNTER)


def _record(count: int) -> bytes:
    """Return the 24 bytes of a record: magic number, count, and a checksum of both."""
    data = _MAGIC + count.to_bytes(8, "little")
    return data + xxhash.xxh3_64(data).digest()


def _count(record: bytes) -> int | None:
    """Return the count of a valid record."""
    data, checksum = record[:16], record[16:]
    valid = len(checksum) == 8 and data.startswith(_MAGIC) and xxhash.xxh3_64(data).digest() == checksum
    return int.from_bytes(data[8:], "little") if valid else None

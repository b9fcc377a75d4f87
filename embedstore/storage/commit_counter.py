"""How far the catalog had come when its last commit was acknowledged: a second witness beside it.

DuckDB opens a catalog whose log was deleted, cut or exchanged without an error, with fewer rows. So every transaction
counts itself in the catalog, and after its commit is on the disk the count is written here, synced, before anybody is
told. A catalog that counts less than its witness has lost commits that were acknowledged.

The file has two records, of even and of odd counts, 4 KiB apart: writing one never touches the other, so a write that
is torn leaves the count before it.
"""

from __future__ import annotations

import os
from pathlib import Path

import xxhash

from embedstore.storage.durable_files import write_synced
from embedstore.storage.layout import COMMIT_COUNTER

_APART = 4096  # bytes: disks write no less at once
_MAGIC = b"EMBEDST1"


def read(folder: Path) -> int | None:
    """The count; None where the file is missing or neither record is whole.

    Args:
        folder: of the store.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        with (folder / COMMIT_COUNTER).open("rb") as f:
            data = f.read(2 * _APART)
    except FileNotFoundError:
        return None
    counts = [_count(data[at : at + 24]) for at in (0, _APART)]
    return max((c for c in counts if c is not None), default=None)


def advance(folder: Path, count: int) -> None:
    """Write a count down and force it to the disk; one sync, and no room is needed.

    Raises:
        OSError: the disk refuses.
    """
    fd = os.open(folder / COMMIT_COUNTER, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        os.lseek(fd, _APART * (count % 2), os.SEEK_SET)
        os.write(fd, _record(count))
        os.fsync(fd)
    finally:
        os.close(fd)


def reset(folder: Path, count: int) -> None:
    """Make the file, or make it say less than it did.

    Raises:
        OSError: the disk refuses.
    """
    write_synced(folder / COMMIT_COUNTER, 2 * _record(count).ljust(_APART, b"\0"))


def exists(folder: Path) -> bool:
    """The file is there."""
    return (folder / COMMIT_COUNTER).exists()


def _record(count: int) -> bytes:
    """24 bytes: what it is, the count, and a checksum of both."""
    said = _MAGIC + count.to_bytes(8, "little")
    return said + xxhash.xxh3_64(said).digest()


def _count(record: bytes) -> int | None:
    """The count in a record that is whole."""
    said, checksum = record[:16], record[16:]
    good = len(checksum) == 8 and said.startswith(_MAGIC) and xxhash.xxh3_64(said).digest() == checksum
    return int.from_bytes(said[8:], "little") if good else None

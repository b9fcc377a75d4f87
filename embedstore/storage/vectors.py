"""All vectors of one space, in one generation, as one array of rows that is never loaded whole.

A *position* is a row's place in that array: shards in the order of their numbers, rows in the order of the shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.storage.memory_map import empty_matrix, release_pages
from embedstore.storage.shard import Shard

BLOCK_ROWS = 16384  # 32 MiB of float32 at 512 dimensions
MAX_MAPPED_FILES = (
    256  # files that stay mapped when nobody needs them: the disk keeps what is mapped although it was removed
)
_FEW = 64  # rows
VERIFY_WHOLE_BYTES = (
    32 << 20
)  # bytes of a file that is verified whole before even one row of it is used: 4 ms at 8 GB/s

FileIdentity = tuple[str, int, int, int, int]


class VectorReader:
    """The shards of a space.

    Args:
        shards: ``(number, rows, file)``, ordered by number.
        dim: of every vector.
    """

    def __init__(self, shards: Sequence[tuple[int, int, Path]], dim: int) -> None:
        self.dim = dim
        self.shard_numbers = np.array([n for n, _, _ in shards], dtype=np.int64)
        self.shard_starts = np.concatenate([[0], np.cumsum([rows for _, rows, _ in shards], dtype=np.int64)])
        self._rows = [rows for _, rows, _ in shards]
        self._files = [file for _, _, file in shards]
        self._held: dict[int, tuple[Shard, FileIdentity]] = {}
        self._whole: dict[int, NDArray[np.floating[Any]]] = {}  # held, and compared to the last byte

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    @property
    def shard_sizes(self) -> list[tuple[int, int]]:
        """``(number, rows)`` of every shard, in order."""
        return list(zip(self.shard_numbers.tolist(), self._rows, strict=True))

    def map_shards(self, shards: NDArray[np.int64] | None = None) -> VectorReader:
        """Map the files now, while a reader has their generation open: a compaction may remove them afterwards.

        Args:
            shards: numbers of the files that will be read; by default all.
        """
        which = (
            range(len(self._files))
            if shards is None
            else np.searchsorted(self.shard_numbers, np.unique(shards)).tolist()
        )
        for i in which:
            found, identity = _opened(self._files[i])
            found.map()
            self._held[i] = found, identity
        return self

    def shard_arrays(self, first: int = 0) -> Iterator[NDArray[np.floating[Any]]]:
        """Every shard's rows as stored, from the ``first`` shard on, mapped: ``(n, dim)`` each.

        They outlive their files' removal. Each is compared with its checksum when it is its turn.
        """
        for i in range(first, len(self._files)):
            yield self._vectors(i, checked=True)

    def positions(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of ``(shard number, row)`` pairs."""
        place: NDArray[np.int64] = self.shard_starts[np.searchsorted(self.shard_numbers, shards)] + rows
        return place

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``(shard numbers, rows)`` of positions; the inverse of :meth:`positions`."""
        which = np.searchsorted(self.shard_starts, positions, side="right") - 1
        return self.shard_numbers[which], positions - self.shard_starts[which]

    def iter_blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Every vector, in order: ``(position of the first, float32 (n, dim))``, n at most ``rows``.

        What was passed does not stay in this process's memory, however large the space is.
        """
        for i in range(len(self._files)):
            stored = self._vectors(i, checked=True)
            for begin in range(0, len(stored), block_rows):
                yield int(self.shard_starts[i]) + begin, stored[begin : begin + block_rows].astype(np.float32)
            release_pages(stored)

    def release_memory(self) -> None:
        """Take the files that are held out of this process's memory; they are read again when they are needed."""
        for found, _ in self._held.values():
            release_pages(found.vectors)

    def read_float32(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors at the given positions: float32 ``(len(positions), dim)``, in the order given."""
        return self.read_stored(positions).astype(np.float32, copy=False)

    def read_stored(self, positions: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """The vectors at the given positions as stored: ``(len(positions), dim)``, contiguous, in the order given."""
        if 0 < len(positions) <= _FEW:
            return self._few(positions)
        order = None if (positions[1:] >= positions[:-1]).all() else np.argsort(positions, kind="stable")
        ascending = positions if order is None else positions[order]
        ends = np.searchsorted(ascending, self.shard_starts)
        parts = []
        for i in np.flatnonzero(np.diff(ends)).tolist():
            rows = ascending[ends[i] : ends[i + 1]] - self.shard_starts[i]
            parts.append((self._vectors(i, rows=rows), rows))
        out: NDArray[np.floating[Any]] = np.empty(
            (len(positions), self.dim), parts[0][0].dtype if parts else np.float32
        )
        begin = 0
        for stored, rows in parts:
            stored.take(rows, axis=0, out=out[begin : begin + len(rows)], mode="clip")
            begin += len(rows)
        if order is None:
            return out
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return out[back]

    def _few(self, positions: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """The same, one by one: to sort a few and to group them by file takes longer."""
        which = np.searchsorted(self.shard_starts, positions, side="right") - 1
        rows = positions - self.shard_starts[which]
        found = [
            self._vectors(i, rows=rows[n : n + 1])[row]
            for n, (i, row) in enumerate(zip(which.tolist(), rows.tolist(), strict=True))
        ]
        return np.concatenate(found).reshape(len(found), self.dim)

    def _vectors(
        self, i: int, *, checked: bool = False, rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.floating[Any]]:
        """The rows of the i-th shard, mapped.

        Args:
            i: which.
            checked: compare the whole file with its checksum, once in a process; a small file always is.
            rows: that are wanted: of a large file their blocks are compared, each once in a process.

        Raises:
            StoreDamaged: the file is missing, cut, not what was written, or another than the catalog says.
        """
        if i in self._whole:
            return self._whole[i]
        found, identity = self._held.get(i) or _opened(self._files[i])
        expected = (self._rows[i], self.dim, int(self.shard_numbers[i]))
        if (found.header.rows, found.header.dim, found.header.number) != expected:
            raise StoreDamaged(
                f"{self._files[i]} holds {found.vectors.shape} of commit {found.header.number}, the catalog says "
                f"{expected[:2]} of commit {expected[2]}; run `embedstore repair`"
            )
        if checked or found.header.file_bytes <= VERIFY_WHOLE_BYTES:
            _verify(found, identity)
        elif rows is not None and identity not in _verified:
            found.verify_rows(rows, _blocks.setdefault(identity, set()))
        if i in self._held and identity in _verified:
            self._whole[i] = found.vectors
        return found.vectors


def gather_vectors(vectors: VectorReader, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors at the positions, float32 ``(n, D)``, read block by block; a memory map above 1 GiB."""
    out = empty_matrix(len(positions), vectors.dim)
    for begin in range(0, len(positions), BLOCK_ROWS):
        out[begin : begin + BLOCK_ROWS] = vectors.read_float32(positions[begin : begin + BLOCK_ROWS])
    return out


def _opened(file: Path) -> tuple[Shard, FileIdentity]:
    """A shard opened once. It never changes, but another store may come to stand where this one stood."""
    try:
        s = file.stat()
    except OSError as e:
        raise StoreDamaged(f"cannot read the vectors in {file}: {e.strerror}; run `embedstore repair`") from e
    identity = (str(file), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns)
    return _mapped(file, identity), identity


@lru_cache(maxsize=MAX_MAPPED_FILES)
def _mapped(file: Path, identity: FileIdentity) -> Shard:
    """A shard, opened once while anybody holds it."""
    found = _in_use.get(identity)
    if found is None:
        found = _in_use[identity] = Shard(file)
    return found


_in_use: WeakValueDictionary[FileIdentity, Shard] = WeakValueDictionary()
_blocks: dict[FileIdentity, set[int]] = {}  # that were compared with their checksums
_verified: set[FileIdentity] = set()


def _verify(found: Shard, identity: FileIdentity) -> None:
    """Compare a shard with its checksum, once in a process, whether or not it stays mapped."""
    if identity not in _verified:
        found.verify()
        _verified.add(identity)

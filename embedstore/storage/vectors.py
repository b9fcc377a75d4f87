"""All vectors of one space, in one generation, as one array of rows that is never loaded whole.

A *position* is the place of a row in that array: vector files by number, rows in the order of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.storage.memory_map import empty_matrix, release_pages
from embedstore.storage.shard_cache import SHARDS, OpenShard

BLOCK_ROWS = 16384  # 32 MiB of float32 at 512 dimensions
_NO_SUCH_ROWS = "the catalog names rows of vector files that do not exist; run `embedstore verify STORE`"
_FEW_ROWS = 64  # that are read one by one: sorting and grouping them by file takes longer


class VectorReader:
    """The vectors of a space.

    Args:
        shards: ``(number, rows, file)`` of every vector file, by number.
        dim: the length of a vector.

    Attributes:
        shard_numbers: int64 ``(files,)``.
        shard_starts: int64 ``(files + 1,)``, the position of the first row of each file, and the number of rows.
    """

    def __init__(self, shards: Sequence[tuple[int, int, Path]], dim: int) -> None:
        self.dim = dim
        self.shard_numbers = np.array([n for n, _, _ in shards], dtype=np.int64)
        self.shard_starts = np.concatenate([[0], np.cumsum([rows for _, rows, _ in shards], dtype=np.int64)])
        self._rows = [rows for _, rows, _ in shards]
        self._files = [file for _, _, file in shards]
        self._mapped: dict[int, OpenShard] = {}
        self._verified: dict[int, NDArray[np.floating[Any]]] = {}  # the rows of mapped files that are verified whole

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    @property
    def shard_sizes(self) -> list[tuple[int, int]]:
        """``(number, rows)`` of every vector file, by number."""
        return list(zip(self.shard_numbers.tolist(), self._rows, strict=True))

    def map_shards(self, shards: NDArray[np.int64] | None = None) -> VectorReader:
        """Map files while a reader has their generation open, since a compaction may remove them afterwards.

        Args:
            shards: the numbers of the files to read; by default all.

        Raises:
            StoreDamaged: if a file is missing, truncated, or not a vector file, or there is no file of a number.
        """
        wanted = self.shard_numbers if shards is None else np.unique(shards)
        if not np.isin(wanted, self.shard_numbers).all():
            raise StoreDamaged(_NO_SUCH_ROWS)
        for i in np.searchsorted(self.shard_numbers, wanted).tolist():
            self._mapped[i] = SHARDS.open(self._files[i])
            self._mapped[i].shard.map()
        return self

    def positions(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of ``(file number, row)`` pairs: int64 ``(n,)`` for two arrays of that shape.

        Raises:
            StoreDamaged: if there is no such file, or no such row in it.
        """
        if not len(shards):
            return np.empty(0, np.int64)
        files = np.minimum(np.searchsorted(self.shard_numbers, shards), len(self.shard_numbers) - 1)
        positions: NDArray[np.int64] = self.shard_starts[files] + rows
        exists = len(self.shard_numbers) and (self.shard_numbers[files] == shards).all()
        if not exists or (rows < 0).any() or (positions >= self.shard_starts[files + 1]).any():
            raise StoreDamaged(_NO_SUCH_ROWS)
        return positions

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ``(file numbers, rows)`` of positions; the inverse of :meth:`positions`."""
        files = self._files_of(positions)
        return self.shard_numbers[files], positions - self.shard_starts[files]

    def shard_arrays(self, first: int = 0) -> Iterator[NDArray[np.floating[Any]]]:
        """Yield the rows of every vector file as stored: ``(rows, dim)`` each, mapped and verified.

        The arrays stay valid after their files were removed.

        Args:
            first: the index of the first file to yield.

        Raises:
            StoreDamaged: if a file is not what was written.
        """
        for i in range(first, len(self._files)):
            yield self._verified_array(i)

    def iter_blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield every vector in order: ``(position of the first, float32 (n, dim))``, n at most ``block_rows``.

        Memory does not grow with the space: pages that were read are released.

        Raises:
            StoreDamaged: if a file is not what was written.
        """
        for i in range(len(self._files)):
            stored = self._verified_array(i)
            for begin in range(0, len(stored), block_rows):
                yield int(self.shard_starts[i]) + begin, stored[begin : begin + block_rows].astype(np.float32)
            release_pages(stored)

    def release_memory(self) -> None:
        """Release the pages of mapped files from this process's memory; they are read again when they are used."""
        for opened in self._mapped.values():
            release_pages(opened.shard.vectors)

    def read_float32(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors at positions: float32 ``(len(positions), dim)``, in the order given.

        Raises:
            StoreDamaged: if a file is not what was written.
        """
        return self.read_stored(positions).astype(np.float32, copy=False)

    def read_stored(self, positions: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the vectors at positions as stored: ``(len(positions), dim)``, contiguous, in the order given.

        Raises:
            StoreDamaged: if a file is not what was written.
        """
        if 0 < len(positions) <= _FEW_ROWS:
            return self._read_few(positions)
        order = None if (positions[1:] >= positions[:-1]).all() else np.argsort(positions, kind="stable")
        ascending = self._read_ascending(positions if order is None else positions[order])
        if order is None:
            return ascending
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        return ascending[inverse]

    def _read_ascending(self, positions: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the vectors at ascending positions, read file by file."""
        ends = np.searchsorted(positions, self.shard_starts)
        parts = []
        for i in np.flatnonzero(np.diff(ends)).tolist():
            rows = positions[ends[i] : ends[i + 1]] - self.shard_starts[i]
            parts.append((self._array(i, rows), rows))
        out: NDArray[np.floating[Any]] = np.empty(
            (len(positions), self.dim), parts[0][0].dtype if parts else np.float32
        )
        begin = 0
        for stored, rows in parts:
            stored.take(rows, axis=0, out=out[begin : begin + len(rows)], mode="clip")
            begin += len(rows)
        return out

    def _read_few(self, positions: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the vectors at a few positions, read one by one."""
        files = self._files_of(positions)
        rows = positions - self.shard_starts[files]
        vectors = [
            self._array(i, rows[n : n + 1])[row]
            for n, (i, row) in enumerate(zip(files.tolist(), rows.tolist(), strict=True))
        ]
        return np.concatenate(vectors).reshape(len(vectors), self.dim)

    def _files_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the file of each position."""
        files: NDArray[np.int64] = np.searchsorted(self.shard_starts, positions, side="right") - 1
        return files

    def _array(self, i: int, rows: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        """Return the vectors of the i-th file after the checksums of these rows were verified."""
        if i in self._verified:
            return self._verified[i]
        opened = self._open(i)
        SHARDS.verify_rows(opened, rows)
        return self._keep(i, opened)

    def _verified_array(self, i: int) -> NDArray[np.floating[Any]]:
        """Return the vectors of the i-th file after every checksum was verified."""
        if i in self._verified:
            return self._verified[i]
        opened = self._open(i)
        SHARDS.verify(opened)
        return self._keep(i, opened)

    def _keep(self, i: int, opened: OpenShard) -> NDArray[np.floating[Any]]:
        """Return the array of a file, and remember it if the file is mapped and verified whole."""
        if i in self._mapped and SHARDS.is_verified(opened):
            self._verified[i] = opened.shard.vectors
        return opened.shard.vectors

    def _open(self, i: int) -> OpenShard:
        """Open the i-th file, and compare its header with the catalog."""
        opened = self._mapped.get(i) or SHARDS.open(self._files[i])
        header = opened.shard.header
        expected = (self._rows[i], self.dim, int(self.shard_numbers[i]))
        if (header.rows, header.dim, header.number) != expected:
            raise StoreDamaged(
                f"{self._files[i]} holds {header.rows} × {header.dim} vectors of file {header.number}, the catalog has "
                f"{expected[0]} × {expected[1]} of file {expected[2]}; run `embedstore repair STORE`"
            )
        return opened


def gather_vectors(vectors: VectorReader, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors at the positions, float32 ``(n, D)``, read block by block; a memory map above 1 GiB."""
    out = empty_matrix(len(positions), vectors.dim)
    for begin in range(0, len(positions), BLOCK_ROWS):
        out[begin : begin + BLOCK_ROWS] = vectors.read_float32(positions[begin : begin + BLOCK_ROWS])
    return out

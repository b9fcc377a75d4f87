"""Vectors of chosen items one block at a time, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.storage import filters as item_filter
from embedstore.storage.queries.streams import StreamTables, create_stream_tables, sampled_rows, stream_rows
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import int64_column, scratch_tables
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import BLOCK_ROWS, VectorReader


@dataclass(frozen=True)
class VectorStream:
    """The contents of the chosen items, numbered 0 to rows - 1 in the order of their rows on disk."""

    tables: StreamTables
    _storage: Storage
    _vectors: VectorReader

    def iter_blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
        """Yield ``(n of the first, items int64 (b,), vectors float32 (b, dim))`` with b at most ``block_rows``."""
        for begin in range(0, self.tables.rows, block_rows):
            columns = stream_rows(self._storage.catalog.scratch, self.tables, begin, begin + block_rows)
            positions = self._vectors.positions(int64_column(columns["shard"]), int64_column(columns["row"]))
            yield begin, int64_column(columns["item"]), self._vectors.read_float32(positions)

    def sample(self, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return items int64 ``(n,)`` and vectors float32 ``(n, dim)`` of a random sample, at most ``count``."""
        blocks = list(self.sample_blocks(count, seed))
        if not blocks:
            return np.empty(0, np.int64), np.empty((0, self._vectors.dim), np.float32)
        return np.concatenate([items for items, _ in blocks]), np.concatenate([X for _, X in blocks])

    def sample_blocks(self, count: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield ``(items int64 (b,), vectors float32 (b, dim))`` of a random sample, at most ``count`` in all."""
        rows = self.tables.rows
        if count >= rows:
            yield from ((items, X) for _, items, X in self.iter_blocks())
            return
        numbers = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
        for begin in range(0, count, BLOCK_ROWS):
            columns = sampled_rows(self._storage.catalog.scratch, self.tables, numbers[begin : begin + BLOCK_ROWS])
            positions = self._vectors.positions(int64_column(columns["shard"]), int64_column(columns["row"]))
            yield int64_column(columns["item"]), self._vectors.read_float32(positions)


@contextmanager
def open_vector_stream(
    storage: Storage,
    space: SpaceRecord,
    where: str | None,
    *,
    extra_condition: str = "true",
    known_head: str | None = None,
) -> Iterator[VectorStream]:
    """Open a stream over the present items that match a filter and have a vector in the space.

    Args:
        storage: the store.
        space: the space.
        where: a filter, as in search.
        extra_condition: SQL that the caller vouches for.
        known_head: a head that the filter may name although it has no predictions yet.

    Raises:
        BadFilter: if the filter is not valid.
        UnknownColumn: if the filter names a column that the items do not have.
    """
    with scratch_tables(storage.catalog.scratch, "streamed_contents", "streamed_items") as (contents, items):
        with storage.catalog.read() as con, item_filter.filter_errors(con, where):
            heads = [known_head] if known_head else []
            condition = f"({item_filter.compile_filter(con, where, known_heads=heads)}) AND ({extra_condition})"
            tables = create_stream_tables(con, (contents, items), space=space.key, condition=condition)
            vectors = storage.vector_reader_in(con, space.space).map_shards()
        yield VectorStream(tables, storage, vectors)

"""Vectors of chosen items one block at a time, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.storage import filters as item_filter
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import first_row
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import BLOCK_ROWS, VectorReader

_TABLES = """
CREATE OR REPLACE TABLE memory.main.streamed_items AS
SELECT item, content FROM items WHERE present AND ({condition});
CREATE OR REPLACE TABLE memory.main.streamed AS
SELECT row_number() OVER (ORDER BY v.shard, v."row") - 1 AS n, v.shard, v."row" AS place, v.content, i.item
FROM (SELECT * FROM vectors WHERE space = '{space}') v
JOIN (SELECT content, min(item) AS item FROM memory.main.streamed_items GROUP BY content) i ON i.content = v.content
"""


@dataclass(frozen=True)
class VectorStream:
    """The contents of the chosen items, numbered 0 … rows - 1 in the order in which they lie on the disk.

    Beside it stand two tables of the private connection: ``memory.main.streamed (n, shard, place, content, item)``,
    item being the first of that content, and ``memory.main.streamed_items (item, content)``.
    """

    rows: int
    _storage: Storage
    _vectors: VectorReader

    def iter_blocks(self, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
        """``(n of the first, items int64 (b,), vectors float32 (b, dim))``, b at most ``rows``."""
        for begin in range(0, self.rows, block_rows):
            found = self._storage.catalog.scratch.execute(
                'SELECT item, shard, place::BIGINT AS "row" FROM memory.main.streamed '
                "WHERE n >= ? AND n < ? ORDER BY n",
                [begin, begin + block_rows],
            ).fetchnumpy()
            positions = self._vectors.positions(np.asarray(found["shard"]), np.asarray(found["row"]))
            yield begin, np.asarray(found["item"], dtype=np.int64), self._vectors.read_float32(positions)


@contextmanager
def open_vector_stream(
    storage: Storage,
    space: SpaceRecord,
    where: str | None,
    *,
    extra_condition: str = "true",
    known_head: str | None = None,
) -> Iterator[VectorStream]:
    """The present items that match a filter and have a vector in the space.

    Args:
        storage, space: the store and the space. where: a filter, as in search. also: SQL that the caller vouches for.
        head: one that the filter may name though it has predicted nothing yet.

    Raises:
        BadFilter, UnknownColumn: the filter cannot be used.
    """
    try:
        with storage.catalog.read() as con, item_filter.filter_errors(where):
            heads = [known_head] if known_head else []
            condition = f"({item_filter.compile_filter(con, where, known_heads=heads)}) AND ({extra_condition})"
            con.execute(_TABLES.format(condition=condition, space=space.key))
            rows = int(first_row(con.execute("SELECT count(*) FROM memory.main.streamed"))[0])
            vectors = storage.vector_reader_in(con, space.space).map_shards()
        yield VectorStream(rows, storage, vectors)
    finally:
        for table in ("streamed", "streamed_items"):
            storage.catalog.scratch.execute(f"DROP TABLE IF EXISTS memory.main.{table}")

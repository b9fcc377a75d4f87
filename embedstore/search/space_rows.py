"""The vectors of matching items as unit rows, for duplicates and clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.search.index.kmeans import UnitRowReader
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import VectorReader

_RELEASE_ROWS = 200_000  # rows read before mapped pages are released: 200 to 800 MB at 512 dimensions


@dataclass(frozen=True)
class MatchingRows:
    """The items that match a filter, and the contents that they share.

    Attributes:
        items: int64 ``(n,)`` ids, ascending.
        content: int64 ``(n,)``, the row of each item among the different contents.
        positions: int64 ``(m,)``, the position of each different content in the space, ascending.
        vectors: the vectors of the space.
    """

    items: NDArray[np.int64]
    content: NDArray[np.int64]
    positions: NDArray[np.int64]
    vectors: VectorReader

    @classmethod
    def load(cls, storage: Storage, space: SpaceRecord, where: str | None) -> MatchingRows:
        """Find the present items that match and have a vector.

        Raises:
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the filter names a column that the items lack.
        """
        with storage.catalog.read() as con:
            placements = queries.placements(con, space.key, where)
            vectors = storage.vector_reader_in(con, space.space).map_shards()
        order = np.argsort(placements.items)
        positions, content = np.unique(
            vectors.positions(placements.shards[order], placements.rows[order]), return_inverse=True
        )
        return cls(placements.items[order], content, positions, vectors)

    def __len__(self) -> int:
        return len(self.positions)

    def reader(self) -> UnitRowReader:
        """Return a reader of unit rows by content. It releases the mapped pages of the files now and then."""
        rows_read = 0

        def read(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            nonlocal rows_read
            stored = self.vectors.read_float32(self.positions[rows])
            rows_read += len(rows)
            if rows_read > _RELEASE_ROWS:
                self.vectors.release_memory()
                rows_read = 0
            return unit_rows(stored)

        return read

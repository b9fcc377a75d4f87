"""One space in one generation of the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index import files
from embedstore.search.index.approximate import RowFilter
from embedstore.search.index.files import FolderState, IndexLookup, LoadedIndex
from embedstore.search.index.scan import Scanner
from embedstore.search.row_index import RowIndex, Selection
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.vectors import VectorReader


@dataclass(frozen=True, eq=False)
class SpaceSnapshot:
    """The vectors of a space and the best index that fits them. What it derives from them is computed once.

    Attributes:
        space: the space.
        vectors: its rows, mapped.
        lookup: the index to use, and what is wrong with the others.
        index_state: state of the index folder at the look-up.
    """

    space: SpaceRecord
    vectors: VectorReader
    lookup: IndexLookup
    index_state: FolderState

    @classmethod
    def load(cls, space: SpaceRecord, vectors: VectorReader, folder: Path) -> SpaceSnapshot:
        """Look up the index in a folder."""
        state = files.folder_state(folder)
        lookup = files.find_usable_index(folder, space=space.key, dim=space.space.dim, shards=vectors.shard_sizes)
        return cls(space, vectors, lookup, state)

    @property
    def index(self) -> LoadedIndex | None:
        """The index to use, or None."""
        return self.lookup.index

    @property
    def unit(self) -> bool:
        """Whether the stored rows have length 1."""
        return self.space.space.unit

    @property
    def covered_shard_count(self) -> int:
        """How many shards, from the first, the index covers."""
        return len(self.index.sidecar.shards) if self.index else 0

    @property
    def covered_rows(self) -> int:
        """How many rows, from the first, the index covers."""
        return int(self.vectors.shard_starts[self.covered_shard_count])

    @cached_property
    def scanner(self) -> Scanner:
        """A scanner of every row."""
        return Scanner(self.vectors.shard_arrays(), unit=self.unit)

    @cached_property
    def uncovered_scanner(self) -> Scanner:
        """A scanner of the rows that the index does not cover; they begin at position ``covered_rows``."""
        return Scanner(self.vectors.shard_arrays(self.covered_shard_count), unit=self.unit)

    def select(self, row_index: RowIndex, entry_mask: NDArray[np.bool_] | None) -> Selection:
        """Return the rows of some entries of the row index; None for all of them."""
        row_mask = row_index.row_mask(entry_mask)
        index_filter = (
            RowFilter.from_mask(row_mask[: self.covered_rows], self.index.inverted_lists) if self.index else None
        )
        return Selection(entry_mask, row_mask, int(np.count_nonzero(row_mask)), index_filter)

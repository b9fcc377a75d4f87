"""Which item is at which row of a space, and which rows a filter selects.

Rows are known by *position* (a row's place among all vectors of the space), items by id. The two are joined once per
generation of the catalog, in 20 bytes per item.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.search.index.approximate import RowFilter
from embedstore.storage.queries.search import Placements
from embedstore.storage.vectors import VectorReader

MAX_ITEM = 1 << 28  # ids beyond this are accepted only as far as there are items: an array has an entry for each id


@dataclass(frozen=True)
class Selection:
    """The rows of a space that may be hits.

    Attributes:
        entry_mask: bool, one per entry of the row index; None selects all.
        row_mask: bool ``(rows,)``.
        row_count: number of selected rows.
        index_filter: the selected rows that the index covers; None without an index.
    """

    entry_mask: NDArray[np.bool_] | None
    row_mask: NDArray[np.bool_]
    row_count: int
    index_filter: RowFilter | None


@dataclass(frozen=True)
class RowIndex:
    """Present items that have a vector, ordered by position, then item.

    Attributes:
        positions: int64 ``(n,)``.
        items: int64 ``(n,)`` ids.
        entry_by_item: int32, the entry of each item id, or -1.
        row_count: vectors of the space, with or without items.
    """

    positions: NDArray[np.int64]
    items: NDArray[np.int64]
    entry_by_item: NDArray[np.int32]
    row_count: int

    @classmethod
    def from_placements(cls, placements: Placements, vectors: VectorReader) -> RowIndex:
        """Join items and rows.

        Raises:
            StoreDamaged: if the catalog names rows that do not exist, or ids that no store has.
        """
        positions = vectors.positions(placements.shards, placements.rows)
        if placements.items.min(initial=0) < 0 or placements.items.max(initial=0) > MAX_ITEM + 64 * len(positions):
            raise StoreDamaged("the catalog has items with impossible ids; run `embedstore verify STORE`")
        order = np.lexsort((placements.items, positions))
        items, positions = placements.items[order], positions[order]
        entry_by_item = np.full(int(items.max(initial=-1)) + 1, -1, np.int32)
        entry_by_item[items] = np.arange(len(items), dtype=np.int32)
        return cls(positions, items, entry_by_item, len(vectors))

    @cached_property
    def is_one_to_one(self) -> bool:
        """Whether every row has one item, so that an entry's place is its position."""
        return len(self.positions) == self.row_count and bool((np.diff(self.positions) == 1).all())

    def entry_mask(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which entries are the given items: bool ``(n,)``."""
        mask = np.zeros(len(self.items), np.bool_)
        entries = self.entry_by_item[items[items < len(self.entry_by_item)]]
        mask[entries[entries >= 0]] = True
        return mask

    def row_mask(self, entry_mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Return which rows have a present item, or a selected one: bool ``(rows,)``, not to be changed."""
        if entry_mask is not None and self.is_one_to_one:
            return entry_mask
        mask = np.zeros(self.row_count, np.bool_)
        mask[self.positions if entry_mask is None else self.positions[entry_mask]] = True
        return mask

    def items_at(
        self, positions: NDArray[np.int64], entry_mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the (selected) items at some positions.

        Args:
            positions: int64 ``(n,)``.
            entry_mask: only these entries; None for all.

        Returns:
            ``(items, which)``, int64 ``(m,)`` each: ``items[i]`` is at ``positions[which[i]]``, ``which`` ascending.
        """
        if self.is_one_to_one:
            which = np.arange(len(positions))
            if entry_mask is not None:
                which = which[entry_mask[positions]]
            return self.items[positions[which]], which
        first = np.searchsorted(self.positions, positions, side="left")
        count = np.searchsorted(self.positions, positions, side="right") - first
        which = np.repeat(np.arange(len(positions)), count)
        entries = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(len(which))
        if entry_mask is not None:
            selected = entry_mask[entries]
            entries, which = entries[selected], which[selected]
        return self.items[entries], which

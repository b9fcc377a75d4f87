"""What a search needs of one generation of the catalog, kept until the catalog changes.

Rows are found by *position* (a row's place among all vectors of the space), items by id; the two meet in
:class:`Placed`, 20 bytes an item, made when the first filter or mask asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.search.column_cache import ColumnCache
from embedstore.search.index import files
from embedstore.search.index.approximate import RowFilter
from embedstore.search.index.scan import Scanner
from embedstore.storage.catalog import CatalogStamp
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import quote_identifier
from embedstore.storage.storage import ITEM_COLUMNS, Storage
from embedstore.storage.vectors import VectorReader

MAX_CACHED_FILTERS = 8  # kept in a generation: two bytes an item each
MAX_SQL_LOOKUPS = (
    3  # by SQL on the file, in one generation; then items and rows meet in memory, and what hits show is copied
)
MAX_CACHED_ITEMS = 2_000_000  # items whose shown columns are copied: some 70 bytes each with a short path


@dataclass
class CatalogSnapshot:
    """One state of the catalog.

    Attributes:
        columns: of the items. fields: what was looked up of each space, by key.
        copied: the columns that hits show, in memory; None before.
    """

    stamp: CatalogStamp
    columns: list[str]
    spaces: dict[str, SpaceSnapshot] = field(default_factory=dict)
    copied: ColumnCache | None = None

    @property
    def hit_columns(self) -> list[str]:
        """Columns that a hit shows: item, uri, label, split, then the user's own."""
        return ["item", "uri", "label", "split", *(c for c in self.columns if c not in ITEM_COLUMNS)]


class SpaceSnapshot:
    """One space in one generation.

    Args:
        of: the generation. space: which. vectors: its rows.
        found: the best index file that fits, and what is wrong with the others. state: of the index folder then.
    """

    def __init__(
        self,
        catalog_snapshot: CatalogSnapshot,
        space: SpaceRecord,
        vectors: VectorReader,
        index_lookup: files.IndexLookup,
        index_state: files.FolderState,
    ) -> None:
        self.catalog_snapshot = catalog_snapshot
        self.space = space
        self.index_state = index_state
        self.vectors = vectors
        self.index = index_lookup.index
        self.notes = index_lookup.notes
        self.lookup_count = 0
        self.selections: dict[str, Selection] = {}
        self._placed: RowIndex | None = None
        self._living: Selection | None = None

    @cached_property
    def scanner(self) -> Scanner:
        """Every row."""
        return Scanner(self.vectors.shard_arrays(), unit=self.space.space.unit)

    @cached_property
    def uncovered_scanner(self) -> Scanner:
        """The rows that the index does not cover; they begin at position ``covered``."""
        return Scanner(self.vectors.shard_arrays(self.covered_shard_count), unit=self.space.space.unit)

    @property
    def covered_shard_count(self) -> int:
        """How many shards, from the first, the index covers."""
        return len(self.index.sidecar.shards) if self.index else 0

    @property
    def covered_rows(self) -> int:
        """How many rows, from the first, the index covers."""
        return int(self.vectors.shard_starts[self.covered_shard_count])

    def selection(
        self, con: duckdb.DuckDBPyConnection, where: str, evaluate_filter: Callable[[], NDArray[np.bool_]]
    ) -> Selection:
        """What a filter leaves, found once while the catalog stays as it is; the latest few filters are kept."""
        if where not in self.selections:
            while len(self.selections) >= MAX_CACHED_FILTERS:
                del self.selections[next(iter(self.selections))]
            entries = evaluate_filter()
            self.selections[where] = self._choice(con, entries)
        return self.selections[where]

    def present_selection(self, con: duckdb.DuckDBPyConnection) -> Selection:
        """The rows that have a present item."""
        if self._living is None:
            self._living = self._choice(con, None)
        return self._living

    def _choice(self, con: duckdb.DuckDBPyConnection, entries: NDArray[np.bool_] | None) -> Selection:
        """Some of the placed items, or all, and their rows."""
        mask = self.row_index(con).row_mask(entries)
        only = RowFilter.from_mask(mask[: self.covered_rows], self.index.inverted_lists) if self.index else None
        return Selection(entries, mask, int(np.count_nonzero(mask)), only)

    @property
    def has_row_index(self) -> bool:
        """Items and rows have met already."""
        return self._placed is not None

    def row_index(self, con: duckdb.DuckDBPyConnection) -> RowIndex:
        """Which item is at which row."""
        if self._placed is None:
            self._placed = _placed(con, self.space, self.vectors)
        return self._placed


@dataclass(frozen=True)
class RowIndex:
    """Present items that have a vector, ordered by position, then item.

    Attributes:
        positions, items: int64 ``(n,)``.
        slots: int32, by item: its place in the two others, or -1.
        rows: vectors of the space, with or without items.
    """

    positions: NDArray[np.int64]
    items: NDArray[np.int64]
    entry_by_item: NDArray[np.int32]
    row_count: int

    @cached_property
    def is_one_to_one(self) -> bool:
        """Every row has one item: an entry's place is its position."""
        return len(self.positions) == self.row_count and bool((np.diff(self.positions) == 1).all())

    def entry_mask(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which entries are the given items: bool ``(n,)``."""
        chosen = np.zeros(len(self.items), np.bool_)
        slots = self.entry_by_item[items[items < len(self.entry_by_item)]]
        chosen[slots[slots >= 0]] = True
        return chosen

    def row_mask(self, entry_mask: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Which rows have a present item, or a chosen one: bool ``(rows,)``."""
        mask = np.zeros(self.row_count, np.bool_)
        mask[self.positions if entry_mask is None else self.positions[entry_mask]] = True
        return mask

    def items_at(
        self, positions: NDArray[np.int64], entry_mask: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``(items, which)``: the (chosen) items at some positions; ``which`` says at which of these."""
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
            kept = entry_mask[entries]
            entries, which = entries[kept], which[kept]
        return self.items[entries], which


@dataclass(frozen=True)
class Selection:
    """What a filter leaves of a space.

    Attributes:
        entries: which of the placed items, bool; None for all of them. mask: which rows, bool.
        matching: how many rows. only: those in the index, as it wants to be told; None without one.
    """

    entry_mask: NDArray[np.bool_] | None
    row_mask: NDArray[np.bool_]
    row_count: int
    index_filter: RowFilter | None


_generations: WeakKeyDictionary[Storage, CatalogSnapshot] = WeakKeyDictionary()


def current_catalog_snapshot(storage: Storage, con: duckdb.DuckDBPyConnection) -> CatalogSnapshot:
    """The generation that a reader has open; looked up anew only where the catalog's files have changed."""
    stamp = storage.catalog.stamp
    known = _generations.get(storage)
    if known is None or known.stamp != stamp:
        columns = [r[0] for r in con.execute("DESCRIBE items").fetchall()]
        known = _generations[storage] = CatalogSnapshot(stamp, columns)
    return known


def space_snapshot(storage: Storage, con: duckdb.DuckDBPyConnection, space: SpaceRecord) -> SpaceSnapshot:
    """One space as it stands now, with the best index that fits it."""
    now = current_catalog_snapshot(storage, con)
    folder = storage.layout.index_folder(space.key)
    state = files.folder_state(folder)
    known = now.spaces.get(space.key)
    if known is None or known.index_state != state:
        vectors = storage.vector_reader_in(con, space.space).map_shards()
        found = files.find_usable_index(folder, space=space.key, dim=space.space.dim, shards=vectors.shard_sizes)
        known = now.spaces[space.key] = SpaceSnapshot(now, space, vectors, found, state)
    return known


@dataclass(frozen=True)
class SnapshotReader:
    """A connection and one generation of a space."""

    con: duckdb.DuckDBPyConnection
    space_snapshot: SpaceSnapshot

    def hit_rows(self, items: NDArray[np.int64]) -> list[tuple[Any, ...]]:
        """What hits show of some items, in any order: a row each of the columns in ``generation.shown``."""
        now = self.space_snapshot.catalog_snapshot
        if now.copied is not None:
            return now.copied.rows(items)
        columns = ", ".join(quote_identifier(c) for c in now.hit_columns)
        wanted = {"item": items}  # noqa: F841 - read by SQL
        return self.con.execute(f"SELECT {columns} FROM items WHERE item IN (SELECT item FROM wanted)").fetchall()


@contextmanager
def open_snapshot(
    storage: Storage, space: SpaceRecord, where: str | None, *, all_columns: bool
) -> Iterator[SnapshotReader]:
    """One generation of a space: from memory where all that a search needs is there and the file has not changed.

    Args:
        storage, space: which. where: the search's filter. all_columns: of the items, not only those that hits show.
    """
    ready = None if all_columns else _ready(storage, space, where)
    if ready is not None:
        yield SnapshotReader(storage.catalog.scratch, ready)  # asked for nothing, so threads search beside each other
        return
    with storage.catalog.read() as con:
        found = space_snapshot(storage, con, space)
        yield SnapshotReader(con, found)
        now = found.catalog_snapshot
        if (
            now.copied is None
            and found.lookup_count > MAX_SQL_LOOKUPS
            and len(found.row_index(con).items) <= MAX_CACHED_ITEMS
        ):
            now.copied = ColumnCache(con, now.hit_columns)


def _ready(storage: Storage, space: SpaceRecord, where: str | None) -> SpaceSnapshot | None:
    """A space of the generation in memory, if that is still the file's and knows the filter."""
    known = _generations.get(storage)
    if known is None or known.copied is None or known.stamp != storage.catalog.stamp:
        return None
    found = known.spaces.get(space.key)
    if (
        found is None
        or not found.has_row_index
        or found.index_state != files.folder_state(storage.layout.index_folder(space.key))
    ):
        return None
    return found if where is None or where in found.selections else None


def _placed(con: duckdb.DuckDBPyConnection, space: SpaceRecord, vectors: VectorReader) -> RowIndex:
    """Join items and vectors once."""
    found = con.execute(
        'SELECT i.item, v.shard, v."row"::BIGINT AS r FROM items i '
        "JOIN vectors v ON v.content = i.content AND v.space = ? WHERE i.present",
        [space.key],
    ).fetchnumpy()
    items = np.asarray(found["item"], np.int64)
    positions = vectors.positions(np.asarray(found["shard"], np.int64), np.asarray(found["r"], np.int64))
    order = np.lexsort((items, positions))
    items, positions = items[order], positions[order]
    slots = np.full(int(items.max(initial=-1)) + 1, -1, np.int32)
    slots[items] = np.arange(len(items), dtype=np.int32)
    return RowIndex(positions, items, slots, len(vectors))

"""What searches of one store keep while the catalog stays as it is, so that a repeated search opens no file.

Threads share it. Whatever needs SQL is computed while the catalog is open, which one thread at a time may have; a lock
guards the selections, which threads look up without opening the catalog.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.resources import memory_share
from embedstore.search.column_cache import ColumnCache
from embedstore.search.index import files
from embedstore.search.row_index import RowIndex, Selection
from embedstore.search.snapshot import SpaceSnapshot
from embedstore.storage.catalog import CatalogStamp
from embedstore.storage.column_names import ITEM_COLUMNS
from embedstore.storage.queries import search as queries
from embedstore.storage.queries.computed_columns import ComputedColumn, computed_columns, stale_notes
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage

MAX_CACHED_FILTERS = 8  # selections per space, two bytes per item each
MAX_SQL_LOOKUPS = 3  # look-ups by SQL in one generation; then the row index and the column cache are built
MAX_CACHED_ITEMS = 2_000_000  # items whose hit columns are cached
_ITEM_BYTES = 70  # about what the columns of an item take with a short path


class SpaceCache:
    """A snapshot of one space, and the row index and selections that searches derived from it.

    Args:
        snapshot: the space.
    """

    def __init__(self, snapshot: SpaceSnapshot) -> None:
        self.snapshot = snapshot
        self.row_index: RowIndex | None = None
        self._present: Selection | None = None
        self._selections: OrderedDict[str, Selection] = OrderedDict()
        self._filter_notes: dict[str, tuple[str, ...]] = {}  # of the same filters
        self._computed: list[ComputedColumn] | None = None
        self._lookups = 0
        self._lock = threading.Lock()

    @property
    def is_warm(self) -> bool:
        """Whether the generation had enough look-ups to pay for building caches."""
        return self._lookups > MAX_SQL_LOOKUPS

    def count_lookup(self) -> None:
        """Count one look-up of the items at some rows."""
        with self._lock:
            self._lookups += 1

    def cached_selection(self, where: str) -> Selection | None:
        """Return the cached rows that match a filter, or None, and mark them as just used."""
        with self._lock:
            if where in self._selections:
                self._selections.move_to_end(where)
            return self._selections.get(where)

    def require_row_index(self, con: duckdb.DuckDBPyConnection) -> RowIndex:
        """Return the row index; it is built at the first call."""
        if self.row_index is None:
            placements = queries.placements(con, self.snapshot.space.key)
            self.row_index = RowIndex.from_placements(placements, self.snapshot.vectors)
        return self.row_index

    def item_count(self, con: duckdb.DuckDBPyConnection) -> int:
        """Return the number of present items that have a vector."""
        return len(self.require_row_index(con).items)

    def select_matching(self, con: duckdb.DuckDBPyConnection, where: str) -> Selection:
        """Return the selection of a filter; the most recently used ones are cached.

        Raises:
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the filter names a column that the items lack.
        """
        selection = self.cached_selection(where)
        if selection is None:
            items = queries.matching_items(con, where)
            row_index = self.require_row_index(con)
            selection = self.snapshot.select(row_index, row_index.entry_mask(items))
            notes = tuple(stale_notes(con, where, self._computed_columns(con)))
            with self._lock:
                self._selections[where], self._filter_notes[where] = selection, notes
                if len(self._selections) > MAX_CACHED_FILTERS:
                    oldest, _ = self._selections.popitem(last=False)
                    del self._filter_notes[oldest]
        return selection

    def select(
        self, con: duckdb.DuckDBPyConnection, where: str | None, within: NDArray[np.int64] | None
    ) -> Selection | None:
        """Return the selection of a filter among given items, None if there is neither.

        Raises:
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the filter names a column that the items lack.
        """
        matching = None if where is None else self.select_matching(con, where)
        if within is None:
            return matching
        row_index = self.require_row_index(con)
        mask = row_index.entry_mask(within)
        if matching is not None and matching.entry_mask is not None:
            mask &= matching.entry_mask
        return self.snapshot.select(row_index, mask)

    def _computed_columns(self, con: duckdb.DuckDBPyConnection) -> list[ComputedColumn]:
        """Return the computed columns of the items; they are read at the first call."""
        if self._computed is None:
            self._computed = computed_columns(con)
        return self._computed

    def filter_notes(self, where: str | None) -> tuple[str, ...]:
        """Return what a person should know about the columns of a filter that was selected before."""
        return () if where is None else self._filter_notes.get(where, ())

    def select_present(self, con: duckdb.DuckDBPyConnection) -> Selection:
        """Return the selection of all rows that have a present item."""
        if self._present is None:
            self._present = self.snapshot.select(self.require_row_index(con), None)
        return self._present


@dataclass(frozen=True)
class ViewRequest:
    """What a search wants to see.

    Attributes:
        where: the filter.
        within: only items with these ids: int64 ``(n,)``.
        all_columns: whether columns are read that hits do not show.
    """

    where: str | None
    within: NDArray[np.int64] | None = None
    all_columns: bool = False


@dataclass(frozen=True)
class SearchView:
    """What one search sees: one generation of a space, the rows that its filter selects, and their items.

    Attributes:
        con: the open catalog; a warm view runs no statement on it.
        cache: the space.
        selection: rows that match the filter; None without a filter.
        item_columns: all columns of the items.
        column_cache: the columns that hits show, in memory; None where SQL reads them.
    """

    con: duckdb.DuckDBPyConnection
    cache: SpaceCache
    selection: Selection | None
    item_columns: tuple[str, ...]
    column_cache: ColumnCache | None

    @property
    def snapshot(self) -> SpaceSnapshot:
        """The space."""
        return self.cache.snapshot

    @property
    def user_columns(self) -> list[str]:
        """The user's own columns of the items."""
        return [c for c in self.item_columns if c not in ITEM_COLUMNS]

    @property
    def hit_columns(self) -> list[str]:
        """The columns that a hit shows: item, uri, label, split, then the user's own."""
        return ["item", "uri", "label", "split", *self.user_columns]

    def select_present(self) -> Selection:
        """Return the selection of all rows that have a present item."""
        return self.cache.select_present(self.con)

    def items_at(
        self, positions: NDArray[np.int64], selection: Selection | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the (selected) items at some positions, as :meth:`RowIndex.items_at` does.

        One look-up by SQL takes 8 ms at a million vectors. Building the row index takes forty times that, so it is
        built only after a few look-ups in one generation.
        """
        self.cache.count_lookup()
        entry_mask = selection.entry_mask if selection else None
        if entry_mask is not None or self.cache.row_index is not None or self.cache.is_warm:
            return self.cache.require_row_index(self.con).items_at(positions, entry_mask)
        shards, rows = self.snapshot.vectors.locate(positions)
        return queries.items_at(self.con, self.snapshot.space.key, shards, rows)

    def hit_rows(self, items: NDArray[np.int64]) -> list[queries.Row]:
        """Return the ``hit_columns`` of some items, in any order."""
        if self.column_cache is not None:
            return self.column_cache.rows(items)
        return queries.hit_rows(self.con, items, self.hit_columns)

    def column_values(self, items: NDArray[np.int64], column: str) -> list[str | None]:
        """Return a column of some items as text, in their order.

        Raises:
            UnknownColumn: if the items lack the column.
        """
        column = queries.require_item_column(column, self.item_columns)
        return queries.column_values(self.con, items, column)


class SnapshotCache:
    """The snapshots of one generation of a store's catalog. Another generation replaces them.

    Args:
        storage: the store.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._generation: _Generation | None = None

    @contextmanager
    def open_view(self, space: SpaceRecord, wanted: ViewRequest) -> Iterator[SearchView]:
        """Yield what a search sees, from memory where all that it needs is cached and no file has changed.

        Args:
            space: the space to search.
            wanted: the items of the search, and whether it reads other columns than hits show.

        Yields:
            A view, valid in the block.

        Raises:
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the filter names a column that the items lack.
        """
        warm = None if wanted.all_columns or wanted.within is not None else self._warm_view(space, wanted.where)
        if warm is not None:
            yield warm  # it waits for no writer and no other thread
            return
        with self._storage.catalog.read() as con:
            generation = self._current_generation(con)
            cache = self._space_cache(con, generation, space)
            selection = cache.select(con, wanted.where, wanted.within)
            view = SearchView(con, cache, selection, generation.item_columns, generation.column_cache)
            yield view
            if generation.column_cache is None and cache.is_warm and cache.item_count(con) <= _max_cached_items():
                generation.column_cache = ColumnCache(con, view.hit_columns)

    def _warm_view(self, space: SpaceRecord, where: str | None) -> SearchView | None:
        """Return a view that needs no SQL, or None."""
        catalog, generation = self._storage.catalog, self._generation
        if generation is None or generation.column_cache is None or generation.stamp != catalog.stamp:
            return None
        cache = generation.spaces.get(space.key)
        if cache is None or cache.row_index is None or self._index_changed(cache.snapshot):
            return None
        selection = None if where is None else cache.cached_selection(where)
        if where is not None and selection is None:
            return None
        return SearchView(catalog.scratch, cache, selection, generation.item_columns, generation.column_cache)

    def _current_generation(self, con: duckdb.DuckDBPyConnection) -> _Generation:
        """Return the generation that a reader has open; another one replaces it if the catalog's files changed."""
        stamp = self._storage.catalog.stamp
        if self._generation is None or self._generation.stamp != stamp:
            self._generation = _Generation(stamp, tuple(queries.item_columns(con)), {})
        return self._generation

    def _space_cache(self, con: duckdb.DuckDBPyConnection, generation: _Generation, space: SpaceRecord) -> SpaceCache:
        """Return the cache of a space; another one replaces it if the space's indexes changed."""
        cache = generation.spaces.get(space.key)
        if cache is None or self._index_changed(cache.snapshot):
            vectors = self._storage.vector_reader_in(con, space.space).map_shards()
            folder = self._storage.layout.index_folder(space.key)
            cache = generation.spaces[space.key] = SpaceCache(SpaceSnapshot.load(space, vectors, folder))
        return cache

    def _index_changed(self, snapshot: SpaceSnapshot) -> bool:
        """Return whether the index folder of a space changed since its snapshot."""
        return snapshot.index_state != files.folder_state(self._storage.layout.index_folder(snapshot.space.key))


@dataclass
class _Generation:
    """One state of the catalog.

    Attributes:
        stamp: the stamp of the catalog's files.
        item_columns: names of all columns of the items.
        spaces: the spaces by key.
        column_cache: the columns that hits show; None before the generation is warm.
    """

    stamp: CatalogStamp
    item_columns: tuple[str, ...]
    spaces: dict[str, SpaceCache]
    column_cache: ColumnCache | None = None


def _max_cached_items() -> int:
    """Return how many items' columns are cached: they may take a sixteenth of the memory of this process."""
    return memory_share(MAX_CACHED_ITEMS * _ITEM_BYTES, 16) // _ITEM_BYTES

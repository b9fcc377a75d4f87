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

from embedstore.search.column_cache import Shown
from embedstore.search.index import files
from embedstore.search.index.approximate import Only
from embedstore.search.index.scan import Scanner
from embedstore.storage.catalog import Stamp
from embedstore.storage.commit import identifier
from embedstore.storage.storage import ITEM_COLUMNS, SpaceRow, Storage
from embedstore.storage.vectors import Vectors

FILTERS = 8  # kept in a generation: two bytes an item each
LOOKUPS = 3  # by SQL on the file, in one generation; then items and rows meet in memory, and what hits show is copied
KEPT = 2_000_000  # items whose shown columns are copied: some 70 bytes each with a short path


@dataclass
class Generation:
    """One state of the catalog.

    Attributes:
        columns: of the items. fields: what was looked up of each space, by key.
        copied: the columns that hits show, in memory; None before.
    """

    stamp: Stamp
    columns: list[str]
    fields: dict[str, Field] = field(default_factory=dict)
    copied: Shown | None = None

    @property
    def shown(self) -> list[str]:
        """Columns that a hit shows: item, uri, label, split, then the user's own."""
        return ["item", "uri", "label", "split", *(c for c in self.columns if c not in ITEM_COLUMNS)]


class Field:
    """One space in one generation.

    Args:
        of: the generation. space: which. vectors: its rows.
        found: the best index file that fits, and what is wrong with the others. state: of the index folder then.
    """

    def __init__(
        self, of: Generation, space: SpaceRow, vectors: Vectors, found: files.Found, state: files.State
    ) -> None:
        self.generation = of
        self.space = space
        self.index_state = state
        self.vectors = vectors
        self.index = found.index
        self.notes = found.notes
        self.lookups = 0
        self.choices: dict[str, Choice] = {}
        self._placed: Placed | None = None
        self._living: Choice | None = None

    @cached_property
    def scanner(self) -> Scanner:
        """Every row."""
        return Scanner(self.vectors.arrays(), unit=self.space.space.unit)

    @cached_property
    def beside(self) -> Scanner:
        """The rows that the index does not cover; they begin at position ``covered``."""
        return Scanner(self.vectors.arrays(self.covered_shards), unit=self.space.space.unit)

    @property
    def covered_shards(self) -> int:
        """How many shards, from the first, the index covers."""
        return len(self.index.sidecar.shards) if self.index else 0

    @property
    def covered(self) -> int:
        """How many rows, from the first, the index covers."""
        return int(self.vectors.starts[self.covered_shards])

    def choice(self, con: duckdb.DuckDBPyConnection, where: str, find: Callable[[], NDArray[np.bool_]]) -> Choice:
        """What a filter leaves, found once while the catalog stays as it is; the latest few filters are kept."""
        if where not in self.choices:
            while len(self.choices) >= FILTERS:
                del self.choices[next(iter(self.choices))]
            entries = find()
            self.choices[where] = self._choice(con, entries)
        return self.choices[where]

    def living(self, con: duckdb.DuckDBPyConnection) -> Choice:
        """The rows that have a present item."""
        if self._living is None:
            self._living = self._choice(con, None)
        return self._living

    def _choice(self, con: duckdb.DuckDBPyConnection, entries: NDArray[np.bool_] | None) -> Choice:
        """Some of the placed items, or all, and their rows."""
        mask = self.placed(con).mask(entries)
        only = Only.of(mask[: self.covered], self.index.lists) if self.index else None
        return Choice(entries, mask, int(np.count_nonzero(mask)), only)

    @property
    def is_placed(self) -> bool:
        """Items and rows have met already."""
        return self._placed is not None

    def placed(self, con: duckdb.DuckDBPyConnection) -> Placed:
        """Which item is at which row."""
        if self._placed is None:
            self._placed = _placed(con, self.space, self.vectors)
        return self._placed


@dataclass(frozen=True)
class Placed:
    """Present items that have a vector, ordered by position, then item.

    Attributes:
        positions, items: int64 ``(n,)``.
        slots: int32, by item: its place in the two others, or -1.
        rows: vectors of the space, with or without items.
    """

    positions: NDArray[np.int64]
    items: NDArray[np.int64]
    slots: NDArray[np.int32]
    rows: int

    @cached_property
    def one_each(self) -> bool:
        """Every row has one item: an entry's place is its position."""
        return len(self.positions) == self.rows and bool((np.diff(self.positions) == 1).all())

    def chosen(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which entries are the given items: bool ``(n,)``."""
        chosen = np.zeros(len(self.items), np.bool_)
        slots = self.slots[items[items < len(self.slots)]]
        chosen[slots[slots >= 0]] = True
        return chosen

    def mask(self, chosen: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Which rows have a present item, or a chosen one: bool ``(rows,)``."""
        mask = np.zeros(self.rows, np.bool_)
        mask[self.positions if chosen is None else self.positions[chosen]] = True
        return mask

    def at(
        self, positions: NDArray[np.int64], chosen: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``(items, which)``: the (chosen) items at some positions; ``which`` says at which of these."""
        if self.one_each:
            which = np.arange(len(positions))
            if chosen is not None:
                which = which[chosen[positions]]
            return self.items[positions[which]], which
        first = np.searchsorted(self.positions, positions, side="left")
        count = np.searchsorted(self.positions, positions, side="right") - first
        which = np.repeat(np.arange(len(positions)), count)
        entries = np.repeat(first - np.concatenate([[0], np.cumsum(count)[:-1]]), count) + np.arange(len(which))
        if chosen is not None:
            kept = chosen[entries]
            entries, which = entries[kept], which[kept]
        return self.items[entries], which


@dataclass(frozen=True)
class Choice:
    """What a filter leaves of a space.

    Attributes:
        entries: which of the placed items, bool; None for all of them. mask: which rows, bool.
        matching: how many rows. only: those in the index, as it wants to be told; None without one.
    """

    entries: NDArray[np.bool_] | None
    mask: NDArray[np.bool_]
    matching: int
    only: Only | None


_generations: WeakKeyDictionary[Storage, Generation] = WeakKeyDictionary()


def current(storage: Storage, con: duckdb.DuckDBPyConnection) -> Generation:
    """The generation that a reader has open; looked up anew only where the catalog's files have changed."""
    stamp = storage.catalog.stamp
    known = _generations.get(storage)
    if known is None or known.stamp != stamp:
        columns = [r[0] for r in con.execute("DESCRIBE items").fetchall()]
        known = _generations[storage] = Generation(stamp, columns)
    return known


def of(storage: Storage, con: duckdb.DuckDBPyConnection, space: SpaceRow) -> Field:
    """One space as it stands now, with the best index that fits it."""
    now = current(storage, con)
    folder = storage.at.index(space.key)
    state = files.state(folder)
    known = now.fields.get(space.key)
    if known is None or known.index_state != state:
        vectors = storage.vectors_in(con, space.space).hold()
        found = files.find(folder, space=space.key, dim=space.space.dim, shards=vectors.counts)
        known = now.fields[space.key] = Field(now, space, vectors, found, state)
    return known


@dataclass(frozen=True)
class Reader:
    """A connection and one generation of a space."""

    con: duckdb.DuckDBPyConnection
    field: Field

    def shown(self, items: NDArray[np.int64]) -> list[tuple[Any, ...]]:
        """What hits show of some items, in any order: a row each of the columns in ``generation.shown``."""
        now = self.field.generation
        if now.copied is not None:
            return now.copied.rows(items)
        columns = ", ".join(identifier(c) for c in now.shown)
        wanted = {"item": items}  # noqa: F841 - read by SQL
        return self.con.execute(f"SELECT {columns} FROM items WHERE item IN (SELECT item FROM wanted)").fetchall()


@contextmanager
def reader(storage: Storage, space: SpaceRow, where: str | None, *, all_columns: bool) -> Iterator[Reader]:
    """One generation of a space: from memory where all that a search needs is there and the file has not changed.

    Args:
        storage, space: which. where: the search's filter. all_columns: of the items, not only those that hits show.
    """
    ready = None if all_columns else _ready(storage, space, where)
    if ready is not None:
        yield Reader(storage.catalog.scratch, ready)  # asked for nothing, so threads search beside each other
        return
    with storage.catalog.read() as con:
        found = of(storage, con, space)
        yield Reader(con, found)
        now = found.generation
        if now.copied is None and found.lookups > LOOKUPS and len(found.placed(con).items) <= KEPT:
            now.copied = Shown(con, now.shown)


def _ready(storage: Storage, space: SpaceRow, where: str | None) -> Field | None:
    """A space of the generation in memory, if that is still the file's and knows the filter."""
    known = _generations.get(storage)
    if known is None or known.copied is None or known.stamp != storage.catalog.stamp:
        return None
    found = known.fields.get(space.key)
    if found is None or not found.is_placed or found.index_state != files.state(storage.at.index(space.key)):
        return None
    return found if where is None or where in found.choices else None


def _placed(con: duckdb.DuckDBPyConnection, space: SpaceRow, vectors: Vectors) -> Placed:
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
    return Placed(positions, items, slots, len(vectors))

"""Look at a collection: pages of items in any order, the facts of one item, values with counts, completion."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ItemNotFound
from embedstore.modality import Modality, modality_of
from embedstore.operations.bounded_cache import BoundedCache
from embedstore.operations.packed_ids import PackedIds
from embedstore.operations.session import Session
from embedstore.storage.catalog import CatalogStamp
from embedstore.storage.column_names import ITEM_COLUMNS, find_item_column
from embedstore.storage.filters import FUNCTION_NAMES
from embedstore.storage.layout import read_marker
from embedstore.storage.lock import LockHolder, lock_holder
from embedstore.storage.predicted_columns import predicting_heads, written_name
from embedstore.storage.queries import browse as queries
from embedstore.storage.queries import computed_columns, counters, counts
from embedstore.storage.queries.browse import ColumnValues, ListOrder
from embedstore.storage.run_progress import RunProgress, read_progress
from embedstore.storage.sql import column_types

__all__ = ["Browser", "ColumnValues", "ListOrder", "LockHolder"]

MAX_ORDER_BYTES = 128 << 20  # of the orders that are kept: a bit per item in the order of ids, eight bytes in others
MAX_FACET_VALUES = 50  # as the counts of labels of `embedstore info`
MAX_COMPLETIONS = 20
_NUMBERS = re.compile(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|FLOAT|DOUBLE|DECIMAL")
_DATES = re.compile(r"DATE|TIME")
_OPEN_TEXT = re.compile(r"'((?:[^']|'')*)$")  # a text that was begun and not ended
_BEGUN_NAME = re.compile(r"[\w.]*$")


class ColumnKind(StrEnum):
    """What the values of a column are."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    OTHER = "other"


class ColumnOrigin(StrEnum):
    """Where the values of a column come from."""

    OWN = "own"
    LABEL = "label"
    STORE = "store"
    COMPUTED = "computed"
    PREDICTION = "prediction"


@dataclass(frozen=True)
class ColumnFacts:
    """A column that a filter can name.

    Attributes:
        name: as a filter writes it.
        kind: what its values are.
        origin: where they come from.
    """

    name: str
    kind: ColumnKind
    origin: ColumnOrigin


@dataclass(frozen=True)
class StoreOverview:
    """What the page shows of a store first.

    Attributes:
        id: the identity of the store.
        generation: how many changes it has had.
        items: how many items there are.
        contents: how many different contents.
        failures: how many images could not be embedded.
        unlabelled: how many present items have no label.
        columns: the columns that filters can name.
        writer: who writes to the store now.
        progress: how far its run is, None if that is not known.
    """

    id: str
    generation: int
    items: int
    contents: int
    failures: int
    unlabelled: int
    columns: list[ColumnFacts]
    writer: LockHolder | None
    progress: RunProgress | None


@dataclass(frozen=True)
class ItemPage:
    """A part of the items in an order.

    Attributes:
        generation: how many changes the store had had.
        total: how many items match.
        rows: ``item``, ``uri``, ``label``, ``split`` and the wanted columns.
    """

    generation: int
    total: int
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class ItemFacts:
    """All that the catalog knows of one item.

    Attributes:
        columns: every column by name.
        image: ``width``, ``height``, ``format`` and ``bytes`` of the content.
        predictions: ``(head, label, score)``.
        failures: ``(reason, detail)``.
    """

    columns: dict[str, Any]
    image: dict[str, Any]
    predictions: list[tuple[Any, ...]]
    failures: list[tuple[Any, ...]]


class CompletionKind(StrEnum):
    """What a continuation of a filter is."""

    COLUMN = "column"
    VALUE = "value"
    FUNCTION = "function"


@dataclass(frozen=True)
class Completion:
    """A continuation of a filter.

    Attributes:
        text: what takes the place of the text from ``start`` on.
        kind: what it is.
        start: where the part begins that it replaces.
    """

    text: str
    kind: CompletionKind
    start: int


@dataclass(frozen=True)
class _KnownOrder:
    """An order that was listed.

    Attributes:
        generation: how many changes the store had had.
        items: the ids.
    """

    generation: int
    items: PackedIds


class Browser:
    """Looks at the items of one store. Threads may share it.

    The ids of the last few orders are kept, so that any part of an order is read without sorting again.

    Args:
        session: the open store.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._orders: BoundedCache[tuple[CatalogStamp, ListOrder], _KnownOrder] = BoundedCache(
            MAX_ORDER_BYTES, lambda known: known.items.nbytes
        )

    def overview(self) -> StoreOverview:
        """Return what the store holds, in numbers."""
        storage = self._session.storage
        writer, progress = self.activity()
        with storage.catalog.read() as con:
            totals = counts.browse_counts(con)
            return StoreOverview(
                id=read_marker(storage.layout)["id"],
                generation=counters.read_commit_count(con),
                columns=_column_facts(con),
                writer=writer,
                progress=progress,
                **totals,
            )

    def generation(self) -> int:
        """Return how many changes the store has had."""
        return self._session.storage.catalog.commit_count()

    def activity(self) -> tuple[LockHolder | None, RunProgress | None]:
        """Return who writes to the store now and how far its run is; None if nobody does, or it is not known.

        The short changes that this process makes itself are left out.
        """
        layout = self._session.storage.layout
        holder = lock_holder(layout.lock)
        progress = None if holder is None else read_progress(layout, holder.pid)
        if holder is not None and holder.pid == os.getpid() and progress is None:
            return None, None  # a label or a decision of this process itself
        return holder, progress

    def ordered(self, order: ListOrder) -> tuple[int, NDArray[np.int64]]:
        """Return the generation, and the ids of the items of an order: int64 ``(n,)``.

        Raises:
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the items lack a column.
        """
        catalog = self._session.storage.catalog
        known = self._orders.get((catalog.stamp, order))
        if known is not None:
            return known.generation, known.items.unpack()
        with catalog.read() as con:
            stamp = catalog.stamp
            generation, items = counters.read_commit_count(con), queries.ordered_items(con, order)
        self._orders.keep_only(lambda key: key[0] == stamp)
        self._orders.put((stamp, order), _KnownOrder(generation, PackedIds.of(items)))
        return generation, items

    def page(
        self,
        order: ListOrder,
        *,
        offset: int,
        limit: int,
        columns: Sequence[str] = (),
        within: NDArray[np.int64] | None = None,
    ) -> ItemPage:
        """Return a part of the items in an order.

        Args:
            order: the filter and the order.
            offset: how many items to skip.
            limit: how many items to return.
            columns: further columns to return.
            within: only items with these ids; int64 ``(n,)``.

        Raises:
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the items lack a column.
        """
        generation, items = self.ordered(order)
        if within is not None:
            items = items[np.isin(items, within)]
        return ItemPage(generation, len(items), self.rows(items[offset : offset + limit], columns))

    def rows(self, items: NDArray[np.int64], columns: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the rows of some items, in their order.

        Raises:
            UnknownColumn: if the items lack a column.
        """
        with self._session.storage.catalog.read() as con:
            return queries.item_rows(con, items, columns)

    def known(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some ids that are of present items, in their order, each once."""
        unique, first = np.unique(items, return_index=True)
        present = np.isin(unique, self.ordered(ListOrder())[1])
        return unique[present][np.argsort(first[present])]

    def facts(self, item: int) -> ItemFacts:
        """Return all that the catalog knows of one item.

        Raises:
            ItemNotFound: if there is no such item.
        """
        with self._session.storage.catalog.read() as con:
            columns = queries.item_facts(con, item)
            if columns is None:
                raise ItemNotFound(f"there is no item {item}")
            image = columns.pop("image")
            return ItemFacts(columns, image, queries.item_predictions(con, item), queries.item_failures(con, item))

    def content(self, item: int) -> tuple[str, str, bytes | None]:
        """Return content, uri and raw path of an item.

        Raises:
            ItemNotFound: if there is no such item.
        """
        with self._session.storage.catalog.read() as con:
            found = queries.item_content(con, item)
        if found is None:
            raise ItemNotFound(f"there is no item {item}")
        return found

    def modality(self, item: int) -> Modality:
        """Return whether an item is an image, a text or a sound; one that was not decoded counts as an image."""
        with self._session.storage.catalog.read() as con:
            return modality_of(queries.item_format(con, item))

    def columns(self) -> list[ColumnFacts]:
        """Return the columns that filters can name."""
        with self._session.storage.catalog.read() as con:
            return _column_facts(con)

    def facets(
        self, columns: Sequence[str], where: str | None, within: NDArray[np.int64] | None = None
    ) -> list[ColumnValues]:
        """Return the most frequent values of columns among the items that match a filter.

        Args:
            columns: the columns.
            where: the filter.
            within: int64 ``(n,)`` ids of the items to count among; None counts among all.

        Raises:
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the items lack a column.
        """
        with self._session.storage.catalog.read() as con:
            kinds = {name: column_kind(kind) for name, kind in column_types(con, "items").items()}
            ordered = {name for name, kind in kinds.items() if kind in (ColumnKind.NUMBER, ColumnKind.DATE)}
            return [
                queries.column_values(
                    con,
                    c,
                    where,
                    limit=MAX_FACET_VALUES,
                    is_ordered=find_item_column(c, kinds) in ordered,
                    within=within,
                )
                for c in columns
            ]

    def complete(self, text: str) -> list[Completion]:
        """Return how a filter could go on: values inside a text that was begun, else columns and functions."""
        with self._session.storage.catalog.read() as con:
            names = [c.name for c in _column_facts(con)]
            begun_text = _OPEN_TEXT.search(text)
            if begun_text is None or text[: begun_text.start()].count("'") % 2:
                return _complete_name(text, names)
            column = _column_before(text[: begun_text.start()], list(column_types(con, "items")))
            if column is None:
                return []
            prefix = begun_text[1].replace("''", "'")
            values = queries.values_with_prefix(con, column, prefix, MAX_COMPLETIONS)
        return [Completion("'" + v.replace("'", "''") + "'", CompletionKind.VALUE, begun_text.start()) for v in values]


def column_kind(duckdb_type: str) -> ColumnKind:
    """Return what the values of a DuckDB type are."""
    if duckdb_type in ("VARCHAR", "UUID"):
        return ColumnKind.TEXT
    if duckdb_type == "BOOLEAN":
        return ColumnKind.BOOLEAN
    if duckdb_type.endswith("]"):
        return ColumnKind.OTHER
    if _NUMBERS.match(duckdb_type):
        return ColumnKind.NUMBER
    return ColumnKind.DATE if _DATES.match(duckdb_type) else ColumnKind.OTHER


def _column_facts(con: duckdb.DuckDBPyConnection) -> list[ColumnFacts]:
    """Return the columns that filters can name: the label, the user's own, then the others."""
    types = column_types(con, "items")
    computed = {c.name for c in computed_columns.computed_columns(con)}
    facts = [
        ColumnFacts(name, column_kind(kind), _origin(name, computed)) for name, kind in types.items() if name != "path"
    ]
    heads = predicting_heads(con)
    facts += [_prediction_facts(name, is_number=name in heads.numeric) for name in sorted(heads.names)]
    places = list(ColumnOrigin)
    return sorted(facts, key=lambda f: (f.origin is not ColumnOrigin.LABEL, places.index(f.origin)))


def _prediction_facts(head: str, *, is_number: bool) -> ColumnFacts:
    """Return the column of a head's predictions."""
    return ColumnFacts(written_name(head), ColumnKind.NUMBER if is_number else ColumnKind.TEXT, ColumnOrigin.PREDICTION)


def _origin(column: str, computed: set[str]) -> ColumnOrigin:
    """Return where the values of a column of the items come from."""
    if column == "label":
        return ColumnOrigin.LABEL
    if column in ITEM_COLUMNS:
        return ColumnOrigin.STORE
    return ColumnOrigin.COMPUTED if column in computed else ColumnOrigin.OWN


def _complete_name(text: str, columns: Sequence[str]) -> list[Completion]:
    """Return the columns and functions that begin as the last word of a text does."""
    begun = _BEGUN_NAME.search(text)
    start = len(text) if begun is None else begun.start()
    prefix = text[start:].lower()
    names = [Completion(name, CompletionKind.COLUMN, start) for name in columns if name.lower().startswith(prefix)]
    functions = [
        Completion(f"{f}(", CompletionKind.FUNCTION, start) for f in FUNCTION_NAMES if prefix and f.startswith(prefix)
    ]
    return (names + functions)[:MAX_COMPLETIONS]


def _column_before(text: str, columns: Sequence[str]) -> str | None:
    """Return the last column that a text names."""
    named = re.findall(r'"([^"]+)"|([\w.]+)', re.sub(r"'(?:[^']|'')*'", " ", text))
    found = [find_item_column((quoted or word).removeprefix("items."), columns) for quoted, word in named]
    return next((column for column in reversed(found) if column is not None), None)

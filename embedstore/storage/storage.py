"""One store's folder: its spaces, vectors and items."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from embedstore.errors import QueryError, StoreBusy, StoreDamaged, StoreIOError, StoreUnreadable, UnsafeStore
from embedstore.space import Space
from embedstore.storage import recover
from embedstore.storage.catalog import Catalog
from embedstore.storage.column_names import ITEM_COLUMNS
from embedstore.storage.layout import Layout, create_folder, find_store
from embedstore.storage.lock import RECOVERING, is_locked, writer_lock
from embedstore.storage.queries import item_rows, shards
from embedstore.storage.spaces import SpaceRecord, SpaceTable
from embedstore.storage.sql import column_types, count_values, first_row
from embedstore.storage.vectors import VectorReader
from embedstore.storage.writer import Writer

_log = logging.getLogger(__name__)

_RECOVERY_WAIT = 10.0  # seconds that a reader waits for a writer before it reports damage


class Storage:
    """One store's folder.

    Args:
        layout: its paths.

    Attributes:
        notices: what recovery did, one sentence each.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.catalog = Catalog(layout.catalog, self._undo_interrupted_checkpoint)
        self.notices: list[str] = []
        self._space_table = SpaceTable(layout.root, self.catalog)

    @classmethod
    def create(cls, path: str | Path) -> Storage:
        """Create an empty store.

        Raises:
            StoreExists: if something is at ``path`` already.
            StoreIOError: if the disk is full or fails.
        """
        return cls(create_folder(Path(path), lambda layout: Catalog(layout.catalog).create()))

    @classmethod
    def open(cls, path: str | Path) -> Storage:
        """Open an existing store, and recover it first if a crash left it incomplete.

        Raises:
            StoreNotFound: if nothing is at ``path``.
            NotAStore: if the folder is not a store.
            StoreTooNew: if a later version of embedstore wrote the store.
            StoreDamaged: if the store needs ``embedstore repair STORE``.
            StoreUnreadable: if a file cannot be read now.
            UnsafeStore: if it holds what embedstore never writes, such as links, views or macros.
        """
        self = cls(find_store(Path(path)))
        try:
            unregistered = recover.has_unregistered_shards(self.layout, self.catalog)
        except StoreDamaged as damage:
            try:
                self._recover(wait=_RECOVERY_WAIT)
            except StoreUnreadable:
                raise
            except (StoreBusy, StoreIOError) as e:
                raise damage from e
        else:
            if unregistered:
                self._recover_if_idle()
        return self

    def add_notices(self, notices: Sequence[str]) -> None:
        """Keep sentences for the user, and log them as warnings (on stderr, unless the program configures logging)."""
        self.notices += notices
        for notice in notices:
            _log.warning("%s", notice)

    def spaces(self) -> list[SpaceRecord]:
        """Return every space, oldest first."""
        return self._space_table.records()

    def spaces_in(self, con: duckdb.DuckDBPyConnection) -> list[SpaceRecord]:
        """Return every space of the generation that ``con`` has open, oldest first."""
        return self._space_table.records_in(con)

    def space(self, name: str | None = None) -> SpaceRecord:
        """Return the space of that name or key, or the default space.

        Raises:
            SpaceNotFound: if there is none.
        """
        return self._space_table.find(name)

    def vector_reader(self, space: Space) -> VectorReader:
        """Return the vectors that a space has now, mapped."""
        with self.catalog.read() as con:
            return self.vector_reader_in(con, space).map_shards()

    def vector_reader_in(self, con: duckdb.DuckDBPyConnection, space: Space) -> VectorReader:
        """Return the vectors of a space in the generation that ``con`` has open."""
        files = [(n, rows, self.layout.shard_file(space.key, n)) for n, rows in shards.shard_rows(con, space.key)]
        return VectorReader(files, space.dim)

    def columns(self) -> dict[str, str]:
        """Return the DuckDB type of each column of the items, by name."""
        with self.catalog.read() as con:
            return column_types(con, "items")

    def filled_columns(self) -> dict[str, str]:
        """Return the DuckDB type of each of the user's own columns that holds a value."""
        with self.catalog.read() as con:
            own = {n: kind for n, kind in column_types(con, "items").items() if n.lower() not in ITEM_COLUMNS}
            if not own:
                return {}
            filled = first_row(
                con.execute(f"SELECT {', '.join(count_values(n, kind) for n, kind in own.items())} FROM items")
            )
        return {n: kind for (n, kind), count in zip(own.items(), filled, strict=True) if count}

    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Check that the items can take columns of a user's table, given with their DuckDB types.

        Raises:
            BadManifest: if a column has the name of a computed one, or exists with a type that the new values do not
                fit.
        """
        with self.catalog.read() as con:
            item_rows.check_columns(con, columns)

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a read-only query, and return column names and rows.

        Raises:
            QueryError: if DuckDB rejects the query.
        """
        with self.catalog.read() as con:
            try:
                result = con.execute(query, list(parameters))
                return [d[0] for d in result.description or []], result.fetchall()
            except duckdb.Error as e:
                raise QueryError(" ".join(str(e).split("\n\nLINE", 1)[0].split())) from e

    @contextmanager
    def writer(self, operation: str, *, wait: float = 0.0) -> Iterator[Writer]:
        """Lock the store for writing: recover first, and write the log into the catalog at the end.

        Args:
            operation: a few words for other writers that have to wait.
            wait: seconds to wait for another writer.

        Raises:
            StoreBusy: if another process is writing.
            StoreDamaged: if the store needs ``embedstore repair STORE``.
            StoreIOError: if the disk is full or fails.
        """
        with self._recovered_writer(operation, wait=wait) as writer:
            yield writer
            writer.checkpoint()

    @contextmanager
    def _recovered_writer(self, operation: str, *, wait: float) -> Iterator[Writer]:
        """Lock the store for writing, and recover."""
        with writer_lock(self.layout.lock, operation, wait=wait) as lock:
            writer = Writer(self.layout, self.catalog, lock, self.add_notices)
            self.add_notices(recover.recover(writer))
            yield writer

    def _recover(self, *, wait: float) -> None:
        """Recover for a reader that found damage."""
        with self._recovered_writer(RECOVERING, wait=wait):
            pass

    def _undo_interrupted_checkpoint(self) -> None:
        """Undo a checkpoint that no writer will finish.

        Raises:
            StoreIOError: if the folder is read-only.
        """
        try:
            self._recover(wait=0.0)
        except StoreBusy:
            return  # a writer is active, and its checkpoint will end
        except StoreIOError as e:
            if not is_locked(self.layout.lock):
                raise StoreIOError(
                    f"a checkpoint of {self.layout.root} was interrupted, and undoing it needs to write there: open "
                    f"the store once, or a copy of it, where it can be written to ({str(e).split(';')[0]})"
                ) from e

    def _recover_if_idle(self) -> None:
        """Recover from a crashed writer, unless a writer is active or the folder may not be written to."""
        with suppress(StoreBusy, StoreIOError, UnsafeStore):
            self._recover(wait=0.0)

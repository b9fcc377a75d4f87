"""The store as its own files: spaces, vectors, items, and the only way to write them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from embedstore.errors import (
    BadManifest,
    DimensionMismatch,
    QueryError,
    SpaceNotFound,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreIOError,
    did_you_mean,
)
from embedstore.space import Recipe, Space
from embedstore.storage import commit, disk_errors, durable_files, layout, lock, recover, shard
from embedstore.storage.catalog import Catalog, CatalogStamp
from embedstore.storage.commit import CommitBatch
from embedstore.storage.queries import heads as head_queries
from embedstore.storage.queries.heads import PredictionStage
from embedstore.storage.spaces import SpaceRecord, space_record
from embedstore.storage.sql import first_row, quote_identifier, utc_now
from embedstore.storage.vectors import VectorReader

_log = logging.getLogger(__name__)

ITEM_COLUMNS = (
    "item", "uri", "content", "label", "split", "group_id", "size", "mtime_ns", "present", "added", "path"
)  # fmt: skip


class Storage:
    """One store's folder.

    Args:
        at: its layout.
        notices: what recovery did, one sentence each.
    """

    def __init__(self, layout: layout.Layout) -> None:
        self.layout = layout
        self.catalog = Catalog(layout.catalog)
        self.catalog.settle = self._settle
        self.notices: list[str] = []
        self._spaces: tuple[CatalogStamp, list[SpaceRecord]] | None = None

    @classmethod
    def create(cls, path: str | Path) -> Storage:
        """A new, empty store.

        Raises:
            StoreExists: something is there already.
        """
        return cls(layout.create_folder(Path(path), lambda at: Catalog(at.catalog).create()))

    @classmethod
    def open(cls, path: str | Path) -> Storage:
        """An existing store, mended first where a crash left it half-way.

        Raises:
            StoreNotFound, NotAStore, StoreTooNew, StoreDamaged: as their names say.
        """
        self = cls(layout.find_store(Path(path)))
        try:
            behind = recover.has_unregistered_shards(self.layout, self.catalog)
        except StoreDamaged as damage:
            try:
                self._recover()
            except (StoreBusy, StoreIOError) as e:
                raise damage from e
        else:
            if behind:
                self._settle()
        return self

    def add_notices(self, notices: Sequence[str]) -> None:
        """Keep what a person should know, and log it as warnings (on stderr, unless the program does otherwise)."""
        self.notices += notices
        for notice in notices:
            _log.warning("%s", notice)

    # ---- spaces

    def spaces(self) -> list[SpaceRecord]:
        """Every space, oldest first; read once while the catalog stays as it is."""
        if self._spaces is None or self._spaces[0] != self.catalog.stamp:
            with self.catalog.read() as con:
                stamp = self.catalog.stamp
                rows = con.execute(
                    "SELECT name, facts, dtype, current, created, recipe FROM spaces ORDER BY created, name"
                ).fetchall()
            self._spaces = stamp, [space_record(row) for row in rows]
        return list(self._spaces[1])

    def space(self, name: str | None = None) -> SpaceRecord:
        """The space of that name or key, or the current one.

        Raises:
            SpaceNotFound: there is none.
        """
        rows = self.spaces()
        for row in rows:
            if (name is None and row.is_default) or (name is not None and name in (row.name, row.key)):
                return row
        if name is None:
            raise SpaceNotFound(
                f"{self.layout.root} has no space yet; name a backbone: `embedstore embed STORE SOURCE --backbone NAME`"
            )
        known = [r.name for r in rows]
        raise SpaceNotFound(
            f"{self.layout.root} has no space {name!r}{did_you_mean(name, known)}; it has {', '.join(known) or 'none'}"
        )

    def vector_reader(self, space: Space) -> VectorReader:
        """The vectors of a space as they stand now."""
        with self.catalog.read() as con:
            return self.vector_reader_in(con, space).map_shards()

    def vector_reader_in(self, con: duckdb.DuckDBPyConnection, space: Space) -> VectorReader:
        """The vectors of a space in the generation that a reader has open."""
        rows = con.execute('SELECT shard, "rows" FROM shards WHERE space = ? ORDER BY shard', [space.key]).fetchall()
        return VectorReader([(n, count, self.layout.shard_file(space.key, n)) for n, count in rows], space.dim)

    # ---- questions

    def columns(self) -> dict[str, str]:
        """The items' columns and their DuckDB types."""
        with self.catalog.read() as con:
            return {r[0]: r[1] for r in con.execute("DESCRIBE items").fetchall()}

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a read-only query: column names and rows.

        Raises:
            QueryError: DuckDB refuses it.
        """
        with self.catalog.read() as con:
            try:
                result = con.execute(query, list(parameters))
                return [d[0] for d in result.description or []], result.fetchall()
            except duckdb.Error as e:
                raise QueryError(" ".join(str(e).split("\n\nLINE", 1)[0].split())) from e

    # ---- writing

    @contextmanager
    def writer(self, operation: str, *, wait: float = 0.0) -> Iterator[Writer]:
        """The only writer's place; recovery runs first, and the log is folded in at the end.

        Raises:
            StoreBusy: another process is writing.
        """
        with lock.writer_lock(self.layout.lock, operation, wait=wait) as held:
            self.add_notices(recover.recover(self.layout, self.catalog))
            yield Writer(self, held)
            recover.guarded_checkpoint(self.layout, self.catalog)

    def _recover(self, wait: float = 10.0) -> None:
        """Mend now, as a reader that met damage."""
        with lock.writer_lock(self.layout.lock, "recovering", wait=wait):
            self.add_notices(recover.recover(self.layout, self.catalog))

    def _settle(self) -> None:
        """Mend what a killed writer left; a living one is at it itself, and a folder one may only read stays as is."""
        with suppress(StoreBusy, StoreIOError):
            self._recover(wait=0.0)


class Writer:
    """What may be done while the writer's lock is held.

    Args:
        storage: the store.
        held: the lock.

    Attributes:
        after_crash: the writer before this one was killed.
    """

    def __init__(self, storage: Storage, lock: lock.WriterLock) -> None:
        self._at = storage.layout
        self._catalog = storage.catalog
        self._held = lock
        self.after_crash = lock.after_crash

    def add_space(self, space: Space, *, name: str, dtype: str, recipe: Recipe | None) -> None:
        """Register a space; the first one becomes current. Of a known one, only how to load it again is replaced."""
        self._note(space, name=name, dtype=dtype, recipe=recipe)
        with self.transaction() as con:
            if first_row(con.execute("SELECT count(*) FROM spaces WHERE space = ?", [space.key]))[0]:
                con.execute("UPDATE spaces SET recipe = ? WHERE space = ?", [recipe and recipe.to_json(), space.key])
                return
            taken = {r[0] for r in con.execute("SELECT name FROM spaces").fetchall()}
            free = next(n for n in _names(name) if n not in taken)
            con.execute(
                "INSERT INTO spaces VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [space.key, free, not taken, space.dim, dtype, recipe and recipe.to_json(), space.to_json(), utc_now()],
            )

    def set_default(self, key: str) -> None:
        """Make a space the current one."""
        with self.transaction() as con:
            con.execute("UPDATE spaces SET current = (space = ?)", [key])

    def add_columns(self, columns: dict[str, str]) -> None:
        """Give the items the user's own columns.

        Raises:
            BadManifest: a column exists with a type that the new values do not fit.
        """
        with self.transaction() as con:
            have = {r[0].lower(): r[1] for r in con.execute("DESCRIBE items").fetchall()}
            for name, kind in columns.items():
                there = have.get(name.lower())
                if there is None:
                    con.execute(f"ALTER TABLE items ADD COLUMN {quote_identifier(name)} {kind}")
                elif there != kind and not _widens(kind, there):
                    raise BadManifest(
                        f"column {name!r} is {kind} here and {there} in the store; rename it, or convert it to {there}"
                    )

    def set_attributes(self, attributes: Path) -> None:
        """Bring the user's own columns of existing items up to date with a manifest."""
        with self.transaction() as con:
            commit.set_attributes(con, attributes)

    def commit(
        self, batch: CommitBatch, *, space: SpaceRecord, decoder: str = "", attributes: Path | None = None
    ) -> None:
        """Make a batch durable: vectors to the disk, then one transaction, then return.

        Raises:
            DimensionMismatch: vectors of another length than the space's.
            StoreIOError: the disk is full or fails; what was committed before is kept.
        """
        head = self._write_shard(batch, space) if batch.digests else None
        with self.transaction() as con:
            if head:
                commit.insert_vectors(con, head, batch.digests)
                con.execute("UPDATE counters SET next_shard = ?", [head.number + 1])
            commit.insert_contents(con, batch.image_info)
            commit.upsert_items(con, batch.items, attributes)
            commit.replace_failures(con, batch, decoder=decoder, space=space.key)
        recover.guarded_checkpoint(self._at, self._catalog, min_log_bytes=recover.CHECKPOINT_BYTES)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """One statement as one transaction."""
        with self.transaction() as con:
            con.execute(statement, list(parameters))

    def put_head(self, name: str, *, space: str, label: str, kind: str, metadata: dict[str, Any]) -> None:
        """Record a head in place of one of that name; the old one's predictions are deleted."""
        with self.transaction() as con:
            head_queries.insert_head(con, name, space=space, label=label, kind=kind, metadata=metadata)

    def drop_head(self, name: str) -> None:
        """Delete a head and its predictions from the catalog."""
        with self.transaction() as con:
            head_queries.delete_head(con, name)

    def put_predictions(
        self, head: str, space: str, stage: PredictionStage, settings: dict[str, Any], started: datetime
    ) -> dict[str, Any]:
        """Replace a head's predictions by staged ones and record the run, in one transaction.

        Args:
            head: the name of the head.
            space: the key of its space.
            stage: the predictions.
            settings: the settings of the run.
            started: when the run began.

        Returns:
            The result of the run: ``head``, ``items``, ``labels`` (rows per label), ``contents`` and ``seconds``.
        """
        with self.transaction() as con:
            items, labels = head_queries.replace_predictions(con, head, stage)
            seconds = round((utc_now() - started).total_seconds(), 3)
            result = {"head": head, "items": items, "labels": labels, "contents": stage.stream.rows, "seconds": seconds}
            _insert_run(con, "predict", space, settings, result, started)
        return result

    def record_run(
        self, verb: str, space: str | None, settings: dict[str, Any], result: dict[str, Any], started: datetime
    ) -> None:
        """Record what was done, with which settings and with what result."""
        with self.transaction() as con:
            _insert_run(con, verb, space, settings, result, started)

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction on a catalog whose last checkpoint is settled.

        Raises:
            StoreError: this process was forked from the one that holds the lock.
        """
        if os.getpid() != self._held.pid:
            raise StoreError(
                f"process {self._held.pid} holds {self._at.root} for writing, and this is a fork of it; "
                "open the store in this process"
            )
        if self._at.guard.exists():  # its removal failed, or is not on the disk yet
            recover.restore_interrupted_checkpoint(self._at, self._catalog)
        with self._catalog.write() as con:
            yield con

    def _note(self, space: Space, *, name: str, dtype: str, recipe: Recipe | None) -> None:
        """Make a space's folder and say in it what the space means."""
        folder = self._at.shards_folder(space.key)
        note = {"name": name, "dtype": dtype, "facts": space.to_json(), "recipe": recipe and recipe.to_json()}
        with disk_errors.disk_errors(f"write {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            if not self._at.space_file(space.key).exists():
                durable_files.write_synced(self._at.space_file(space.key), json.dumps(note, indent=1).encode())
            durable_files.sync_folder(folder)
            durable_files.sync_folder(folder.parent)
            durable_files.sync_folder(folder.parent.parent)

    def _write_shard(self, batch: CommitBatch, space: SpaceRecord) -> shard.ShardHeader:
        """The new vectors as one file."""
        vectors = np.concatenate([np.atleast_2d(v) for v in batch.vectors])
        if vectors.shape[1] != space.space.dim:
            raise DimensionMismatch(
                f"space {space.name} holds vectors of {space.space.dim}, these have {vectors.shape[1]}; "
                "they belong in a space of their own"
            )
        with self._catalog.read() as con:
            number = int(first_row(con.execute("SELECT next_shard FROM counters"))[0])
        path = self._at.shard_file(space.key, number)
        stored = vectors.astype(shard.DTYPES[space.dtype])
        with disk_errors.disk_errors(f"write {path}"):
            return shard.write_shard(path, space=space.key, number=number, vectors=stored, contents=batch.digests)


def _insert_run(
    con: duckdb.DuckDBPyConnection,
    verb: str,
    space: str | None,
    settings: dict[str, Any],
    result: dict[str, Any],
    started: datetime,
) -> None:
    """Insert a run under the next number."""
    seconds = (utc_now() - started).total_seconds()
    run = first_row(con.execute("SELECT next_run FROM counters"))[0]
    con.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)",
        [run, verb, space, json.dumps(settings), json.dumps(result), started, seconds],
    )
    con.execute("UPDATE counters SET next_run = ?", [run + 1])


def _names(name: str) -> Iterator[str]:
    """``name``, ``name-2``, ``name-3`` …"""
    yield name
    n = 2
    while True:
        yield f"{name}-{n}"
        n += 1


_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE")


def _widens(kind: str, there: str) -> bool:
    """Values of ``kind`` fit a column of type ``there``."""
    if there == "VARCHAR":
        return True
    return kind in _INTEGERS and there in _INTEGERS and _INTEGERS.index(kind) <= _INTEGERS.index(there)

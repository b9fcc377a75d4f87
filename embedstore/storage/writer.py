"""The only way to change a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import DimensionMismatch, StoreError, StoreIOError, StoreUnreadable
from embedstore.space import Recipe, Space
from embedstore.storage import checkpoint, disk_errors, durable_files, reading, shard, space_files
from embedstore.storage.catalog import Catalog
from embedstore.storage.commit import CommitBatch, RunRecord
from embedstore.storage.item_columns import NEW_ITEM
from embedstore.storage.layout import Layout
from embedstore.storage.lock import WriterLock
from embedstore.storage.queries import computed_columns, counters, heads, item_rows, runs, shards, space_rows
from embedstore.storage.queries.computed_columns import ComputedValues
from embedstore.storage.queries.heads import PredictionStage
from embedstore.storage.shard import ShardHeader
from embedstore.storage.space_files import SpaceFile
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now
from embedstore.types import ContentInfo


class Writer:
    """The operations that are allowed while the writer's lock is held.

    Args:
        layout: the paths of the store.
        catalog: its catalog.
        lock: the lock that this process holds.
        notify: called with sentences for the user.
    """

    def __init__(
        self,
        layout: Layout,
        catalog: Catalog,
        lock: WriterLock,
        notify: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        self.layout = layout
        self.catalog = catalog
        self.notify = notify
        self._lock = lock

    @property
    def after_crash(self) -> bool:
        """Whether the previous writer was killed."""
        return self._lock.after_crash

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a transaction: commit it at the end, roll it back on any exception.

        Raises:
            StoreError: if this process was forked from the one that holds the lock.
            StoreIOError: if the disk is full or fails.
        """
        if os.getpid() != self._lock.pid:
            raise StoreError(
                f"process {self._lock.pid} holds {self.layout.root} for writing, and this is a fork of it; "
                "open the store in this process"
            )
        if reading.exists(self.layout.guard):  # its removal failed, or is not on the disk yet
            checkpoint.restore_interrupted_checkpoint(self.layout, self.catalog)
        with self.catalog.write() as con:
            yield con

    def checkpoint(self, *, min_log_bytes: int = 0) -> None:
        """Write the log into the catalog if it is longer than this.

        Raises:
            StoreIOError: if the disk fails during the checkpoint.
        """
        checkpoint.guarded_checkpoint(self.layout, self.catalog, min_log_bytes=min_log_bytes)

    def commit(
        self,
        batch: CommitBatch,
        *,
        space: SpaceRecord,
        decoder: str = "",
        attributes: Path | None = None,
        run: RunRecord | None = None,
    ) -> None:
        """Make a batch durable: write its vectors to the disk, then its rows in one transaction.

        Args:
            batch: the rows.
            space: the space of the vectors.
            decoder: the version of the decoder, for the failures.
            attributes: Parquet of ``uri`` and the user's own columns, or None.
            run: recorded in the same transaction.

        Raises:
            DimensionMismatch: if the vectors have another length than those of the space.
            StoreIOError: if the disk is full or fails; earlier commits are kept.
        """
        header, items = None, batch.item_columns()
        if batch.digests:
            vectors = np.atleast_2d(batch.vectors[0] if len(batch.vectors) == 1 else np.vstack(batch.vectors))
            if vectors.shape[1] != space.space.dim:
                raise DimensionMismatch(
                    f"space {space.name} holds vectors of {space.space.dim}, these have {vectors.shape[1]}; "
                    "they belong in a space of their own"
                )
            header = self._write_shard(space.key, vectors.astype(shard.DTYPES[space.dtype], copy=False), batch.digests)
        with self.transaction() as con:
            if header:
                shards.insert_shard(con, header, batch.digests)
            item_rows.insert_contents(con, batch.content_info)
            is_new = items.item == NEW_ITEM
            item_rows.insert_items(con, items.take(is_new), attributes)
            item_rows.update_items(con, items.take(~is_new & ~items.keeps_columns), attributes)
            item_rows.update_items(con, items.take(~is_new & items.keeps_columns), None)
            item_rows.delete_failures(con, items.files.uri, [r.failure.uri for r in batch.failures])
            item_rows.insert_failures(con, batch.failures, decoder=decoder, space=space.key)
            notices = computed_columns.clear_orphaned_marks(con) if batch.can_orphan_marks(items) else []
            if run is not None:
                runs.insert_run(con, run.kind, space.key, run.settings, run.result, run.started)
        self.notify(notices)
        self.checkpoint(min_log_bytes=checkpoint.longest_log(self.layout))

    def add_vectors(
        self,
        space: str,
        vectors: NDArray[np.floating[Any]],
        contents: list[str],
        content_info: Mapping[str, tuple[int, ContentInfo | None]],
    ) -> None:
        """Write vectors of contents that no item needs to have yet.

        Args:
            space: the key of the space.
            vectors: ``(rows, dim)`` in the type of the space.
            contents: the content of each row.
            content_info: size and facts of the contents that the catalog may not have yet.

        Raises:
            StoreIOError: if the disk is full or fails; the catalog is unchanged.
        """
        header = self._write_shard(space, vectors, contents)
        with self.transaction() as con:
            item_rows.insert_contents(con, content_info)
            shards.insert_shard(con, header, contents)

    def replace_shards(
        self, space: str, old: Sequence[int], vectors: NDArray[np.floating[Any]], contents: list[str]
    ) -> ShardHeader | None:
        """Write vectors as one new file, and let the catalog refer to it instead of some older files.

        The older files stay on the disk.

        Args:
            space: the key of the space.
            old: the numbers of the files to replace.
            vectors: ``(rows, dim)`` in the type of the space; without rows no file is written.
            contents: the content of each row.

        Returns:
            The header of the new file, if there is one.

        Raises:
            StoreIOError: if the disk is full or fails; the catalog is unchanged.
        """
        header = self._write_shard(space, vectors, contents) if contents else None
        with self.transaction() as con:
            shards.delete_shards(con, space, old)
            if header:
                shards.insert_shard(con, header, contents)
        return header

    def add_space(self, space: Space, *, name: str, dtype: str, recipe: Recipe | None) -> None:
        """Register a space; the first one becomes the default. Of a known space only the recipe is replaced.

        Args:
            space: what the vectors mean.
            name: the name to use, with a number after it if another space has it.
            dtype: ``float16`` or ``float32``, of the vectors on disk.
            recipe: how to load the backbone again; None for precomputed vectors.

        Raises:
            StoreIOError: if the disk is full or fails.
        """
        self._write_space_file(space, name=name, dtype=dtype, recipe=recipe)
        with self.transaction() as con:
            space_rows.put_space(con, space, name=name, dtype=dtype, recipe=recipe)
        self.update_space_files()

    def update_space_files(self) -> None:
        """Write the descriptions of the spaces after a change that the catalog has already; failing is no error.

        A description that could not be written has an earlier name or recipe, until the next change or `repair`.
        """
        with suppress(StoreUnreadable, StoreIOError):
            self.write_space_files()

    def write_space_files(self) -> list[str]:
        """Write the descriptions of the spaces that are wrong or out of date; return one sentence per wrong one.

        Raises:
            StoreUnreadable: if one cannot be read now.
            StoreIOError: if the disk is full or fails.
        """
        with disk_errors.disk_errors(f"write to {self.layout.root}"), self.catalog.read() as con:
            return space_files.write_space_files(con, self.layout)

    def set_default(self, key: str) -> None:
        """Make a space the one that is used when none is named."""
        with self.transaction() as con:
            space_rows.set_default_space(con, key)

    def add_columns(self, columns: Mapping[str, str]) -> None:
        """Add the user's own columns, given with their DuckDB types, to the items.

        Raises:
            BadManifest: if a column exists with a type that the new values do not fit.
        """
        with self.transaction() as con:
            item_rows.add_columns(con, columns)

    def set_attributes(self, attributes: Path) -> int:
        """Update the user's own columns of existing items from Parquet of ``uri`` and the columns.

        Returns:
            How many stored values stay because their cells are empty.
        """
        with self.transaction() as con:
            return item_rows.update_attributes(con, attributes)

    def put_head(self, name: str, *, space: str, label: str, kind: str, metadata: dict[str, Any]) -> None:
        """Record a head in place of one of that name; the old one's predictions are deleted."""
        with self.transaction() as con:
            heads.insert_head(con, name, space=space, label=label, kind=kind, metadata=metadata)

    def drop_head(self, name: str) -> None:
        """Delete a head and its predictions from the catalog."""
        with self.transaction() as con:
            heads.delete_head(con, name)

    def put_predictions(
        self, head: str, space: str, stage: PredictionStage, settings: Mapping[str, Any], started: datetime
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
            items, labels = heads.replace_predictions(con, head, stage)
            seconds = round((utc_now() - started).total_seconds(), 3)
            result = {"head": head, "items": items, "labels": labels, "contents": stage.stream.rows, "seconds": seconds}
            runs.insert_run(con, "predict", space, settings, result, started)
        return result

    def put_computed_columns(
        self, kind: str, space: str, values: ComputedValues, settings: Mapping[str, Any], started: datetime
    ) -> dict[str, int]:
        """Write computed columns of the items and record the run, in one transaction.

        Args:
            kind: the operation, such as ``cluster``.
            space: the key of the space it used.
            values: the items and the columns.
            settings: the settings of the run.
            started: when the run began.

        Returns:
            The result of the run: how many ``items`` have a value.

        Raises:
            QueryError: if a column is the user's own or was edited, or a name cannot be used; nothing is changed.
        """
        result = {"items": len(values.items)}
        with self.transaction() as con:
            run = runs.insert_run(con, kind, space, settings, result, started)
            computed_columns.replace_values(con, values, run)
        return result

    def record_run(
        self, kind: str, space: str | None, settings: Mapping[str, Any], result: Mapping[str, Any], started: datetime
    ) -> None:
        """Record what was done in the table ``runs``.

        Args:
            kind: the operation, such as ``embed``.
            space: the key of the space it used, None if it used none.
            settings: its settings, as JSON values.
            result: its result, as JSON values.
            started: when it began, UTC.
        """
        with self.transaction() as con:
            runs.insert_run(con, kind, space, settings, result, started)

    def _write_shard(self, space: str, vectors: NDArray[np.floating[Any]], contents: list[str]) -> ShardHeader:
        """Write vectors as the next file of a space."""
        with self.catalog.read() as con:
            number = counters.next_shard(con)
        path = self.layout.shard_file(space, number)
        with disk_errors.disk_errors(f"write {path}"):
            if not reading.exists(path.parent):  # a bucket that is mounted keeps no empty folder
                path.parent.mkdir()
                durable_files.sync_folder(path.parent.parent)
            return shard.write_shard(path, space=space, number=number, vectors=vectors, contents=contents)

    def _write_space_file(self, space: Space, *, name: str, dtype: str, recipe: Recipe | None) -> None:
        """Create the folder of a space with the file from which a lost catalog is rebuilt."""
        folder = self.layout.shards_folder(space.key)
        described = SpaceFile(name, dtype, space.to_json(), recipe.to_json() if recipe else None)
        with disk_errors.disk_errors(f"write {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            if not self.layout.space_file(space.key).exists():
                described.write(self.layout.space_file(space.key))
            for parent in (folder, folder.parent, folder.parent.parent):
                durable_files.sync_folder(parent)

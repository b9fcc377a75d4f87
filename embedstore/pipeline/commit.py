"""Stage "commit": encoded batches into commits of the store, in order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.media.decoders import decoder_version
from embedstore.pipeline.decode import PreparedFile
from embedstore.pipeline.forward import EncodedBatch
from embedstore.pipeline.signals import StopSignal
from embedstore.pipeline.stage_times import StageTimer
from embedstore.storage.carry_vectors import carry_imported_vectors
from embedstore.storage.commit import CommitBatch, FailureRow, storable_rows
from embedstore.storage.item_columns import ItemRow
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.writer import Writer
from embedstore.types import Failure, FailureReason


@dataclass
class CommitTotals:
    """What was added to commits so far.

    Attributes:
        files: files that were read.
        embedded: files whose content got a new vector.
        reused: files whose content had a vector already.
        renamed: files that are known items under a new name.
        failures: by reason, also those of the scan.
        commits: how many commits were made.
    """

    files: int = 0
    embedded: int = 0
    reused: int = 0
    renamed: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    commits: int = 0


def store_commit(writer: Writer, space: SpaceRecord, attributes: Path | None) -> Callable[[CommitBatch], None]:
    """Return a function that commits a batch to the store.

    Args:
        writer: the store's writer.
        space: the space of the vectors.
        attributes: a Parquet file of ``uri`` and the user's own columns, or None.
    """

    def commit(batch: CommitBatch) -> None:
        carry_imported_vectors(writer, batch)
        writer.commit(batch, space=space, decoder=decoder_version(space.space.modality), attributes=attributes)

    return commit


class CommitThread:
    """Makes batches durable on a thread of its own, one after the other and in order.

    While a batch is written, the next one is collected; when that is full too, the caller waits. So a run holds two
    batches at most, and the backbone gets its next images while the disk works.

    Args:
        commit: makes one batch durable.
        timer: adds up the time of the thread.
    """

    def __init__(self, commit: Callable[[CommitBatch], None], timer: StageTimer) -> None:
        self._commit, self._timer = commit, timer
        self._pool = ThreadPoolExecutor(1, "commit")
        self._running: Future[None] | None = None

    def commit(self, batch: CommitBatch) -> None:
        """Start to make a batch durable once the one before is; raise what made that one fail."""
        self.wait()
        self._running = self._pool.submit(self._run, batch)

    def wait(self) -> None:
        """Wait until everything is durable; raise what made the last batch fail."""
        if self._running is not None:
            running, self._running = self._running, None
            running.result()

    def close(self) -> None:
        """Wait for a batch that is being written, whether it fails or not, and end the thread."""
        self._pool.shutdown()

    def _run(self, batch: CommitBatch) -> None:
        """Make a batch durable."""
        with self._timer.measure():
            self._commit(batch)


class CommitStage:
    """Collects files and commits them when there are enough of them, or the last commit was long ago.

    Args:
        commit: makes one batch durable, such as :func:`store_commit`.
        space: the space of the vectors.
        max_rows: files in one commit.
        max_seconds: between two commits.

    Attributes:
        totals: counts so far.
    """

    def __init__(
        self, commit: Callable[[CommitBatch], None], space: SpaceRecord, *, max_rows: float, max_seconds: float
    ) -> None:
        self.totals = CommitTotals()
        self._commit, self._space = commit, space
        self._max_rows, self._max_seconds = max_rows, max_seconds
        self._unstorable: set[str] = set()  # contents whose vector cannot be stored
        self._batch = CommitBatch()
        self._committed_at = time.monotonic()

    def add_failures(self, rows: list[FailureRow]) -> None:
        """Add failures of the scan, and commit if there are enough."""
        self._batch.failures += rows
        self.totals.failures.update(row.failure.reason.value for row in rows)
        if len(self._batch.failures) >= self._max_rows:
            self.flush()

    @contextmanager
    def on_thread(self, timer: StageTimer, stop: StopSignal) -> Iterator[None]:
        """Commit on a thread of its own inside the block; at its end, all that was added is durable.

        If the block raises, what is being written is finished, and what was collected after it is not written.
        Signals wait for that: whoever has the store's lock next must not meet this thread.

        Args:
            timer: adds up the time of the thread.
            stop: catches the signals.
        """
        direct, thread = self._commit, CommitThread(self._commit, timer)
        self._commit = thread.commit
        try:
            yield
            self.flush()
            thread.wait()
        finally:
            with stop.postponed():
                thread.close()
            self._commit = direct

    def add(self, batch: EncodedBatch) -> None:
        """Add one batch, and commit if it is time."""
        self._find_unstorable(batch)
        is_stored = [self._add_file(file) for file in batch.files]
        if batch.vectors is not None:
            self._add_vectors(batch.vectors, np.array(is_stored)[[file.input is not None for file in batch.files]])
        self.totals.files += len(batch.files)
        if len(self._batch.items) >= self._max_rows or time.monotonic() - self._committed_at > self._max_seconds:
            self.flush()

    def flush(self) -> None:
        """Make everything that was added durable."""
        if self._batch:
            self._commit(self._batch)
            self.totals.commits += 1
            self._batch = CommitBatch()
        self._committed_at = time.monotonic()

    def _find_unstorable(self, batch: EncodedBatch) -> None:
        """Remember the contents of a batch whose vector cannot be stored."""
        if batch.vectors is None:
            return
        storable = storable_rows(batch.vectors, self._space.dtype)
        if not storable.all():
            computed = [file.digest for file in batch.files if file.input is not None]
            self._unstorable.update(d for d, is_storable in zip(computed, storable, strict=True) if not is_storable)

    def _add_vectors(self, vectors: NDArray[np.float32], is_stored: NDArray[np.bool_]) -> None:
        """Add the rows of the files that became items."""
        if is_stored.any():
            self._batch.vectors.append(vectors if is_stored.all() else vectors[is_stored])

    def _add_file(self, file: PreparedFile) -> bool:
        """Add one file as an item or as a failure; return whether it is an item with a new vector."""
        failure = self._failure(file)
        if failure is not None:
            self._batch.failures.append(FailureRow(failure, file.planned.item))
            self.totals.failures[failure.reason.value] += 1
            return False
        self._batch.items.append(ItemRow(file.planned.ref, file.digest, file.planned.item))
        self.totals.renamed += file.is_renamed
        if file.input is None:
            self.totals.reused += 1
            return False
        self.totals.embedded += 1
        self._batch.digests.append(file.digest)
        self._batch.content_info[file.digest] = (file.planned.ref.size, file.info)
        return True

    def _failure(self, file: PreparedFile) -> Failure | None:
        """Return why the file cannot be an item, or None."""
        if file.digest not in self._unstorable:
            return file.failure
        detail = f"the backbone's vector is zero, not finite, or cannot be stored as {self._space.dtype} exactly enough"
        return Failure.from_ref(file.planned.ref, FailureReason.NOT_FINITE, detail)

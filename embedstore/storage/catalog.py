"""The DuckDB file, attached only for as long as one read or one transaction takes.

A process that holds a DuckDB file read-write locks every other process out, so no process holds it: a private
in-memory connection attaches the file, works, and detaches (under 2 ms together at a million rows). Readers and a
running ``embed`` take turns. Tables of the private connection (schema ``memory.main``) outlive the attachments:
a plan is stored there and joined with the catalog in SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import duckdb

from embedstore.errors import StoreDamaged, StoreError, StoreIOError
from embedstore.storage import commit_counter, migrations, reading
from embedstore.storage.attachment import Attachment
from embedstore.storage.catalog_errors import FAILURES, VALUE_ERRORS, concerns_file, explain
from embedstore.storage.connection import attach_new_file
from embedstore.storage.disk_errors import disk_errors
from embedstore.storage.durable_files import sync_folder
from embedstore.storage.layout import COMMIT_COUNTER
from embedstore.storage.queries import counters
from embedstore.storage.reading import cure_of
from embedstore.storage.sql import first_line

_reading: set[duckdb.DuckDBPyConnection] = set()  # the connections of this process that are reading now

LATER_TABLES = frozenset({"computed_columns"})  # which a catalog or an archive from before their migration lacks
ARCHIVED_TABLES = (
    "spaces", "contents", "items", "failures", "heads", "predictions", "runs", "counters", "computed_columns"
)  # fmt: skip
CATALOG_TABLES = (*ARCHIVED_TABLES, "vectors", "shards", "schema")  # an archive holds the first two otherwise

CatalogStamp = tuple[tuple[int, int, int], ...]


class Catalog:
    """One DuckDB file.

    Args:
        file: ``catalog.duckdb``.
        on_interrupted_checkpoint: called once by a read that finds an interrupted checkpoint next to the file.
    """

    def __init__(self, file: Path, on_interrupted_checkpoint: Callable[[], None] = lambda: None) -> None:
        self.file = file
        self._log = file.with_name(file.name + ".wal")
        self._attachment = Attachment(file, on_interrupted_checkpoint)
        self._known_version: CatalogStamp | None = None  # the generation whose migrations are known to this version

    @property
    def scratch(self) -> duckdb.DuckDBPyConnection:
        """The private connection, which holds the scratch tables."""
        return self._attachment.connection.get()

    @property
    def stamp(self) -> CatalogStamp:
        """Inode, size and time of the file and its log: every commit changes one of them."""
        return tuple(_file_stamp(p) for p in (self.file, self._log))

    @contextmanager
    def read(self, to: duckdb.DuckDBPyConnection | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open one consistent generation of the tables, which are visible by their bare names.

        Args:
            to: the connection that reads them; None is the private one.

        Raises:
            StoreBusy: if another process has not released the file within 30 s, or this process has it open elsewhere.
            StoreNotFound: if the store was moved or deleted.
            StoreTooNew: if a later version of embedstore changed the tables.
            StoreDamaged: if the file or its log is corrupt.
            StoreUnreadable: if the file or its log cannot be read now.
        """
        with self._attachment.attach(read_only=True, to=to) as con, self._reading(con):
            self._require_known_version(con)
            yield con

    @contextmanager
    def read_restricted(self, memory_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open one consistent generation of the tables for text that a user wrote as SQL.

        The text runs on a connection of its own, which cannot reach other files, the network or a setting, and is
        closed at the end.

        Args:
            memory_bytes: what DuckDB may hold.

        Raises:
            StoreBusy: if another process has not released the file within 30 s, or this process has it open elsewhere.
            StoreNotFound: if the store was moved or deleted.
            StoreTooNew: if a later version of embedstore changed the tables.
            StoreDamaged: if the file or its log is corrupt.
            StoreUnreadable: if the file or its log cannot be read now.
        """
        with self._attachment.attach_restricted(memory_bytes) as con, self._reading(con):
            self._require_known_version(con)
            yield con

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Run one transaction: commit it at the end, roll it back on any exception.

        Only :class:`embedstore.storage.writer.Writer` calls this, which holds the writer's lock.

        Raises:
            StoreBusy: if another process has not released the file within 30 s, or this process has it open elsewhere.
            StoreNotFound: if the store was moved or deleted.
            StoreDamaged: if the file or its log is corrupt.
            StoreIOError: if the disk is full or fails; the message says whether the change is committed.
        """
        new_log = not reading.exists(self._log)
        committing, count = False, None
        with ExitStack() as stack:
            try:
                with self._attachment.attach(read_only=False) as con, self._rollback_on_error(con):
                    yield con
                    count = self._count_transaction(con)
                    advance = None if count is None else stack.enter_context(self._open_counter())
                    committing = True
                    con.execute("COMMIT")
            except StoreError as e:
                if not committing:
                    raise
                raise StoreIOError(f"{e}; {self._outcome(count)}") from e
            self._acknowledge(advance, count, new_log=new_log)

    def create(self) -> None:
        """Create the file with every table, fully written, without a log.

        Raises:
            StoreIOError: if the disk is full or fails.
        """
        con = self.scratch
        try:
            attach_new_file(con, self.file)
            migrations.apply_pending(con)
            con.execute("CHECKPOINT cat")
            with disk_errors(f"create {self.file}"):
                commit_counter.reset(self.file.parent, 0)
        except FAILURES as e:
            raise explain(e, self.file, "create", writing=True) from e
        finally:
            self._attachment.detach(con)

    def migrate(self) -> None:
        """Apply the migrations that the tables lack; the caller holds the writer's lock.

        Raises:
            StoreDamaged: if the file has none of the tables.
            StoreTooNew: if the file has migrations that this version does not know.
        """
        with self.read() as con:
            version = migrations.applied_count(con)
        if version == 0:
            raise StoreDamaged(f"{self.file} is a database without the store's tables; run `embedstore repair STORE`")
        if version != len(migrations.MIGRATIONS):
            with self.write() as con:
                migrations.apply_pending(con)

    def commit_count(self) -> int:
        """Return how many transactions the catalog has counted."""
        with self.read() as con:
            return counters.read_commit_count(con)

    def checkpoint(self) -> None:
        """Write the log into the file. Only :func:`checkpoint.guarded_checkpoint` may call this.

        Raises:
            StoreError: if the disk is full or fails.
        """
        with self._attachment.attach(read_only=False) as con:
            try:
                con.execute("CHECKPOINT cat")
            except FAILURES as e:
                raise explain(e, self.file, "write the log into") from e

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep this process's threads off the file while it is copied or replaced."""
        with self._attachment.turn:
            yield

    def discard_connection(self) -> None:
        """Drop the private connection, which a fatal error made unusable; its scratch tables are lost."""
        self._attachment.connection.discard()

    @contextmanager
    def _reading(self, con: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Let Ctrl-C interrupt a connection, and report its errors about the file as errors of the store."""
        _reading.add(con)
        try:
            yield
        except duckdb.Error as e:
            if concerns_file(e, self.file):
                raise explain(e, self.file, "read") from e
            if isinstance(e, VALUE_ERRORS):
                raise StoreDamaged(
                    f"{self.file} holds a value that embedstore does not write: {first_line(e)}; "
                    "run `embedstore verify STORE`"
                ) from e
            raise
        finally:
            _reading.discard(con)

    @contextmanager
    def _rollback_on_error(self, con: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Begin a transaction, and roll it back on any exception."""
        con.execute("BEGIN")
        try:
            yield
        except BaseException as e:
            with suppress(duckdb.Error):
                con.execute("ROLLBACK")
            if isinstance(e, FAILURES) or (isinstance(e, duckdb.Error) and concerns_file(e, self.file)):
                raise explain(e, self.file, "commit to", writing=True) from e
            raise

    @contextmanager
    def _open_counter(self) -> Iterator[Callable[[int], None]]:
        """Open the file of the count before the commit: where it cannot be written to, nothing is committed."""
        folder = self.file.parent
        with ExitStack() as stack:
            with disk_errors(f"commit to {self.file}, as {COMMIT_COUNTER} cannot be written to"):
                advance = stack.enter_context(commit_counter.open_for_commit(folder))
            yield advance

    def _acknowledge(self, advance: Callable[[int], None] | None, count: int | None, *, new_log: bool) -> None:
        """Make a committed transaction safe from the loss of its log."""
        folder = self.file.parent
        try:
            if new_log:  # DuckDB forces the bytes of a new log to the disk, but not its name
                sync_folder(folder)
            if advance is not None and count is not None:
                advance(count)
        except OSError as e:
            raise StoreIOError(
                f"cannot record the commit in {folder}: {e.strerror or e}; the change itself is committed, "
                f"do not repeat it; {cure_of(e.errno)}"
            ) from e

    def _outcome(self, count: int | None) -> str:
        """Say whether a transaction whose commit failed is in the file all the same."""
        try:
            committed = count is not None and self.commit_count() >= count
        except StoreError:
            return "whether this change is committed is decided when the store is opened next"
        return "this change is committed, do not repeat it" if committed else "this change is not committed"

    def _require_known_version(self, con: duckdb.DuckDBPyConnection) -> None:
        """Raise StoreTooNew if a later version migrated the tables; looked up once per generation."""
        if self._known_version != (stamp := self.stamp):
            migrations.applied_count(con)
            self._known_version = stamp

    def _count_transaction(self, con: duckdb.DuckDBPyConnection) -> int | None:
        """Count the open transaction; None before the migration that added the count."""
        count = counters.increment_commit_count(con)
        if count is not None and not commit_counter.exists(self.file.parent):
            with disk_errors(f"commit to {self.file}"):
                commit_counter.reset(self.file.parent, count - 1)
        return count


def interrupt_queries() -> None:
    """Interrupt the reading queries of this process, from another thread; writing continues to its end."""
    for con in tuple(_reading):
        con.interrupt()


def _file_stamp(path: Path) -> tuple[int, int, int]:
    """Return inode, size and time of a file; zeros where there is none."""
    try:
        s = path.stat()
    except OSError as e:
        if reading.is_absent(e):
            return 0, 0, 0
        raise reading.unreadable(path, e) from e
    return s.st_ino, s.st_size, s.st_mtime_ns

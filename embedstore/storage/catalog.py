"""The DuckDB file, attached only for as long as one read or one transaction takes.

A process that holds a DuckDB file read-write shuts every other process out, so nobody holds it: a private
in-memory connection attaches the file, works, and detaches (under 2 ms together at a million rows). Readers and a
running ``embed`` take turns. Tables of the private connection (schema ``memory.main``) outlive the attachments:
a plan is made there and joined with the catalog in SQL.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from embedstore.errors import StoreBusy, StoreDamaged, StoreError, StoreIOError
from embedstore.storage import commit_counter, connection, migrations
from embedstore.storage.durable_files import sync_folder
from embedstore.storage.layout import COMPLETE, GUARD
from embedstore.storage.sql import first_line, quote_literal

STORAGE_VERSION = "v1.2.0"  # DuckDB's shells since 2025-02 open the file; 2.0's own default locks 1.5 out
ARCHIVED_TABLES = ("spaces", "contents", "items", "failures", "heads", "predictions", "runs", "counters")
CATALOG_TABLES = (*ARCHIVED_TABLES, "vectors", "shards", "schema")  # an archive holds the first two otherwise
_MEMORY = "1GB"  # for DuckDB's own buffers; past it, plans spill to the temporary folder
_PATIENCE = 30.0  # seconds to wait for another process's turn

_turns: dict[str, threading.RLock] = {}  # by the file's real path: one file, one turn, however it is spelled
_reading: set[duckdb.DuckDBPyConnection] = set()  # what this process asks at the moment
_inherited: list[duckdb.DuckDBPyConnection] = []  # a forked child must neither use nor close its parent's
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_turns.clear)  # a thread that is not in the child may have held one

_DISK = (
    "No space left", "Permission denied", "Read-only file system", "Input/output error", "Disk quota", "Too many",
    "fsync failed",
)  # fmt: skip
_FAILED = (duckdb.FatalException, duckdb.IOException, duckdb.InternalException, duckdb.OutOfMemoryException)

CatalogStamp = tuple[tuple[int, int, int], ...]


class Catalog:
    """One DuckDB file.

    Args:
        file: ``catalog.duckdb``.

    Attributes:
        settle: called by a read that finds an interrupted checkpoint beside the file; it mends what it may.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.settle: Callable[[], None] = lambda: None
        self._con: duckdb.DuckDBPyConnection | None = None
        self._pid = os.getpid()
        self._real = os.path.realpath(file)
        self._log = file.with_name(file.name + ".wal")
        self._mark = file.parent / GUARD / COMPLETE

    @property
    def scratch(self) -> duckdb.DuckDBPyConnection:
        """The private connection, where temporary tables live."""
        if self._con is not None and self._pid != os.getpid():
            _inherited.append(self._con)
            self._con = None
        if self._con is None:
            self._con, self._pid = _connect(), os.getpid()
        return self._con

    @property
    def _turn(self) -> threading.RLock:
        """Held while this process works on the file."""
        return _turns.setdefault(self._real, threading.RLock())

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One consistent generation of the tables, which are visible by their bare names.

        Raises:
            StoreBusy: another process has not given the file back within 30 s.
            StoreDamaged: the file or its log is corrupt.
            StoreIOError: it may not be read.
        """
        with self._attached(" (READ_ONLY)") as con:
            _reading.add(con)
            try:
                yield con
            except duckdb.Error as e:
                if self._is_ours(e):
                    raise self._explained("read", e) from e
                raise
            finally:
                _reading.discard(con)

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end, rolled back on any exception. The caller holds the writer's lock.

        Raises:
            StoreBusy, StoreDamaged: as :meth:`read`.
            StoreIOError: the disk is full or fails; the outcome is looked up when the store is opened next.
        """
        fresh = not self._log.exists()
        with self._attached("") as con:
            con.execute("BEGIN")
            try:
                yield con
                count = self._counted(con)
                con.execute("COMMIT")
            except BaseException as e:
                _quietly(con, "ROLLBACK")
                if isinstance(e, _FAILED) or (isinstance(e, duckdb.Error) and self._is_ours(e)):
                    raise self._explained("commit to", e) from e
                raise
        self._acknowledge(count, fresh=fresh)

    def _counted(self, con: duckdb.DuckDBPyConnection) -> int | None:
        """Count this transaction in the catalog; None before the migration that brought the count."""
        if not any(r[0] == "generation" for r in con.execute("DESCRIBE counters").fetchall()):
            return None
        row = con.execute("UPDATE counters SET generation = coalesce(generation, 0) + 1 RETURNING generation")
        found = row.fetchone()
        count = int(found[0]) if found else None
        if count is not None and not commit_counter.exists(self.file.parent):
            self._witness(commit_counter.reset, count - 1)
        return count

    def _acknowledge(self, count: int | None, *, fresh: bool) -> None:
        """Force the name of a new log to the disk (DuckDB does so with its bytes only), then write the count down."""
        if fresh:
            self._witness(lambda folder, _: sync_folder(folder), 0)
        if count is not None:
            self._witness(commit_counter.advance, count)

    def _witness(self, act: Callable[[Path, int], None], count: int) -> None:
        """One act beside the catalog."""
        try:
            act(self.file.parent, count)
        except OSError as e:
            raise StoreIOError(
                f"cannot commit to {self.file}: {e.strerror or e}; mend the disk and run it again; "
                "what was acknowledged is kept"
            ) from e

    def create(self) -> None:
        """Make the file with every table, fully written (no log left beside it)."""
        con = self.scratch
        try:
            con.execute(f"ATTACH {quote_literal(self.file)} AS cat (STORAGE_VERSION '{STORAGE_VERSION}')")
            migrations.apply_pending(con)
            con.execute("CHECKPOINT cat")
            self._witness(commit_counter.reset, 0)
        except _FAILED as e:
            raise self._explained("make", e) from e
        finally:
            self._detach(con)

    def commit_count(self) -> int:
        """How many transactions the catalog has seen; 0 before the migration that brought the count."""
        with self.read() as con:
            return read_commit_count(con)

    def migrate(self) -> None:
        """Bring the tables to this version; the caller holds the writer's lock.

        Raises:
            StoreDamaged: the file holds none of the tables.
        """
        with self.read() as con:
            version = migrations.applied_count(con)
        if version == 0:
            raise StoreDamaged(f"{self.file} is a database without the store's tables; run `embedstore repair`")
        if version != len(migrations.MIGRATIONS):
            with self.write() as con:
                migrations.apply_pending(con)

    def checkpoint(self) -> None:
        """Fold the log into the file. Only safe under ``recover.guarded_checkpoint``."""
        with self._attached("") as con:
            try:
                con.execute("CHECKPOINT cat")
            except _FAILED as e:
                raise self._explained("fold the log into", e) from e

    @property
    def stamp(self) -> CatalogStamp:
        """Identity, size and time of the file and its log: every commit changes one of them."""
        return tuple(_identity(p) for p in (self.file, self._log))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep this process's threads off the file, while it is copied or replaced."""
        with self._turn:
            yield

    def discard_connection(self) -> None:
        """Forget the private connection, which a fatal error made unusable; its temporary tables go with it."""
        con, self._con = self._con, None
        if con is not None:
            with suppress(duckdb.Error):
                con.close()

    @contextmanager
    def _attached(self, mode: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """The private connection with the file attached as ``cat`` and in use."""
        with self._turn:
            con = self.scratch
            self._attach(con, mode)
            try:
                con.execute("USE cat")
                yield con
            finally:
                self._detach(con)

    def _attach(self, con: duckdb.DuckDBPyConnection, mode: str) -> None:
        """Attach, waiting for other processes' turns, and for one that is undoing a checkpoint."""
        deadline, pause, asked = time.monotonic() + _PATIENCE, 0.002, False
        while True:
            problem = self._try(con, mode)
            if problem is None:
                return
            if not asked and "checkpoint" in problem:
                asked = True
                self.settle()
                continue
            if time.monotonic() > deadline:
                raise StoreBusy(f"{self.file} is open in another program: {problem}; close it there")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def _try(self, con: duckdb.DuckDBPyConnection, mode: str) -> str | None:
        """Attach once: None, or why it has to wait."""
        try:
            con.execute(f"ATTACH {quote_literal(self.file)} AS cat{mode}")
        except duckdb.Error as e:
            if "Could not set lock" in str(e):
                return first_line(e)
            raise self._explained("open", e) from e
        if mode and self._mark.exists():  # the pair of files may be half replaced by recovery
            self._detach(con)
            return "a checkpoint is under way"
        return None

    def _detach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Give the file back, whatever state it is in."""
        _quietly(con, "USE memory")
        _quietly(con, "DETACH DATABASE IF EXISTS cat")
        try:
            still = con.execute("SELECT 1 FROM duckdb_databases() WHERE database_name = 'cat'").fetchone()
        except duckdb.Error:
            still = (1,)
        if still and con is self._con:
            self.discard_connection()

    def _is_ours(self, error: duckdb.Error) -> bool:
        """The error is about the catalog's own file, and not about one that a user's query names."""
        text = str(error)
        return self.file.name in text or "Corrupt database" in text or "has been invalidated" in text

    def _explained(self, doing: str, error: duckdb.Error) -> StoreError:
        """What DuckDB's error means here."""
        said = first_line(error)
        if is_disk_error(error):
            return StoreIOError(
                f"cannot {doing} {self.file}: {said}; make room or mend the disk and run it again; "
                "what was acknowledged is kept"
            )
        if doing in ("commit to", "make") and not self._is_corrupt(said):
            return StoreIOError(f"cannot {doing} {self.file}: {said}; run it again; what was acknowledged is kept")
        return StoreDamaged(f"cannot {doing} {self.file}: {said}; run `embedstore repair`")

    @staticmethod
    def _is_corrupt(said: str) -> bool:
        """The message is about bytes that are not what was written."""
        return "orrupt" in said or "checksum" in said


def is_disk_error(error: Exception) -> bool:
    """The disk is full, fails, or may not be written to."""
    return any(word in first_line(error) for word in _DISK)


def interrupt_queries() -> None:
    """End the questions that this process asks at the moment, from another thread; writing goes on to its end."""
    for con in tuple(_reading):
        con.interrupt()


def _identity(path: Path) -> tuple[int, int, int]:
    """Inode, size and time of a file; zeros where there is none."""
    try:
        s = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return s.st_ino, s.st_size, s.st_mtime_ns


def read_commit_count(con: duckdb.DuckDBPyConnection) -> int:
    """How many transactions the open generation of the catalog has seen."""
    if not any(r[0] == "generation" for r in con.execute("DESCRIBE counters").fetchall()):
        return 0
    row = con.execute("SELECT generation FROM counters").fetchone()
    return int(row[0] or 0) if row else 0


def _connect() -> duckdb.DuckDBPyConnection:
    """An in-memory database that never checkpoints an attached file by itself."""
    folder = Path(tempfile.gettempdir(), f"embedstore-{os.getpid()}")
    con = connection.connect(memory_limit=_MEMORY, temp_directory=str(folder))
    con.execute("SET checkpoint_on_detach = 'DISABLED'")
    con.execute("SET wal_autocheckpoint = '1TB'")
    con.execute("SET auto_checkpoint_skip_wal_threshold = 1000000000000")
    return con


def _quietly(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run a clean-up statement that may find nothing left to clean (the database was invalidated)."""
    try:
        con.execute(statement)
    except duckdb.Error:
        return

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
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from embedstore.errors import StoreBusy, StoreDamaged, StoreError
from embedstore.store import migrations

STORAGE_VERSION = "v1.2.0"  # DuckDB's shells since 2025-02 open the file; 2.0's own default locks 1.5 out
_MEMORY = "1GB"  # for DuckDB's own buffers; past it, plans spill to the temporary folder
_PATIENCE = 30.0  # seconds to wait for another process's turn

_locks: dict[str, threading.RLock] = {}
_inherited: list[duckdb.DuckDBPyConnection] = []  # a forked child must neither use nor close its parent's


class Catalog:
    """One DuckDB file.

    Args:
        file: ``catalog.duckdb``.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._con: duckdb.DuckDBPyConnection | None = None
        self._pid = os.getpid()
        self._turn = _locks.setdefault(str(file), threading.RLock())

    @property
    def scratch(self) -> duckdb.DuckDBPyConnection:
        """The private connection, where temporary tables live."""
        if self._con is not None and self._pid != os.getpid():
            _inherited.append(self._con)
            self._con = None
        if self._con is None:
            self._con, self._pid = _connect(), os.getpid()
        return self._con

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One consistent generation of the tables, which are visible by their bare names.

        Raises:
            StoreBusy: another process has not given the file back within 30 s.
            StoreDamaged: the file or its log is corrupt.
        """
        with self._attached(" (READ_ONLY)") as con:
            yield con

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end, rolled back on any exception. The caller holds the writer's lock.

        Raises:
            StoreBusy, StoreDamaged: as :meth:`read`.
            StoreError: the disk is full or failed; the outcome is looked up when the store is opened next.
        """
        with self._attached("") as con:
            con.execute("BEGIN")
            try:
                yield con
                con.execute("COMMIT")
            except duckdb.FatalException as e:
                raise StoreError(f"cannot commit to {self.file}: {_line(e)}; free some space and run it again") from e
            except BaseException:
                _quietly(con, "ROLLBACK")
                raise

    def create(self) -> None:
        """Make the file with every table, fully written (no log left beside it)."""
        con = self.scratch
        con.execute(f"ATTACH {_quoted(self.file)} AS cat (STORAGE_VERSION '{STORAGE_VERSION}')")
        try:
            migrations.up(con)
            con.execute("CHECKPOINT cat")
        finally:
            con.execute("DETACH cat")

    def migrate(self) -> None:
        """Bring the tables to this version; the caller holds the writer's lock."""
        with self.read() as con:
            current = migrations.version(con) == len(migrations.ALL)
        if not current:
            with self.write() as con:
                migrations.up(con)

    def checkpoint(self) -> None:
        """Fold the log into the file. Only safe under :func:`embedstore.store.recover.guarded_checkpoint`."""
        with self._attached("") as con:
            con.execute("CHECKPOINT cat")

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep this process's threads off the file, while it is copied or replaced."""
        with self._turn:
            yield

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
                _quietly(con, "USE memory")
                _quietly(con, "DETACH cat")

    def _attach(self, con: duckdb.DuckDBPyConnection, mode: str) -> None:
        """Attach, waiting for other processes' turns."""
        deadline, pause = time.monotonic() + _PATIENCE, 0.002
        while True:
            try:
                con.execute(f"ATTACH {_quoted(self.file)} AS cat{mode}")
            except duckdb.Error as e:
                if "Could not set lock" not in str(e):
                    raise StoreDamaged(f"cannot open {self.file}: {_line(e)}") from e
                if time.monotonic() > deadline:
                    raise StoreBusy(f"{self.file} is open in another program: {_line(e)}; close it there") from e
                time.sleep(pause)
                pause = min(pause * 1.5, 0.1)
            else:
                return


def utc_now() -> datetime:
    """The time as the catalog's TIMESTAMP columns hold it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def one(result: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    """The first row of a result that always has one."""
    row = result.fetchone()
    if row is None:
        raise StoreDamaged("the catalog lacks a row that every store has; run `embedstore verify`")
    return row


def _connect() -> duckdb.DuckDBPyConnection:
    """An in-memory database that never checkpoints an attached file by itself."""
    folder = Path(tempfile.gettempdir(), f"embedstore-{os.getpid()}")
    con = duckdb.connect(config={"memory_limit": _MEMORY, "temp_directory": str(folder)})
    con.execute("SET checkpoint_on_detach = 'DISABLED'")
    con.execute("SET wal_autocheckpoint = '1TB'")
    con.execute("SET auto_checkpoint_skip_wal_threshold = 1000000000000")
    con.execute("SET enable_progress_bar = false")
    return con


def _quietly(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run a clean-up statement that may find nothing left to clean (the database was invalidated)."""
    try:
        con.execute(statement)
    except duckdb.Error:
        return


def _quoted(path: Path) -> str:
    """A path as an SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


def _line(error: Exception) -> str:
    """The first line of a DuckDB message."""
    return str(error).splitlines()[0]

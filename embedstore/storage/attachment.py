"""A DuckDB file attached to a private connection, in turns with the other threads and processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from embedstore.errors import StoreBusy, StoreDamaged, StoreError, StoreNotFound
from embedstore.storage import reading
from embedstore.storage.catalog_errors import explain, lock_problem
from embedstore.storage.connection import PrivateConnection
from embedstore.storage.layout import COMPLETE, GUARD, MARKER
from embedstore.storage.sql import first_line, quote_literal

_PATIENCE = 30.0  # seconds to wait for another process's turn

_turns: dict[str, threading.RLock] = {}  # by the file's real path: one file has one turn, however it is spelled
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_turns.clear)  # a thread that is not in the child may have held one


class Attachment:
    """The access of this process to one DuckDB file.

    Args:
        file: ``catalog.duckdb``.
        on_interrupted_checkpoint: called once by a read that finds an interrupted checkpoint next to the file.
    """

    def __init__(self, file: Path, on_interrupted_checkpoint: Callable[[], None]) -> None:
        self._file = file
        self._on_interrupted_checkpoint = on_interrupted_checkpoint
        self._real_path = os.path.realpath(file)
        self._checkpoint_mark = file.parent / GUARD / COMPLETE
        self.connection = PrivateConnection()

    @property
    def turn(self) -> threading.RLock:
        """Held while a thread of this process works on the file."""
        return _turns.setdefault(self._real_path, threading.RLock())

    @contextmanager
    def attach(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the file as the current database ``cat`` of the private connection.

        Raises:
            StoreBusy: if another process has not released the file within 30 s, or this process has it open elsewhere.
            StoreNotFound: if the store was moved or deleted.
            StoreDamaged: if the file is missing, or it or its log is corrupt.
            StoreUnreadable: if the file or its log cannot be read now.
            StoreIOError: if its file system has no locks, or an interrupted checkpoint cannot be undone here.
        """
        with self.turn:
            con = self.connection.get()
            self._attach(con, " (READ_ONLY)" if read_only else "")
            try:
                con.execute("USE cat")
                yield con
            finally:
                self.detach(con)

    def detach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Release the file, whatever state it is in."""
        _run_quietly(con, "USE memory")
        _run_quietly(con, "DETACH DATABASE IF EXISTS cat")
        try:
            attached = con.execute("SELECT 1 FROM duckdb_databases() WHERE database_name = 'cat'").fetchone()
        except duckdb.Error:
            attached = (1,)
        if attached and self.connection.is_current(con):
            self.connection.discard()

    def _attach(self, con: duckdb.DuckDBPyConnection, options: str) -> None:
        """Attach, waiting for other processes, and for one that undoes a checkpoint."""
        deadline, pause, notified = time.monotonic() + _PATIENCE, 0.002, False
        while (problem := self._try_attach(con, options)) is not None:
            if not notified and "checkpoint" in problem:
                notified = True
                self._on_interrupted_checkpoint()
                continue
            if time.monotonic() > deadline:
                raise StoreBusy(f"{self._file} is open in another program: {problem}; close it there")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def _try_attach(self, con: duckdb.DuckDBPyConnection, options: str) -> str | None:
        """Attach once, and return None or the reason to wait."""
        self._require_file()  # DuckDB would create it
        try:
            con.execute(f"ATTACH {quote_literal(self._file)} AS cat{options}")
        except duckdb.Error as e:
            if "Could not set lock" in str(e) and lock_problem(e, self._file) is None:
                return first_line(e)
            self._require_file()
            raise explain(e, self._file, "open") from e
        if options and reading.exists(self._checkpoint_mark):  # recovery may have replaced one of the two files only
            self.detach(con)
            return "a checkpoint is under way"
        return None

    def _require_file(self) -> None:
        """Raise the error for a file that is not there, if it is not."""
        if reading.exists(self._file):
            return
        folder = self._file.parent
        missing: StoreError = StoreDamaged(f"{self._file} is missing; run `embedstore repair`")
        if not reading.exists(folder / MARKER):
            missing = StoreNotFound(f"there is no store at {folder} any more: it was moved or deleted; open it again")
        raise missing


def _run_quietly(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run a statement that fails where there is nothing left to clean up."""
    try:
        con.execute(statement)
    except duckdb.Error:
        return

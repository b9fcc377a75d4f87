"""A DuckDB file attached to a private connection, in turns with the other threads and processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from embedstore.errors import StoreBusy, StoreDamaged, StoreError, StoreNotFound, StoreUnreadable
from embedstore.storage import catalog_check, forks, reading
from embedstore.storage.catalog_errors import explain, lock_problem
from embedstore.storage.connection import PrivateConnection, confine, connect, memory_limit
from embedstore.storage.kept_beginning import KeptBeginning
from embedstore.storage.layout import COMPLETE, GUARD, MARKER
from embedstore.storage.quoting import quote_literal
from embedstore.storage.sql import fetch_value, first_line
from embedstore.storage.store_files import require_writable_in_place

READ_ONLY, READ_WRITE = "READ_ONLY, TYPE duckdb", "TYPE duckdb"  # else DuckDB looks which extension a file belongs to
_PATIENCE = 30.0  # seconds to wait for another process's turn

_turns: dict[str, threading.RLock] = {}  # by the file's real path: one file has one turn, however it is spelled
_held: list[threading.RLock] = []  # the turns that a fork holds
_attached: set[str] = set()  # the real paths of the files that are attached now
_attached_for_ever: set[str] = set()  # in a child: those that were attached during the fork


def _hold_turns() -> None:
    """Let no other thread have a file attached during a fork: in the child it would stay attached for ever."""
    deadline = time.monotonic() + forks.PATIENCE
    for turn in list(_turns.values()):
        if turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            _held.append(turn)


def _release_turns() -> None:
    """Release the turns after a fork."""
    while _held:
        _held.pop().release()


def _drop_turns() -> None:
    """Drop the turns in a child, where a thread that is not there may hold one; note what stays attached for ever."""
    _turns.clear()
    _held.clear()
    _attached_for_ever.update(_attached)
    _attached.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_turns, after_in_parent=_release_turns, after_in_child=_drop_turns)


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
        self._checked: tuple[int, int] | None = None  # device and inode of the file whose objects were checked
        self.connection = PrivateConnection()

    @property
    def turn(self) -> threading.RLock:
        """Held while a thread of this process works on the file."""
        return _turns.setdefault(self._real_path, threading.RLock())

    @contextmanager
    def attach(
        self, *, read_only: bool, to: duckdb.DuckDBPyConnection | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the file as the current database ``cat`` of a connection.

        Args:
            read_only: whether the connection only reads.
            to: the connection; None is the private one.

        Raises:
            StoreBusy: if another process has not released the file within 30 s, or this process has it open elsewhere.
            StoreNotFound: if the store was moved or deleted.
            StoreDamaged: if the file is missing, or it or its log is corrupt.
            StoreUnreadable: if the file or its log cannot be read now.
            StoreIOError: if its file system has no locks, or an interrupted checkpoint cannot be undone here.
            UnsafeStore: if the file holds what embedstore never creates, or a change of it would change another file.
        """
        with self.turn:
            if not read_only:
                for path in catalog_check.files_of(self._file):
                    require_writable_in_place(path)
            con = self.connection.get() if to is None else to
            self._attach(con, READ_ONLY if read_only else READ_WRITE)
            try:
                con.execute("USE cat")
                with self._in_use():
                    yield con
            finally:
                self.detach(con)

    @contextmanager
    def attach_restricted(self, memory_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the file read-only as the current database of a connection of its own, which is closed at the end.

        The connection cannot reach other files, the network, a setting or a Python variable.

        Args:
            memory_bytes: what DuckDB may hold.

        Raises:
            StoreBusy: if another process has not released the file within 30 s.
            StoreDamaged: if the file or its log is corrupt.
            StoreIOError: if the file may not be read.
        """
        with self.turn, connect(memory_limit=memory_limit(), temp_directory="") as con:
            self._attach(con, READ_ONLY)
            con.execute("USE cat")
            con.execute(f"SET memory_limit = '{memory_bytes}B'")  # only now: a large log takes memory when it is opened
            confine(con)
            with self._in_use():
                yield con

    def detach(self, con: duckdb.DuckDBPyConnection) -> None:
        """Release the file, whatever state it is in."""
        if _run_quietly(con, "USE memory") and _run_quietly(con, "DETACH DATABASE IF EXISTS cat"):
            return
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
            self._check_objects()
            if options == READ_WRITE:
                self._attach_for_writing(con)
            else:
                con.execute(f"ATTACH {quote_literal(self._file)} AS cat ({options})")
        except duckdb.Error as e:
            if "Could not set lock" in str(e) and lock_problem(e, self._file) is None:
                return first_line(e)
            self._require_file()
            raise self._attached_by_parent(e) or explain(e, self._file, "open") from e
        try:
            under_way = options != READ_WRITE and reading.exists(self._checkpoint_mark)
        except BaseException:  # an attached file would refuse the next attachment
            self.detach(con)
            raise
        if under_way:  # recovery may have replaced one file only
            self.detach(con)
            return "a checkpoint is under way"
        return None

    def _attach_for_writing(self, con: duckdb.DuckDBPyConnection) -> None:
        """Attach for writing; put back what DuckDB overwrites if it takes the file for missing.

        Raises:
            StoreUnreadable: if DuckDB could not see the file, or the file cannot be read now.
        """
        with reading.read_errors(self._file):
            kept = KeptBeginning(self._file, self._file.with_name(self._file.name + ".wal"))
        with kept:
            attach = f"ATTACH {quote_literal(self._file)} AS cat ({READ_WRITE})"
            con.execute(attach)
            if fetch_value(con, "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'cat'"):
                return
            self.detach(con)  # before the file is opened: closing it would release DuckDB's lock
            if kept.is_overwritten():
                kept.put_back()
                raise StoreUnreadable(f"cannot read {self._file} now: it was there a moment ago; run it again")
            con.execute(attach)  # a damaged catalog, which has no tables

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Note that the file is attached, for a process that is forked meanwhile."""
        _attached.add(self._real_path)
        try:
            yield
        finally:
            _attached.discard(self._real_path)

    def _attached_by_parent(self, error: duckdb.Error) -> StoreBusy | None:
        """Return the error of a child that was forked while its parent used the file; None for other errors."""
        if self._real_path not in _attached_for_ever or not isinstance(lock_problem(error, self._file), StoreBusy):
            return None
        return StoreBusy(
            f"{self._file} was in use while this process was forked, and cannot be changed in it; fork while no thread "
            "uses the store, or start processes with the method `spawn` or `forkserver` of multiprocessing"
        )

    def _require_file(self) -> None:
        """Raise the error for a file that is not there, if it is not."""
        if reading.exists(self._file):
            return
        folder = self._file.parent
        missing: StoreError = StoreDamaged(f"{self._file} is missing; run `embedstore repair STORE`")
        if not reading.exists(folder / MARKER):
            missing = StoreNotFound(f"there is no store at {folder} any more: it was moved or deleted; open it again")
        raise missing

    def _check_objects(self) -> None:
        """Check what the file holds, once: afterwards only embedstore changes it, until another file replaces it."""
        identity = _identity(self._file)
        if identity != self._checked:
            catalog_check.require_own_objects(self._file)
            self._checked = identity


def _identity(file: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None where there is none."""
    try:
        s = file.stat()
    except OSError:
        return None
    return s.st_dev, s.st_ino


def _run_quietly(con: duckdb.DuckDBPyConnection, statement: str) -> bool:
    """Run a statement that fails where there is nothing left to clean up, and return whether it succeeded."""
    try:
        con.execute(statement)
    except duckdb.Error:
        return False
    return True

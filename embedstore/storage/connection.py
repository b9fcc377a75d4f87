"""DuckDB connections: databases in memory that draw nothing, and the private connection of a catalog."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from embedstore.resources import available_cores, memory_share
from embedstore.storage import forks
from embedstore.storage.quoting import quote_literal
from embedstore.storage.sql import first_line
from embedstore.temporary import new_folder, remove, temporary_folder

STORAGE_VERSION = "v1.2.0"  # DuckDB's shells since 2025-02 open the file; 2.0's own default locks 1.5 out
MEMORY_BYTES = 1_000_000_000  # for DuckDB's own buffers; larger plans spill to the temporary folder
# A catalog or a query must never fetch or load code. What embedstore needs (Parquet, JSON, ICU) is part of the package.
_NO_EXTENSIONS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
}


_parsers = threading.local()  # the connection of each thread, and the process that opened it


def memory_limit(most: int = MEMORY_BYTES) -> str:
    """Return the setting ``memory_limit`` of a connection: at most a quarter of the memory of this process.

    Args:
        most: bytes on a machine with enough memory.
    """
    return f"{memory_share(most, 4)}B"


def connect(**config: str) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that draws no progress bar, and neither installs nor loads extensions.

    At a prompt, in a notebook, in ``python -c`` and in processes that were spawned, DuckDB draws a progress bar on
    stdout for every query of more than two seconds.
    """
    cores = {"threads": str(available_cores())}
    con = duckdb.connect(":memory:", config={**_NO_EXTENSIONS, **cores, **config})
    forks.reset_in_child(con, forks.never_free)
    with suppress(duckdb.InvalidInputException):  # a notebook without the widgets that DuckDB would draw with
        con.execute("SET enable_progress_bar = false")
    return con


def parser() -> duckdb.DuckDBPyConnection:
    """Return a connection of this thread to an empty database, for DuckDB's functions that read and write syntax trees.

    Opening a database takes as long as reading a million numbers, and a parser needs nothing of it; so each thread of a
    process opens one, with no thread of its own.
    """
    if getattr(_parsers, "process", None) != os.getpid():  # a fork must not use that of its parent
        _parsers.opened, _parsers.process = connect(threads="1"), os.getpid()
    opened: duckdb.DuckDBPyConnection = _parsers.opened
    return opened


def connect_confined(allowed_files: Collection[Path] = (), **config: str) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that reaches no file, network, extension or Python variable, and cannot be changed.

    Args:
        allowed_files: files that it may open all the same.
        config: settings of DuckDB.
    """
    con = connect(**config)
    confine(con, allowed_files)
    return con


def confine(con: duckdb.DuckDBPyConnection, allowed_files: Collection[Path] = ()) -> None:
    """Keep a connection, for as long as it lives, from everything but the databases that are attached to it.

    Args:
        con: the connection.
        allowed_files: files that it may open all the same.
    """
    paths = ", ".join(quote_literal(path) for path in allowed_files)
    con.execute(f"SET allowed_paths = [{paths}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET python_enable_replacements = false")
    con.execute("SET lock_configuration = true")


def attach_new_file(con: duckdb.DuckDBPyConnection, file: Path, name: str = "cat") -> None:
    """Create a DuckDB file in the catalog's storage version, and attach it under a name."""
    con.execute(f"ATTACH {quote_literal(file)} AS {name} (STORAGE_VERSION '{STORAGE_VERSION}')")


@contextmanager
def disk_connection(name: str, most: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection of its own with a temporary database on the disk; in memory if there is no room for files.

    Args:
        name: the name of the database.
        most: bytes that DuckDB may hold on a machine with enough memory.
    """
    spill = _spill_folder()
    try:
        with connect(memory_limit=memory_limit(most), temp_directory=str(spill or "")) as con:
            file = quote_literal(spill / "tables.duckdb") if spill else "':memory:'"
            con.execute(f"ATTACH {file} AS {name}")
            yield con
    finally:
        if spill:
            remove(spill)


def copy_database(file: Path, new: Path) -> None:
    """Write the tables of a DuckDB file into a new file: the rows that they have, and nothing that was deleted.

    Raises:
        OSError: if DuckDB cannot write the new file.
    """
    with (
        temporary_folder() as folder,
        connect(memory_limit=memory_limit(), temp_directory=str(folder)) as con,
    ):
        con.execute(f"ATTACH {quote_literal(file)} AS old (READ_ONLY)")
        try:
            attach_new_file(con, new, "new")
            con.execute("COPY FROM DATABASE old TO new")
            con.execute("CHECKPOINT new")
        except (duckdb.IOException, duckdb.OutOfMemoryException) as e:
            raise OSError(first_line(e)) from e


class PrivateConnection:
    """The database that one catalog is attached to: opened when it is needed, and again after a fork.

    Every thread has a connection of its own to it, since DuckDB refuses two calls at once on one. Scratch tables are in
    the database, and every thread sees them.
    """

    _database: duckdb.DuckDBPyConnection | None
    _connections: weakref.WeakSet[duckdb.DuckDBPyConnection]

    def __init__(self) -> None:
        self._begin()
        forks.reset_in_child(self, PrivateConnection._forget)

    def get(self) -> duckdb.DuckDBPyConnection:
        """Return the connection of this thread."""
        with self._opening:
            if self._database is None:
                self._database = _connect_private()
            database, con = getattr(self._of_thread, "opened", (None, None))
            if con is None or database is not self._database:
                con = self._database.cursor()
                self._of_thread.opened = (self._database, con)
                self._connections.add(con)
            return con

    def discard(self) -> None:
        """Drop a database that a fatal error made unusable; its scratch tables are lost."""
        with self._opening:
            database, opened = self._database, list(self._connections)
            self._database, self._connections = None, weakref.WeakSet()
        for con in (*opened, *([] if database is None else [database])):
            with suppress(duckdb.Error):
                con.close()

    def is_current(self, con: duckdb.DuckDBPyConnection) -> bool:
        """Return whether this connection is still that of this thread."""
        return getattr(self._of_thread, "opened", None) == (self._database, con)

    def _forget(self) -> None:
        """Leave the connections of the parent behind; their scratch tables are the parent's, too."""
        for con in (*self._connections, self._database):
            forks.never_free(con)
        self._begin()

    def _begin(self) -> None:
        """Hold no database and no connection."""
        self._opening = threading.Lock()
        self._of_thread = threading.local()
        self._database, self._connections = None, weakref.WeakSet()


def _connect_private() -> duckdb.DuckDBPyConnection:
    """Open a database in memory that never checkpoints an attached file by itself."""
    spill = _spill_folder()
    con = connect(memory_limit=memory_limit(), temp_directory=str(spill or ""))
    if spill:
        weakref.finalize(con, remove, spill)
    con.execute("SET GLOBAL checkpoint_on_detach = 'DISABLED'")
    con.execute("SET wal_autocheckpoint = '1TB'")
    con.execute("SET auto_checkpoint_skip_wal_threshold = 1000000000000")
    con.execute("SET lock_configuration = true")
    return con


def _spill_folder() -> Path | None:
    """Return a private folder for what outgrows the memory; None where temporary files cannot be written."""
    try:
        return new_folder("spill-")
    except OSError:
        return None

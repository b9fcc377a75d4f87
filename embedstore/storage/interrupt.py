"""Interrupt a query that takes too long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from embedstore.errors import QueryTimeout


@contextmanager
def interrupt_after(con: duckdb.DuckDBPyConnection, seconds: float, message: str) -> Iterator[None]:
    """Interrupt the query of a connection that takes too long.

    DuckDB looks for the interrupt between blocks of rows, so a query can take a moment longer.

    Args:
        con: the connection that runs the query.
        seconds: the limit.
        message: the message of the error.

    Raises:
        QueryTimeout: if the query was interrupted here.
    """
    expired = threading.Event()

    def interrupt() -> None:
        expired.set()
        con.interrupt()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as e:
        if expired.is_set():
            raise QueryTimeout(message) from e
        raise
    finally:
        timer.cancel()

"""Numbered changes of the catalog's tables. A published migration is never edited; a new one is added.

Each module ``mNNN_what`` has ``up(con)``, which runs once, in order, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from embedstore.errors import StoreTooNew
from embedstore.storage.migrations import m001_initial, m002_predictions, m003_generation, m004_computed_columns
from embedstore.storage.sql import fetch_value, utc_now

MIGRATIONS: tuple[tuple[str, Callable[[duckdb.DuckDBPyConnection], None]], ...] = (
    ("m001_initial", m001_initial.up),
    ("m002_predictions", m002_predictions.up),
    ("m003_generation", m003_generation.up),
    ("m004_computed_columns", m004_computed_columns.up),
)


def applied_count(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many migrations the attached catalog has had.

    Raises:
        StoreTooNew: if it has had more than this version of embedstore knows.
    """
    tables = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'cat' AND table_name = 'schema'"
    if not fetch_value(con, tables):
        return 0
    count = int(fetch_value(con, 'SELECT coalesce(max(migration), 0) FROM cat."schema"'))
    if count > len(MIGRATIONS):
        raise StoreTooNew(
            f"the catalog has had {count} migrations, this embedstore knows {len(MIGRATIONS)}; "
            "run `pip install -U embedstore`"
        )
    return count


def apply_pending(con: duckdb.DuckDBPyConnection) -> None:
    """Apply the missing migrations; the caller holds the transaction."""
    for number in range(applied_count(con) + 1, len(MIGRATIONS) + 1):
        name, migrate = MIGRATIONS[number - 1]
        migrate(con)
        con.execute('INSERT INTO cat."schema" VALUES (?, ?, ?)', [number, name, utc_now()])

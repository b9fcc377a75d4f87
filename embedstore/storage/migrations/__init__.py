"""Numbered changes of the catalog's tables. A published one is never edited; a new one is added.

Each module ``mNNN_what`` has ``up(con)``, run once, in order, inside one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import duckdb

from embedstore.errors import StoreTooNew
from embedstore.storage.migrations import m001_initial, m002_predictions, m003_generation

MIGRATIONS: tuple[tuple[str, Callable[[duckdb.DuckDBPyConnection], None]], ...] = (
    ("m001_initial", m001_initial.up),
    ("m002_predictions", m002_predictions.up),
    ("m003_generation", m003_generation.up),
)


def applied_count(con: duckdb.DuckDBPyConnection) -> int:
    """How many migrations the attached catalog has had.

    Raises:
        StoreTooNew: more than this version of embedstore knows.
    """
    exists = con.execute("SELECT count(*) FROM duckdb_tables() WHERE database_name = 'cat' AND table_name = 'schema'")
    if not _one(exists):
        return 0
    found = _one(con.execute('SELECT coalesce(max(migration), 0) FROM cat."schema"'))
    if found > len(MIGRATIONS):
        raise StoreTooNew(
            f"the catalog has had {found} migrations, this embedstore knows {len(MIGRATIONS)}; run `pip "
            f"install -U embedstore`"
        )
    return found


def apply_pending(con: duckdb.DuckDBPyConnection) -> None:
    """Apply what is missing; the caller holds the transaction."""
    for number in range(applied_count(con) + 1, len(MIGRATIONS) + 1):
        name, migrate = MIGRATIONS[number - 1]
        migrate(con)
        con.execute('INSERT INTO cat."schema" VALUES (?, ?, ?)', [number, name, datetime.now(UTC).replace(tzinfo=None)])


def _one(result: duckdb.DuckDBPyConnection) -> int:
    """The single number of a result."""
    row = result.fetchone()
    return int(row[0]) if row else 0

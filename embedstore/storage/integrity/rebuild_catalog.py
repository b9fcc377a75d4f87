"""Build a new catalog from what can be read of a damaged one and from the descriptions of the spaces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from embedstore.errors import StoreDamaged, StoreTooNew
from embedstore.storage import catalog_check, connection, migrations
from embedstore.storage.catalog_errors import read_problem
from embedstore.storage.durable_files import copy_synced, sync_file, sync_folder
from embedstore.storage.layout import Layout
from embedstore.storage.queries.computed_columns import clear_orphaned_marks
from embedstore.storage.quoting import quote_literal
from embedstore.storage.reading import exists, list_folder, read_errors
from embedstore.storage.space_files import SpaceFile
from embedstore.storage.sql import column_types, fetch_value, insert_rows, parquet_source, utc_now
from embedstore.wording import counted

ROW_GROUP = 122_880  # rows of DuckDB's row groups: read at once where no block among them is damaged
READ_ROWS = 2048  # rows of DuckDB's vectors: read at once in a row group with a damaged block


def rebuild_catalog(at: Layout) -> list[str]:
    """Replace a catalog that cannot be used; the old one and its log stay in the quarantine.

    Args:
        at: the store; the caller holds the writer's lock.

    Returns:
        What was done, one sentence each.

    Raises:
        StoreDamaged: if nothing says which spaces the vector files belong to.
        StoreUnreadable: if a file cannot be read now; the catalog is unchanged.
        OSError: if the disk refuses.
    """
    at.quarantine.mkdir(exist_ok=True)
    sync_folder(at.root)
    old = at.quarantine / f"{at.catalog.name}.{time.time_ns()}"
    for path, copy in ((at.catalog, old), (at.wal, _log(old))):
        if exists(path):
            with read_errors(path):
                copy_synced(path, copy)
    sync_folder(at.quarantine)
    new = at.catalog.with_name(at.catalog.name + ".new")
    new.unlink(missing_ok=True)
    actions = _fill(at, new, old)
    sync_file(new)
    at.wal.unlink(missing_ok=True)
    sync_folder(at.root)
    new.replace(at.catalog)
    sync_folder(at.root)
    return [*actions, "a new catalog was created" + (f"; the old one is {old}" if exists(old) else "")]


def _fill(at: Layout, new: Path, old: Path) -> list[str]:
    """Write the new catalog."""
    actions: list[str] = []
    with connection.connect() as con:
        connection.attach_new_file(con, new)
        migrations.apply_pending(con)
        if _make_attachable(old):
            query = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'cat'"
            tables = [t for (t,) in con.execute(query).fetchall() if t != "schema"]
            actions += [loss for t in tables if (loss := _copy_table(con, old, t))]
        else:
            actions.append("nothing of the old catalog could be read; embed again: contents with a vector are skipped")
        con.execute(_NUMBERS_OF_ITEMS)
        for table, condition in catalog_check.IMPOSSIBLE.items():
            con.execute(f"DELETE FROM cat.{table} WHERE {condition}")
        actions += _restore_spaces(con, at)
        con.execute("USE cat")
        actions += clear_orphaned_marks(con)
        con.execute("USE memory")
        con.execute(_COUNTERS)
        con.execute("CHECKPOINT cat")
        con.execute("DETACH cat")
    return actions


def _log(catalog: Path) -> Path:
    """Return the path of DuckDB's log of a catalog."""
    return catalog.with_name(catalog.name + ".wal")


def _make_attachable(old: Path) -> bool:
    """Try to attach the old catalog with its log, then without; return whether one of them works.

    Raises:
        UnsafeStore: if it holds what embedstore never creates: reading a table could run it.
    """
    for with_log in (True, False):
        if not with_log and exists(_log(old)):
            _log(old).rename(_log(old).with_name(_log(old).name + ".unreadable"))
        try:
            with suppress(StoreDamaged, StoreTooNew):  # tables that are missing are not copied
                catalog_check.require_own_objects(old)
            with _attached(old) as con:
                con.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'old'").fetchall()
        except duckdb.Error as e:
            _require_read(e, old)
            continue
        return True
    return False


@contextmanager
def _attached(old: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Attach the old catalog to a new connection, which a fatal error makes unusable."""
    with connection.connect() as con:
        con.execute(f"ATTACH {quote_literal(old)} AS old (READ_ONLY, TYPE duckdb)")
        yield con


def _copy_table(con: duckdb.DuckDBPyConnection, old: Path, table: str) -> str:
    """Copy the rows of a table that can be read; return a sentence on those that were lost, or ""."""
    part = old.with_name(f"{old.name}.part.parquet")
    lost = 0
    try:
        with _attached(old) as source:
            total = _row_numbers(source, table)
        for begin, end in _ranges(0, total, ROW_GROUP):
            if _copy_rows(con, old, table, (begin, end), part):
                continue
            lost += sum(
                e - b for b, e in _ranges(begin, end, READ_ROWS) if not _copy_rows(con, old, table, (b, e), part)
            )
    except duckdb.Error as e:
        _require_read(e, old)
        return f"table {table} could not be read at all"
    finally:
        part.unlink(missing_ok=True)
    return f"{lost} of {counted(total, 'row')} of table {table} could not be read" if lost else ""


def _ranges(begin: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of at most ``step`` rows."""
    for first in range(begin, end, step):
        yield first, min(end, first + step)


def _copy_rows(con: duckdb.DuckDBPyConnection, old: Path, table: str, rows: tuple[int, int], part: Path) -> bool:
    """Copy a range of rows through a Parquet file; return False where a block among them is damaged."""
    begin, end = rows
    try:
        with _attached(old) as source:
            by_number = f"WHERE rowid >= {begin} AND rowid < {end}"
            by_order = f"LIMIT {end - begin} OFFSET {begin}"
            selection = f'SELECT * FROM old."{table}" {by_order if _hides_row_number(source, table) else by_number}'
            source.execute(f"COPY ({selection}) TO {quote_literal(part)} (FORMAT parquet)")
    except duckdb.Error as e:
        _require_read(e, old)
        return False
    if table == "counters":
        con.execute("DELETE FROM cat.counters")
    insert_rows(con, f"cat.{table}", parquet_source(part), column_types(con, f"FROM {parquet_source(part)}"))
    return True


def _require_read(error: duckdb.Error, old: Path) -> None:
    """Raise StoreUnreadable for an error that says nothing about the rows: they would be given up as damaged."""
    if problem := read_problem(error, old):
        raise problem from error


def _row_numbers(source: duckdb.DuckDBPyConnection, table: str) -> int:
    """Return the number past the last row of a table of the old catalog; rows that were deleted count too."""
    last = "count(*)" if _hides_row_number(source, table) else "coalesce(max(rowid) + 1, 0)"
    return int(fetch_value(source, f'SELECT {last} FROM old."{table}"'))


def _hides_row_number(source: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Return whether a column of the user's, in an old store, has the name of DuckDB's number of a row."""
    return "rowid" in {name.lower() for name in column_types(source, f'old."{table}"')}


def _restore_spaces(con: duckdb.DuckDBPyConnection, at: Layout) -> list[str]:
    """Add the spaces that the old catalog did not give back, from their descriptions.

    Raises:
        StoreDamaged: if there are vector files but no space.
    """
    known = {r[0] for r in con.execute("SELECT space FROM cat.spaces").fetchall()}
    actions = []
    for key in [folder.name for folder in list_folder(at.root / "spaces")]:
        path = at.space_file(key)
        if key in known or not exists(path):
            continue
        try:
            d = SpaceFile.read(path)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        con.execute(
            "INSERT INTO cat.spaces VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [key, d.name, not known, d.space.dim, d.dtype, d.recipe, d.facts, utc_now()],
        )
        known.add(key)
        actions.append(f"space {d.name} was added again from its description")
    folders = [at.shards_folder(folder.name) for folder in list_folder(at.root / "spaces")]
    if not known and any(list_folder(folder, "*.vec") for folder in folders):
        raise StoreDamaged(f"nothing in {at.root} says what its vectors mean; restore the store from a backup")
    return actions


# An item whose number was lost keeps its uri, its label and its columns under a new one.
_NUMBERS_OF_ITEMS = """
UPDATE cat.items SET item = rowid + 1 + (SELECT greatest(0, coalesce(max(item), 0)) FROM cat.items) WHERE item IS NULL
"""

_COUNTERS = """
DELETE FROM cat.counters WHERE rowid > (SELECT min(rowid) FROM cat.counters);
INSERT INTO cat.counters SELECT 1, 1, 1, 0 WHERE NOT EXISTS (SELECT 1 FROM cat.counters);
UPDATE cat.counters SET
    next_item = greatest(next_item, (SELECT coalesce(max(item), 0) + 1 FROM cat.items)),
    next_shard = greatest(next_shard, (SELECT coalesce(max(shard), 0) + 1 FROM cat.shards)),
    next_run = greatest(next_run, (SELECT coalesce(max(run), 0) + 1 FROM cat.runs)),
    generation = coalesce(generation, 0);
"""

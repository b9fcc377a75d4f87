"""A new catalog from what can be read of a damaged one, and from the notes beside the vectors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from embedstore.errors import StoreDamaged
from embedstore.space import Space
from embedstore.storage import connection, migrations
from embedstore.storage.durable_files import copy_synced, sync_file, sync_folder
from embedstore.storage.layout import Layout, read_small_json
from embedstore.storage.sql import first_row, utc_now

READ_ROWS = 2048  # rows that are read at once where a table cannot be read whole: DuckDB's vector


def rebuild_catalog(at: Layout) -> list[str]:
    """Put a new catalog in the place of one that cannot be used; the old one and its log stay in the quarantine.

    Raises:
        StoreDamaged: nothing says which spaces there are.
    """
    at.quarantine.mkdir(exist_ok=True)
    old = at.quarantine / f"{at.catalog.name}.{time.time_ns()}"
    for path, copy in ((at.catalog, old), (at.wal, old.with_name(old.name + ".wal"))):
        if path.exists():
            copy_synced(path, copy)
    sync_folder(at.quarantine)
    new = at.catalog.with_name(at.catalog.name + ".new")
    new.unlink(missing_ok=True)
    done = _fill(at, new, old)
    sync_file(new)
    at.wal.unlink(missing_ok=True)
    sync_folder(at.root)
    new.replace(at.catalog)
    sync_folder(at.root)
    return [*done, "a new catalog was made" + (f"; the old one is {old}" if old.exists() else "")]


def _fill(at: Layout, new: Path, old: Path) -> list[str]:
    """Make the new file."""
    done: list[str] = []
    with connection.connect() as con:
        connection.attach_new_file(con, new)
        migrations.apply_pending(con)
        source = _source(old)
        if source is None:
            done.append("nothing of the old catalog could be read; embed again, and what has a vector is not computed")
        else:
            tables = [r[0] for r in _rows(con, "SELECT table_name FROM duckdb_tables() WHERE database_name = 'cat'")]
            done += [said for t in tables if t != "schema" and (said := _table(con, source, t))]
        done += _from_notes(con, at)
        con.execute(_COUNTERS)
        con.execute("CHECKPOINT cat")
        con.execute("DETACH cat")
    return done


def _source(old: Path) -> Path | None:
    """The copy that can be attached: with its log, else without."""
    log = old.with_name(old.name + ".wal")
    for use_log in (True, False):
        if not use_log and log.exists():
            log.rename(log.with_name(log.name + ".unreadable"))
        try:
            with _attached(old) as con:
                con.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'old'").fetchall()
        except duckdb.Error:
            continue
        else:
            return old
    return None


@contextmanager
def _attached(old: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own: a fatal error ends with it."""
    with connection.connect() as con:
        con.execute(f"ATTACH '{_text(old)}' AS old (READ_ONLY)")
        yield con


def _table(con: duckdb.DuckDBPyConnection, old: Path, table: str) -> str:
    """Copy a table through Parquet, whole or in ranges of rows; what was lost of it."""
    part = old.with_name(f"{old.name}.part.parquet")
    lost = 0
    try:
        total = _count(old, table)
        for begin, end in _ranges(total):
            if _read(old, table, begin, end, part):
                _take(con, table, part)
                continue
            for b in range(begin, end, READ_ROWS):
                if _read(old, table, b, min(end, b + READ_ROWS), part):
                    _take(con, table, part)
                else:
                    lost += min(end, b + READ_ROWS) - b
    except duckdb.Error:
        return f"table {table} could not be read at all"
    finally:
        part.unlink(missing_ok=True)
    return f"{lost} of {total} rows of table {table} could not be read" if lost else ""


def _count(old: Path, table: str) -> int:
    """Rows of a table, deleted ones included."""
    with _attached(old) as con:
        return int(first_row(con.execute(f'SELECT coalesce(max(rowid) + 1, 0) FROM old."{table}"'))[0])


def _ranges(total: int) -> Iterator[tuple[int, int]]:
    """DuckDB's row groups."""
    step = 122_880
    for begin in range(0, total, step):
        yield begin, min(total, begin + step)


def _read(old: Path, table: str, begin: int, end: int, part: Path) -> bool:
    """Some rows as Parquet; False where a block among them is damaged."""
    try:
        with _attached(old) as con:
            con.execute(
                f'COPY (SELECT * FROM old."{table}" WHERE rowid >= {begin} AND rowid < {end}) '
                f"TO '{_text(part)}' (FORMAT parquet)"
            )
    except duckdb.Error:
        return False
    return True


def _take(con: duckdb.DuckDBPyConnection, table: str, part: Path) -> None:
    """Enter these rows; columns of the user's own are added first."""
    have = {r[0] for r in _rows(con, f'DESCRIBE cat."{table}"')}
    for name, kind, *_ in _rows(con, f"DESCRIBE SELECT * FROM '{_text(part)}'"):
        if name not in have:
            quoted = '"' + name.replace('"', '""') + '"'
            con.execute(f'ALTER TABLE cat."{table}" ADD COLUMN {quoted} {kind}')
    if table == "counters":
        con.execute("DELETE FROM cat.counters")
    con.execute(f"INSERT INTO cat.\"{table}\" BY NAME SELECT * FROM '{_text(part)}'")


def _from_notes(con: duckdb.DuckDBPyConnection, at: Layout) -> list[str]:
    """Spaces that the old catalog did not give back."""
    have = {r[0] for r in _rows(con, "SELECT space FROM cat.spaces")}
    done = []
    for path in sorted(at.root.glob("spaces/*/space.json")):
        key = path.parent.name
        if key in have:
            continue
        try:
            note = json.loads(read_small_json(path))
            space = Space.from_json(note["facts"])
            if space.key != key:
                continue
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        con.execute(
            "INSERT INTO cat.spaces VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [key, note["name"], not have, space.dim, note["dtype"], note["recipe"], note["facts"], utc_now()],
        )
        have.add(key)
        done.append(f"space {note['name']} was entered again from its note")
    if not have and any(at.root.glob("spaces/*/shards/*.vec")):
        raise StoreDamaged(f"nothing in {at.root} says what its vectors mean; restore the store from a backup")
    return done


_COUNTERS = """
DELETE FROM cat.counters WHERE rowid > (SELECT min(rowid) FROM cat.counters);
INSERT INTO cat.counters SELECT 1, 1, 1, 0 WHERE NOT EXISTS (SELECT 1 FROM cat.counters);
UPDATE cat.counters SET
    next_item = greatest(next_item, (SELECT coalesce(max(item), 0) + 1 FROM cat.items)),
    next_shard = greatest(next_shard, (SELECT coalesce(max(shard), 0) + 1 FROM cat.shards)),
    next_run = greatest(next_run, (SELECT coalesce(max(run), 0) + 1 FROM cat.runs)),
    generation = coalesce(generation, 0);
"""


def _rows(con: duckdb.DuckDBPyConnection, query: str) -> list[tuple[str, ...]]:
    """All rows of a query."""
    return con.execute(query).fetchall()


def _text(path: Path) -> str:
    """A path inside an SQL string."""
    return str(path).replace("'", "''")

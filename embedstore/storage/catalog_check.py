"""Check that a catalog holds the tables of our migrations and nothing that could run.

A view, a macro or a table of somebody else's catalog can take the place of a function or a variable that our own
statements name, and a default or a generated column runs when a row is written or read. So a catalog is attached for
work only after it passed this check. The check attaches it to a database of its own that reaches no file, network or
extension, and never makes it the current database: no name in it takes part in the queries of the check.

The tables are compared with those that our own migrations create. Only ``items`` may have more columns, the user's own,
of plain types and without a default.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from embedstore.errors import StoreDamaged, StoreTooNew, UnsafeStore
from embedstore.storage import connection, migrations, reading
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import fetch_value
from embedstore.storage.store_files import require_no_holes

MAX_LISTED = 5  # names in one message
REPLAY_SECONDS, REPLAY_SECONDS_PER_MIB = 10.0, 0.1  # to attach a catalog; 1 MiB of log takes about 5 ms
MAX_UNUSED_SHARE, MAX_UNUSED_BYTES = 4, 64 << 20  # a checkpoint that was interrupted leaves blocks at the end
_MAX_REMEMBERED = 64  # states of files that passed
_ALTERED = "items"  # the only table that may have more columns

FileState = tuple[tuple[int, int, int, int, int], ...]
_LOG_SUFFIXES = (".wal", ".wal.checkpoint", ".wal.recovery")


@dataclass(frozen=True)
class _Table:
    """A table.

    Attributes:
        definition: its CREATE TABLE statement, as DuckDB writes it.
        columns: the type of each column by name, in their order.
    """

    definition: str
    columns: dict[str, str]


Tables = dict[str, _Table]

_known: list[Tables] = []
_passed: OrderedDict[tuple[Path, FileState], None] = OrderedDict()
_passed_lock = threading.Lock()

# Everything that a catalog can hold besides tables and their columns.
_OBJECTS = """
SELECT 'view', view_name FROM duckdb_views() WHERE database_name = 'cat' AND NOT internal
UNION ALL SELECT replace(function_type, '_', ' '), function_name FROM duckdb_functions() WHERE database_name = 'cat'
UNION ALL SELECT 'sequence', sequence_name FROM duckdb_sequences() WHERE database_name = 'cat'
UNION ALL SELECT 'type', type_name FROM duckdb_types() WHERE database_name = 'cat' AND NOT internal
UNION ALL SELECT 'index', index_name FROM duckdb_indexes() WHERE database_name = 'cat'
UNION ALL SELECT 'trigger', trigger_name FROM duckdb_triggers() WHERE database_name = 'cat'
UNION ALL SELECT 'schema', schema_name FROM duckdb_schemas() WHERE database_name = 'cat' AND NOT internal
ORDER BY ALL
"""
_NAME = "if(schema_name = 'main', table_name, schema_name || '.' || table_name)"
_TABLES = f"SELECT {_NAME}, sql FROM duckdb_tables() WHERE database_name = 'cat'"
_COLUMNS = (
    f"SELECT {_NAME}, column_name, data_type FROM duckdb_columns() WHERE database_name = 'cat' ORDER BY column_index"
)
_PLAIN_TYPES = frozenset(
    "boolean tinyint smallint integer bigint hugeint utinyint usmallint uinteger ubigint uhugeint bignum float double "
    "decimal varchar blob bit uuid date time time_ns interval timestamp timestamp_s timestamp_ms timestamp_ns enum "
    "geometry variant null".split()
) | {"time with time zone", "timestamp with time zone"}
_NESTED_TYPES = frozenset({"list", "array", "struct", "map", "union"})


_MOST = 1 << 62


def _lacks(*columns: str) -> str:
    """Return SQL that is true for a row without one of the values that say what it is of."""
    return " OR ".join(f"{quote_identifier(column)} IS NULL" for column in columns)


# What no row of a table of ours says: our own statements count and name files with these values.
IMPOSSIBLE = {
    "spaces": _lacks("space", "name"),
    "contents": _lacks("content"),
    "items": _lacks("item", "uri"),
    "vectors": _lacks("space", "content", "shard", "row"),
    "failures": _lacks("uri"),
    "heads": _lacks("head", "space"),
    "predictions": _lacks("head", "item"),
    "runs": _lacks("run"),
    "shards": f"space IS NULL OR coalesce(shard NOT BETWEEN 0 AND {_MOST}, true) OR "
    f'coalesce("rows" NOT BETWEEN 0 AND {_MOST}, true) OR coalesce(bytes NOT BETWEEN 0 AND {_MOST}, true)',
    "counters": f"coalesce(next_item NOT BETWEEN 0 AND {_MOST}, true) OR "
    f"coalesce(next_shard NOT BETWEEN 0 AND {_MOST}, true) OR coalesce(next_run NOT BETWEEN 0 AND {_MOST}, true)",
}


@dataclass(frozen=True)
class ForeignObject:
    """Something in a catalog that embedstore did not create.

    Attributes:
        kind: view, macro, table macro, sequence, type, index, trigger, schema, table or column.
        name: its name.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


def require_own_objects(file: Path) -> None:
    """Refuse a catalog that holds anything but the tables of our migrations.

    Args:
        file: ``catalog.duckdb``; its log belongs to it.

    Raises:
        UnsafeStore: if it holds something else, or its log takes too long.
        StoreTooNew: if it has had migrations that this version does not know.
        StoreDamaged: if a table or a column is missing, or a number cannot be.
        duckdb.Error: if the file cannot be attached.
    """
    state = _file_state(file)
    if _has_passed(file, state):
        return
    if objects := foreign_objects(file):
        listed = ", ".join(map(str, objects[:MAX_LISTED])) + (", …" if len(objects) > MAX_LISTED else "")
        raise UnsafeStore(
            f"{file} holds what embedstore never creates ({listed}) and was not opened; `embedstore verify STORE "
            "--untrusted` lists everything; drop it with DuckDB if it is your own, else ask for an export of the store"
        )
    with _passed_lock:
        _passed[file, state] = None
        while len(_passed) > _MAX_REMEMBERED:
            _passed.popitem(last=False)


def files_of(file: Path) -> list[Path]:
    """Return the paths that DuckDB opens with a catalog: the file and its logs."""
    return [file.with_name(file.name + suffix) for suffix in ("", *_LOG_SUFFIXES)]


def foreign_objects(file: Path) -> list[ForeignObject]:
    """Return what a catalog and its log hold besides the tables of our migrations.

    Args:
        file: ``catalog.duckdb``.

    Raises:
        UnsafeStore: if the log takes too long, or the file is far longer than what it holds.
        StoreTooNew: if it has had migrations that this version does not know.
        StoreDamaged: if a table or a column is missing.
        duckdb.Error: if the file cannot be attached.
    """
    with _attached(file) as (con, known):
        _require_possible_size(con, file)
        objects = [ForeignObject(*row) for row in con.execute(_OBJECTS).fetchall()]
        found = _read_tables(con)
        number = 0 if objects else _migration_count(con, file, found, known)
        expected = known[number or -1]  # without the count of migrations, the latest tables
        objects += [ForeignObject("table", name) for name in sorted(found.keys() - expected.keys())]
        if found and not objects:
            objects += _foreign_columns(con, file, found, expected)
            if not objects:
                _require_possible_values(con, file)
    return objects


def _require_possible_values(con: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Refuse a catalog whose numbers of files and of rows cannot be.

    Raises:
        StoreDamaged: if there is one.
    """
    for table, condition in IMPOSSIBLE.items():
        count = int(fetch_value(con, f"SELECT count(*) FROM cat.main.{table} WHERE {condition}"))
        if count:
            raise StoreDamaged(
                f"{file} has impossible values in {count} rows of table {table}; run `embedstore repair STORE`"
            )


def _require_possible_size(con: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Refuse a file that is far longer than what it holds: it is copied before its log is written into it.

    Raises:
        UnsafeStore: if it is.
    """
    query = "SELECT block_size * total_blocks FROM pragma_database_size() WHERE database_name = 'cat'"
    held, size = int(fetch_value(con, query)), reading.file_size(file)
    if size > MAX_UNUSED_SHARE * held + MAX_UNUSED_BYTES:
        raise UnsafeStore(
            f"{file} has {size:,} bytes and holds {held:,}, and was not opened; ask for an export of the store"
        )


def _migration_count(con: duckdb.DuckDBPyConnection, file: Path, found: Tables, known: list[Tables]) -> int:
    """Return how many migrations a catalog has had; 0 without the table that says it.

    Raises:
        StoreTooNew: if it has had more than this version knows.
        StoreDamaged: if the table says nothing.
    """
    if found.get("schema") != known[-1]["schema"]:
        return 0
    number = int(fetch_value(con, 'SELECT coalesce(max(migration), 0) FROM cat.main."schema"'))
    if number >= len(known):
        raise StoreTooNew(
            f"{file} has had {number} migrations, this embedstore knows {len(known) - 1}; "
            "run `pip install -U embedstore`"
        )
    if number < 1:
        raise StoreDamaged(f"{file} does not say which migrations it has had; run `embedstore repair STORE`")
    return number


def _foreign_columns(
    con: duckdb.DuckDBPyConnection, file: Path, found: Tables, expected: Tables
) -> Iterator[ForeignObject]:
    """Yield the tables that are defined otherwise than by our migrations, and columns of types that are not plain.

    Raises:
        StoreDamaged: if a table or a column is missing.
    """
    for name, table in expected.items():
        columns = found[name].columns if name in found else {}
        if missing := table.columns.keys() - columns.keys():
            raise StoreDamaged(f"{file} lacks {name}.{min(missing)}; run `embedstore repair STORE`")
        more = {c: kind for c, kind in columns.items() if c not in table.columns} if name == _ALTERED else {}
        unknown = [c for c, kind in more.items() if not _is_plain(con, kind)]
        yield from (ForeignObject("column", f"{name}.{c}") for c in unknown)
        if not unknown and found[name].definition != _define(con, table.definition, more):
            yield ForeignObject("table", f"{name}, whose columns have other types, defaults or constraints")


def _define(con: duckdb.DuckDBPyConnection, definition: str, more: dict[str, str]) -> str:
    """Return the definition of the table that a person may alter with more columns, as DuckDB writes it."""
    if not more:
        return definition
    con.execute(definition)
    for name, kind in more.items():
        con.execute(f"ALTER TABLE {_ALTERED} ADD COLUMN {quote_identifier(name)} {con.type(kind)}")
    return str(fetch_value(con, "SELECT sql FROM duckdb_tables() WHERE database_name = 'memory'"))


def _is_plain(con: duckdb.DuckDBPyConnection, kind: str) -> bool:
    """Return whether a type is one of DuckDB's own that holds values only."""
    try:
        return _is_plain_type(con.type(kind))
    except duckdb.Error:
        return False


def _is_plain_type(kind: Any) -> bool:
    """Return whether a parsed type, and every type inside it, holds values only."""
    if kind.id not in _NESTED_TYPES:
        return kind.id in _PLAIN_TYPES
    return all(_is_plain_type(child) for _, child in kind.children if not isinstance(child, int))


def _read_tables(con: duckdb.DuckDBPyConnection) -> Tables:
    """Return the tables of the attached catalog by name; names in another schema are qualified."""
    columns: dict[str, dict[str, str]] = {}
    for table, column, kind in con.execute(_COLUMNS).fetchall():
        columns.setdefault(table, {})[column] = kind
    return {name: _Table(sql, columns.get(name, {})) for name, sql in con.execute(_TABLES).fetchall()}


def _known_tables(con: duckdb.DuckDBPyConnection) -> list[Tables]:
    """Return the tables after each migration; the first entry, after none, is empty."""
    if not _known:
        con.execute("ATTACH ':memory:' AS cat")
        known: list[Tables] = [{}]
        for _, migrate in migrations.MIGRATIONS:
            migrate(con)
            known.append(_read_tables(con))
        con.execute("DETACH cat")
        _known[:] = known
    return _known


@contextmanager
def _attached(file: Path) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[Tables]]]:
    """Attach a catalog to a confined database, for a limited time; yield it and the tables of our migrations.

    Raises:
        UnsafeStore: if the time is over, the log asks for something outside of the store, or a file has holes.
        duckdb.Error: if the file cannot be attached.
    """
    files = files_of(file)
    for path in files:
        require_no_holes(path)
    seconds = REPLAY_SECONDS + REPLAY_SECONDS_PER_MIB * sum(_stat_values(p)[2] for p in files[1:]) / (1 << 20)
    with closing(connection.connect_confined(files, memory_limit=connection.memory_limit())) as con:
        known = _known_tables(con)
        timer = threading.Timer(seconds, con.interrupt)
        timer.daemon = True
        timer.start()
        try:
            con.execute(f"ATTACH {quote_literal(file)} AS cat (READ_ONLY, TYPE duckdb)")
            yield con, known
        except duckdb.InterruptException as e:
            raise UnsafeStore(
                f"{file} was not opened: reading it and its log took more than {seconds:.0f} s; restore it from a "
                "backup, or ask for an export of the store"
            ) from e
        except duckdb.PermissionException as e:
            raise UnsafeStore(f"{file} was not opened: its log asks for something outside of the store") from e
        finally:
            timer.cancel()
            timer.join()


def _has_passed(file: Path, state: FileState) -> bool:
    """Return whether these very files passed the check in this process."""
    with _passed_lock:
        return (file, state) in _passed


def _file_state(file: Path) -> FileState:
    """Return what identifies the bytes of a catalog and of its log."""
    return tuple(_stat_values(path) for path in (file, file.with_name(file.name + ".wal")))


def _stat_values(path: Path) -> tuple[int, int, int, int, int]:
    """Return device, inode, size and times of a file; zeros where there is none."""
    try:
        s = path.stat()
    except OSError as e:
        if reading.is_absent(e):
            return 0, 0, 0, 0, 0
        raise reading.unreadable(path, e) from e
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns

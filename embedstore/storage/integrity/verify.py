"""Read every byte of a store's own files and compare it with its checksum. Nothing is changed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from embedstore.errors import StoreDamaged, StoreUnreadable
from embedstore.space import Space
from embedstore.storage import shard
from embedstore.storage.catalog import CATALOG_TABLES, LATER_TABLES, Catalog
from embedstore.storage.catalog_errors import read_problem
from embedstore.storage.inbox.state import InboxProblem, check_inboxes
from embedstore.storage.integrity import take_back
from embedstore.storage.integrity.report import Checked, CheckProgress, Damage, Finding, Unread, Verification
from embedstore.storage.layout import COMMIT_COUNTER, MARKER, Layout, marker_problem
from embedstore.storage.queries import shards
from embedstore.storage.queries.counters import read_commit_count
from embedstore.storage.queries.shards import ShardRecord
from embedstore.storage.recover import read_acknowledged
from embedstore.storage.space_files import unusable_space_files, wrong_space_files
from embedstore.storage.sql import column_types, fetch_value, first_line, first_row, row_hash
from embedstore.storage.storage import Storage
from embedstore.wording import counted

_CATALOG = "catalog.duckdb"


def verify(storage: Storage, *, progress: Callable[[CheckProgress], None] = lambda _: None) -> Verification:
    """Check the catalog, the commit counter, the vector files and the descriptions of the spaces.

    Args:
        storage: an open store. Writers may go on: one generation is checked.
        progress: called after every vector file.

    Returns:
        The report.
    """
    return Verification.from_findings(check_storage(storage, progress=progress), storage.notices)


def check_storage(storage: Storage, *, progress: Callable[[CheckProgress], None] = lambda _: None) -> Iterator[Finding]:
    """Yield what is found in the catalog, the commit counter, the vector files and the descriptions of the spaces.

    Args:
        storage: an open store.
        progress: called after every vector file.

    Yields:
        Damage, and counts of what was read.
    """
    findings, files = _check_catalog(storage)
    yield from findings
    total, done = sum(f.bytes for f in files), 0
    for f in files:
        yield from _check_shard(storage, f)
        done += f.bytes
        progress(CheckProgress("vectors", done, total))
    yield from _check_marker(storage.layout)
    yield from _check_space_files(storage)
    yield from _check_inboxes(storage.layout)
    yield from _check_quarantine(storage)


def check_tables(con: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Read every value of every table; DuckDB compares each block with its checksum on the way.

    Args:
        con: a connection with the catalog attached as ``cat``; not usable any more after a fatal error.

    Yields:
        Damage of a table, that it could not be read now, or the count of its rows.
    """
    for table in CATALOG_TABLES:
        try:
            columns = column_types(con, f'cat."{table}"')
            rows = first_row(con.execute(f'SELECT count(*), bit_xor({row_hash(columns)}) FROM cat."{table}"'))[0]
        except duckdb.CatalogException as e:
            if table not in LATER_TABLES:
                yield Damage(_CATALOG, f"table {table}", first_line(e))
        except duckdb.Error as e:
            unreadable = read_problem(e, Path(_CATALOG))
            yield _unread(_CATALOG, unreadable) if unreadable else Damage(_CATALOG, f"table {table}", first_line(e))
            if isinstance(e, duckdb.FatalException):
                return
        else:
            yield Checked(tables=1, rows=int(rows))


def misaligned_rows(catalog: Catalog, file: shard.Shard) -> int:
    """Return how many rows of a vector file hold another content than the catalog says."""
    with catalog.read() as con:
        return shards.misplaced_rows(con, file.header.space, file.header.number, file.contents)


def is_registered(catalog: Catalog, space: str, number: int) -> bool:
    """Return whether the catalog still names a vector file: no later file replaced it meanwhile."""
    with catalog.read() as con:
        return shards.has_shard(con, space, number)


def _check_catalog(storage: Storage) -> tuple[list[Finding], list[ShardRecord]]:
    """Check the tables in one read; return the findings and, where the tables are whole, the vector files."""
    findings: list[Finding] = []
    try:
        acknowledged = read_acknowledged(storage.layout)  # before the catalog: a writer may go on
        with storage.catalog.read() as con:
            findings += check_tables(con)
            if any(isinstance(f, Damage | Unread) for f in findings):
                return findings, []
            findings += _check_commit_counter(con, acknowledged)
            findings += _check_spaces(con)
            findings += _check_references(con)
            files = shards.all_shards(con)
    except StoreUnreadable as e:
        return [*findings, _unread(_CATALOG, e)], []
    except StoreDamaged as e:
        return [*findings, Damage(_CATALOG, "", _problem(e))], []
    return findings, files


def _check_commit_counter(con: duckdb.DuckDBPyConnection, acknowledged: int | None) -> Iterator[Damage]:
    """Check that the catalog has every commit that was acknowledged."""
    count = read_commit_count(con)
    if acknowledged is None and count:
        yield Damage(COMMIT_COUNTER, "", "it is missing, or neither of its records is whole")
    elif acknowledged is not None and acknowledged > count:
        yield Damage(_CATALOG, "", f"it is at commit {count}, but commit {acknowledged} was acknowledged")


def _check_spaces(con: duckdb.DuckDBPyConnection) -> Iterator[Damage]:
    """Check that the facts of every space give its key."""
    for key, name, dim, facts in con.execute("SELECT space, name, dim, facts FROM spaces").fetchall():
        try:
            space = Space.from_json(facts)
            wrong = space.key != key or space.dim != dim
        except (ValueError, KeyError, TypeError, RecursionError):
            wrong = True
        if wrong:
            yield Damage(_CATALOG, f"space {name}", "its facts do not give its key", "restore from a backup")


_REFERENCES = {
    ("items", "two items have the same uri"): "SELECT count(*) - count(DISTINCT uri) FROM items",
    ("items", "two items have the same id"): "SELECT count(*) - count(DISTINCT item) FROM items",
    ("items", "items name a content that is not known"): (
        "SELECT count(*) FROM items WHERE content NOT IN (SELECT content FROM contents)"
    ),
    ("vectors", "a content has two vectors in a space"): (
        "SELECT count(*) - count(DISTINCT (space, content)) FROM vectors"
    ),
    ("vectors", "rows name a vector file that is not known"): (
        "SELECT count(*) FROM vectors WHERE (space, shard) NOT IN (SELECT (space, shard) FROM shards)"
    ),
    ("vectors", "two contents share a row of a vector file"): (
        'SELECT count(*) - count(DISTINCT (space, shard, "row")) FROM vectors'
    ),
    ("shards", "a vector file is registered twice"): "SELECT count(*) - count(DISTINCT (space, shard)) FROM shards",
    ("counters", "the next ids are in use already"): (
        "SELECT count(*) FROM counters WHERE next_item <= (SELECT coalesce(max(item), 0) FROM items) "
        "OR next_shard <= (SELECT coalesce(max(shard), 0) FROM shards)"
    ),
    ("counters", "it does not have exactly one row"): "SELECT abs(count(*) - 1) FROM counters",
}


def _check_references(con: duckdb.DuckDBPyConnection) -> Iterator[Damage]:
    """Check that every row that another row names exists exactly once."""
    for (table, problem), query in _REFERENCES.items():
        count = fetch_value(con, query)
        if count:
            yield Damage(_CATALOG, f"table {table}", f"{problem} ({count:,})")


def _check_shard(storage: Storage, record: ShardRecord) -> Iterator[Finding]:
    """Compare one vector file with its checksums and with the catalog."""
    path = storage.layout.shard_file(record.space, record.number)
    name = str(path.relative_to(storage.layout.root))
    try:
        file = shard.Shard(path, in_memory=True)
        h = file.header
        if ShardRecord(h.space, h.number, h.rows, h.file_bytes, h.checksum) != record:
            yield Damage(name, "header", "it is another file than the one that was registered")
            return
        yield from _check_blocks(name, file)
        if wrong := misaligned_rows(storage.catalog, file):
            problem = f"{counted(wrong, 'row')} of {name} name another content than the file"
            yield Damage(_CATALOG, "table vectors", problem)
    except StoreUnreadable as e:
        yield _unread(name, e)
        return
    except StoreDamaged as e:
        if is_registered(storage.catalog, record.space, record.number):
            yield Damage(name, "", _problem(e))
        return
    yield Checked(shards=1, vectors=h.rows, bytes=h.file_bytes)


def _check_blocks(name: str, file: shard.Shard) -> Iterator[Damage]:
    """Compare every block with its checksum, and the whole file where no block is damaged."""
    bad = file.corrupt_rows()
    if len(bad):
        block_rows = file.header.block_rows or file.header.rows
        blocks = sorted({int(r) // block_rows for r in bad})
        listed = ", ".join(map(str, blocks[:10])) + (", …" if len(blocks) > 10 else "")
        yield Damage(name, f"block {listed}", f"{counted(len(bad), 'row')} do not match their checksum")
        return
    try:
        file.verify()
    except StoreDamaged as e:
        yield Damage(name, "header", _problem(e))


def _check_marker(at: Layout) -> Iterator[Finding]:
    """Check the file that says that the folder is a store."""
    try:
        if problem := marker_problem(at):
            yield Damage(MARKER, "", problem)
    except StoreUnreadable as e:
        yield _unread(MARKER, e)
    except StoreDamaged as e:
        yield Damage(MARKER, "", _problem(e))


def _check_space_files(storage: Storage) -> Iterator[Finding]:
    """Check the file ``space.json`` of every space, from which a lost catalog is rebuilt."""
    at = storage.layout
    try:
        try:
            with storage.catalog.read() as con:
                found = list(wrong_space_files(con, at))
        except StoreDamaged:
            found = list(unusable_space_files(at))
    except StoreUnreadable as e:
        yield _unread("space.json", e)
        return
    for path, problem in found:
        yield Damage(str(path.relative_to(at.root)), "", problem)


def _check_inboxes(at: Layout) -> Iterator[Finding]:
    """Check the plans of parts and the results that are waiting."""
    try:
        for found in check_inboxes(at):
            if isinstance(found, InboxProblem):
                yield Damage(str(found.path.relative_to(at.root)), "", found.problem, found.cure)
            else:
                yield Checked(sidecars=1)
    except StoreUnreadable as e:
        yield _unread("inbox", e)


def _check_quarantine(storage: Storage) -> Iterator[Finding]:
    """Check that no whole file in the quarantine has vectors that items lack."""
    try:
        for found in take_back.find_whole_shards(storage.layout, storage.catalog):
            name = str(found.file.path.relative_to(storage.layout.root))
            yield Damage(name, "", f"it is whole, and {len(found.rows):,} of its vectors are missing from the catalog")
    except StoreUnreadable as e:
        yield _unread(storage.layout.quarantine.name, e)
    except StoreDamaged:
        return  # of the catalog, which is a finding already


def _unread(name: str, error: StoreUnreadable) -> Unread:
    """Return the finding for a file that cannot be read now."""
    return Unread(name, _problem(error))


def _problem(error: Exception) -> str:
    """Return the message of an error without its cure."""
    return str(error).splitlines()[0].split("; run ")[0]

"""What has to be done: the scan of a source held against the catalog, in SQL, in bounded memory.

Nothing is read of any image here, and nothing is written to the store. The scan and the plan are tables of the
catalog's private connection; they spill to a temporary folder when they outgrow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import duckdb
import numpy as np

from embedstore.records import Failure, ImageRef
from embedstore.store.catalog import one
from embedstore.store.commit import raw_paths, strings
from embedstore.store.storage import SpaceRow, Storage

CHUNK = 8192  # references on their way into the scan table


@dataclass(frozen=True, slots=True)
class Todo:
    """One file to read. ``item`` is the id of the item that has this uri already, or None."""

    ref: ImageRef
    item: int | None


@dataclass(frozen=True)
class Plan:
    """What a scan found, in numbers; the rows are read with :func:`todo` and the sets are tables.

    Attributes:
        found: references and failures of the scan. unreadable: failures the scan itself met.
        todo: files to read. unchanged: files whose size and mtime are as before, with a vector in this space.
        known_failures: failed before and have not changed since.
        gone: items below the source's roots that are not there any more (or have another name).
    """

    found: int
    todo: int
    unchanged: int
    known_failures: int
    gone: int
    unreadable: list[tuple[Failure, int | None]]


def make(
    storage: Storage, space: SpaceRow, scan: Iterable[ImageRef | Failure], *, roots: Sequence[str], decoder: str
) -> Plan:
    """Hold a scan against the catalog.

    Args:
        storage, space: where the vectors are to be.
        scan: what the source finds, read once, in chunks.
        roots: folders that the scan covers completely.
        decoder: its version; failures of another version are tried again.
    """
    con = storage.catalog.scratch
    failures = _stage(con, scan)
    found = one(con.execute("SELECT count(*) FROM memory.main.scan"))[0]
    with storage.catalog.read() as con:
        con.execute(_JOINED, {"space": space.key, "decoder": decoder})
        con.execute(_KNOWN, {"space": space.key})
        unseen = [f.uri.rstrip("/") + "/" for f in failures]  # a folder that cannot be read says nothing of its files
        con.execute(_GONE, {"roots": [r.rstrip("/") + "/" for r in roots], "unseen": unseen})
        unreadable = _with_items(con, list(failures), decoder)
        con.execute("DROP TABLE memory.main.scan")
    numbers = dict(con.execute("SELECT state, count(*) FROM memory.main.joined GROUP BY state").fetchall())
    con.execute(_TODO)
    gone = one(con.execute("SELECT count(*) FROM memory.main.gone"))[0]
    return Plan(
        found=found + len(failures),
        todo=numbers.get("todo", 0),
        unchanged=numbers.get("same", 0),
        known_failures=numbers.get("failed", 0) + len(failures) - len(unreadable),
        gone=gone,
        unreadable=unreadable,
    )


def todo(con: duckdb.DuckDBPyConnection, rows: int) -> Iterator[list[Todo]]:
    """The files to read, in the order of the scan, in chunks of at most ``rows``.

    Args:
        con: a cursor of the catalog's private connection, used by one thread.
        rows: of a chunk.
    """
    first = 0
    while True:
        chunk = con.execute(
            "SELECT uri, path, size, mtime_ns, label, split, group_id, item FROM memory.main.todo "
            "WHERE n >= ? AND n < ? ORDER BY n",
            [first, first + rows],
        ).fetchall()
        if not chunk:
            return
        yield [_todo(*row) for row in chunk]
        first += rows


def _todo(
    uri: str, path: bytes | None, size: int, mtime_ns: int, label: Any, split: Any, group: Any, item: Any
) -> Todo:
    """One row of the plan."""
    name = uri if path is None else path.decode("utf-8", "surrogateescape")
    return Todo(ImageRef(uri, name, size, mtime_ns, label, split, group), item)


def _stage(con: duckdb.DuckDBPyConnection, scan: Iterable[ImageRef | Failure]) -> list[Failure]:
    """Fill the table ``scan``; the scan's own failures are few and come back."""
    con.execute(_SCAN)
    failures: list[Failure] = []
    source, position = iter(scan), 0
    while chunk := list(islice(source, CHUNK)):
        refs = [r for r in chunk if isinstance(r, ImageRef)]
        failures += [f for f in chunk if isinstance(f, Failure)]
        rows = {  # noqa: F841 - read by SQL
            "n": np.arange(position, position + len(refs), dtype=np.int64),
            "uri": strings([r.uri for r in refs]),
            "path": raw_paths([(r.uri, r.path) for r in refs]),
            "size": np.array([r.size for r in refs], dtype=np.int64),
            "mtime_ns": np.array([r.mtime_ns for r in refs], dtype=np.int64),
            "label": strings([r.label for r in refs]),
            "split": strings([r.split for r in refs]),
            "group": strings([r.group for r in refs]),
        }
        con.execute(
            "INSERT INTO memory.main.scan SELECT n, uri::VARCHAR, path::BLOB, size, mtime_ns, "
            'label::VARCHAR, split::VARCHAR, "group"::VARCHAR FROM rows'
        )
        position += len(refs)
    return failures


def _with_items(
    con: duckdb.DuckDBPyConnection, failures: list[Failure], decoder: str
) -> list[tuple[Failure, int | None]]:
    """The scan's own failures that the catalog does not hold yet, each with its item."""
    fresh = []
    for f in failures:
        same = con.execute(
            "SELECT 1 FROM failures WHERE uri = ? AND size = ? AND mtime_ns = ? AND decoder = ? AND reason = ?",
            [f.uri, f.size, f.mtime_ns, decoder, f.reason.value],
        ).fetchone()
        if not same:
            item = con.execute("SELECT item FROM items WHERE uri = ?", [f.uri]).fetchone()
            fresh.append((f, item[0] if item else None))
    return fresh


_SCAN = """
CREATE OR REPLACE TABLE memory.main.scan (
    n BIGINT, uri VARCHAR, path BLOB, size BIGINT, mtime_ns BIGINT, label VARCHAR, split VARCHAR, group_id VARCHAR)
"""

# A file is the same when its size and mtime are, and it counts as done when its content has a vector in the space.
_JOINED = """
CREATE OR REPLACE TABLE memory.main.joined AS
SELECT s.*, i.item, i.present,
    CASE WHEN f.uri IS NOT NULL THEN 'failed'
         WHEN i.size = s.size AND i.mtime_ns = s.mtime_ns AND v.content IS NOT NULL THEN 'same'
         ELSE 'todo' END AS state
FROM memory.main.scan s
LEFT JOIN items i ON i.uri = s.uri
LEFT JOIN (SELECT DISTINCT content FROM vectors WHERE space = $space) v ON v.content = i.content
LEFT JOIN (SELECT DISTINCT uri, size, mtime_ns FROM failures WHERE decoder = $decoder
           AND (space IS NULL OR space = $space)) f
    ON f.uri = s.uri AND f.size = s.size AND f.mtime_ns = s.mtime_ns
ORDER BY s.n
"""

_KNOWN = """
CREATE OR REPLACE TABLE memory.main.known AS SELECT DISTINCT content FROM vectors WHERE space = $space
"""

_GONE = """
CREATE OR REPLACE TABLE memory.main.gone AS
SELECT item, content FROM items i
WHERE len(list_filter($roots, lambda r: starts_with(i.uri, r))) > 0
  AND len(list_filter($unseen, lambda r: starts_with(i.uri, r))) = 0
  AND NOT EXISTS (SELECT 1 FROM memory.main.scan s WHERE s.uri = i.uri)
ORDER BY item
"""

_TODO = """
CREATE OR REPLACE TABLE memory.main.todo AS
SELECT row_number() OVER (ORDER BY n) - 1 AS n, uri, path, size, mtime_ns, label, split, group_id, item
FROM memory.main.joined WHERE state = 'todo' ORDER BY n;
"""

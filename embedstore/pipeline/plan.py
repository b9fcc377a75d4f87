"""What has to be done: the scan of a source held against the catalog, in SQL, in bounded memory.

Nothing is read of any image here, and nothing is written to the store. The scan and the plan are tables of the
catalog's private connection; they spill to a temporary folder when they outgrow it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import duckdb
import numpy as np

from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import decode_path, encode_paths, first_row, object_array
from embedstore.storage.storage import Storage
from embedstore.types import Failure, ImageRef

CHUNK_ROWS = 32768  # references held against the catalog at once: about 15 MB, and one pass over the items' names


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file to read. ``item`` is the id of the item that has this uri already, or None."""

    ref: ImageRef
    item: int | None


@dataclass(frozen=True)
class EmbedPlan:
    """What a scan found, in numbers; the rows are read with :func:`todo` and the sets are tables.

    Attributes:
        found: references and failures of the scan. unreadable: failures the scan itself met.
        todo: files to read. unchanged: files whose size and mtime are as before, with a vector in this space.
        known_failures: failed before and have not changed since.
        gone: items below the source's roots that are not there any more (or have another name).
    """

    scanned_count: int
    todo: int
    unchanged_count: int
    known_failures: int
    gone: int
    unreadable: list[tuple[Failure, int | None]]


def build_plan(
    storage: Storage,
    space: SpaceRecord,
    scan: Iterable[ImageRef | Failure],
    *,
    roots: Sequence[str],
    decoder_version: str,
) -> EmbedPlan:
    """Hold a scan against the catalog, chunk by chunk; memory is that of a chunk and of what has to be done.

    Args:
        storage, space: where the vectors are to be.
        scan: what the source finds, read once.
        roots: folders that the scan covers completely.
        decoder: its version; failures of another version are tried again.
    """
    counts: Counter[str] = Counter()
    failures: list[Failure] = []
    source = iter(scan)
    with storage.catalog.read() as con:
        con.execute(_TABLES)
        while chunk := list(islice(source, CHUNK_ROWS)):
            failures += [f for f in chunk if isinstance(f, Failure)]
            counts += _hold(
                con, [r for r in chunk if isinstance(r, ImageRef)], space.key, decoder_version, counts["todo"]
            )
        unseen = [f.uri.rstrip("/") + "/" for f in failures]  # a folder that cannot be read says nothing of its files
        con.execute(_GONE, {"roots": [r.rstrip("/") + "/" for r in roots], "unseen": unseen})
        if counts["todo"]:
            con.execute(_KNOWN, {"space": space.key})
        unreadable = _with_items(con, failures, decoder_version)
        gone = first_row(con.execute("SELECT count(*) FROM memory.main.gone"))[0]
    return EmbedPlan(
        scanned_count=counts.total() + len(failures),
        todo=counts["todo"],
        unchanged_count=counts["same"],
        known_failures=counts["failed"] + len(failures) - len(unreadable),
        gone=gone,
        unreadable=unreadable,
    )


def read_planned_files(con: duckdb.DuckDBPyConnection, chunk_rows: int) -> Iterator[list[PlannedFile]]:
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
            [first, first + chunk_rows],
        ).fetchall()
        if not chunk:
            return
        yield [_todo(*row) for row in chunk]
        first += chunk_rows


def _todo(
    uri: str, path: bytes | None, size: int, mtime_ns: int, label: Any, split: Any, group: Any, item: Any
) -> PlannedFile:
    """One row of the plan."""
    name = decode_path(uri, path)
    return PlannedFile(ImageRef(uri, name, size, mtime_ns, label, split, group), item)


def _hold(con: duckdb.DuckDBPyConnection, refs: list[ImageRef], space: str, decoder: str, before: int) -> Counter[str]:
    """Decide one chunk: how many references are to do, the same, or known to fail.

    Args:
        before: references to do in earlier chunks, for the numbering.
    """
    rows = {  # noqa: F841 - read by SQL
        "n": np.arange(len(refs), dtype=np.int64),
        "uri": object_array([r.uri for r in refs]),
        "path": encode_paths([(r.uri, r.path) for r in refs]),
        "size": np.array([r.size for r in refs], dtype=np.int64),
        "mtime_ns": np.array([r.mtime_ns for r in refs], dtype=np.int64),
        "label": object_array([r.label for r in refs]),
        "split": object_array([r.split for r in refs]),
        "group": object_array([r.group for r in refs]),
    }
    if not refs:
        return Counter()
    con.execute(_SCAN)
    con.execute(_MATCHED)
    con.execute(_JUDGED, {"space": space, "decoder": decoder})
    con.execute(_TODO, {"before": before})
    con.execute(_SEEN)
    return Counter(dict(con.execute("SELECT state, count(*) FROM memory.main.judged GROUP BY state").fetchall()))


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


_TABLES = """
CREATE OR REPLACE TABLE memory.main.todo (
    n BIGINT, uri VARCHAR, path BLOB, size BIGINT, mtime_ns BIGINT, label VARCHAR, split VARCHAR, group_id VARCHAR,
    item BIGINT);
CREATE OR REPLACE TABLE memory.main.seen (item BIGINT);
CREATE OR REPLACE TABLE memory.main.standing (item BIGINT, label VARCHAR, split VARCHAR, group_id VARCHAR);
CREATE OR REPLACE TABLE memory.main.known (content UUID);
"""

_SCAN = """
CREATE OR REPLACE TABLE memory.main.scan AS
SELECT n, uri::VARCHAR AS uri, path::BLOB AS path, size, mtime_ns, label::VARCHAR AS label, split::VARCHAR AS split,
       "group"::VARCHAR AS group_id FROM rows
"""

_MATCHED = """
CREATE OR REPLACE TABLE memory.main.matched AS
SELECT s.n, i.item, i.content, i.present,
       i.size = s.size AND i.mtime_ns = s.mtime_ns AS same,
       i.label IS DISTINCT FROM s.label OR i.split IS DISTINCT FROM s.split
           OR i.group_id IS DISTINCT FROM s.group_id AS differs
FROM memory.main.scan s JOIN items i ON i.uri = s.uri
"""

# A file is the same when its size and mtime are, and it counts as done when its content has a vector in the space.
_JUDGED = """
CREATE OR REPLACE TABLE memory.main.judged AS
SELECT s.n, m.item, m.present, m.differs,
    CASE WHEN f.n IS NOT NULL THEN 'failed'
         WHEN m.same AND v.content IS NOT NULL THEN 'same'
         ELSE 'todo' END AS state
FROM memory.main.scan s
LEFT JOIN memory.main.matched m USING (n)
LEFT JOIN (SELECT DISTINCT w.content FROM memory.main.matched w JOIN vectors x
           ON x.content = w.content AND x.space = $space) v ON v.content = m.content
LEFT JOIN (SELECT DISTINCT t.n FROM memory.main.scan t JOIN failures g
           ON g.uri = t.uri AND g.size = t.size AND g.mtime_ns = t.mtime_ns AND g.decoder = $decoder
           AND (g.space IS NULL OR g.space = $space)) f ON f.n = s.n
"""

_TODO = """
INSERT INTO memory.main.todo
SELECT $before + row_number() OVER (ORDER BY n) - 1, uri, path, size, mtime_ns, label, split, group_id, item
FROM memory.main.scan JOIN memory.main.judged USING (n) WHERE state = 'todo' ORDER BY n
"""

# What stands, but is to be found again or described otherwise; the runner applies it.
_SEEN = """
INSERT INTO memory.main.seen SELECT item FROM memory.main.judged WHERE item IS NOT NULL;
INSERT INTO memory.main.standing SELECT item, label, split, group_id
FROM memory.main.scan JOIN memory.main.judged USING (n)
WHERE item IS NOT NULL AND state <> 'failed' AND (differs OR NOT present)
"""

_KNOWN = "INSERT INTO memory.main.known SELECT DISTINCT content FROM vectors WHERE space = $space"

_GONE = """
CREATE OR REPLACE TABLE memory.main.gone AS
SELECT item, content FROM items i
WHERE len(list_filter($roots, lambda r: starts_with(i.uri, r))) > 0
  AND len(list_filter($unseen, lambda r: starts_with(i.uri, r))) = 0
  AND item NOT IN (SELECT item FROM memory.main.seen)
ORDER BY item
"""

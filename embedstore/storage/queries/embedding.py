"""The tables of an embedding plan: a scan of a source compared with the catalog.

They are tables of the catalog's private connection (schema ``memory.main``), so they can be joined with the catalog and
spill to a temporary folder when they outgrow memory. No other module knows their names.

- ``todo``: the files to read, numbered in the order of the scan, or in another one.
- ``seen``: the items that the scan found.
- ``changed``: items that the scan found absent from the catalog's present items, or with another label, split or group.
- ``missing``: the items below the source's folders that the scan did not find.
- ``scan_failures``: what the scan could not use, and whether the catalog holds that failure already.
- ``scan``, ``compared``: the chunk that is being compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.modality import Modality
from embedstore.storage.column_names import STORED_ROLES
from embedstore.storage.commit import FailureRow
from embedstore.storage.queries.computed_columns import clear_orphaned_marks
from embedstore.storage.queries.modalities import of_modality
from embedstore.storage.sql import content_hex, decode_path, encode_paths, fetch_value, object_array
from embedstore.types import Failure, FailureReason, ImageRef

FETCH_ROWS = 65536  # rows of a result in memory at once, as Python objects
_NUMBER = "[-0-9.]+"
# A row of a table, or a part of a file, is no file of its folder: FILE.suffix#name=…
_IS_PART = (
    "(regexp_matches(i.uri, '[.][A-Za-z0-9]+#[A-Za-z_]+=') OR regexp_matches(i.uri, "
    f"'#(xywh=(pixel:|percent:)?{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}|page=[0-9]+|t=[0-9.]+)$'))"
)
_IN_SOURCE = f"""
CASE WHEN {_IS_PART}
     THEN len(list_filter($tables::VARCHAR[][], lambda t: starts_with(i.uri, t[1]) AND contains(i.uri, t[2]))) > 0
     ELSE len(list_filter($roots, lambda r: starts_with(i.uri, r))) > 0
         OR len(list_filter($archives, lambda a: ends_with(i.uri, a))) > 0 END"""
_BELOW_FAILED = """EXISTS (
    SELECT 1 FROM memory.main.scan_failures f
    WHERE starts_with(m.uri, rtrim(f.uri, '/') || '/') OR ends_with(m.uri, '::' || f.uri)
          OR starts_with(m.uri, f.uri || '#'))"""
TABLES = ("todo", "seen", "failed", "changed", "missing", "gone_failures", "scan_failures", "scan", "compared")


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Create the empty tables of a new plan."""
    con.execute("""
        CREATE OR REPLACE TABLE memory.main.todo (
            n BIGINT, uri VARCHAR, path BLOB, size BIGINT, mtime_ns BIGINT, label VARCHAR, split VARCHAR,
            group_id VARCHAR, item BIGINT);
        CREATE OR REPLACE TABLE memory.main.seen (item BIGINT);
        CREATE OR REPLACE TABLE memory.main.failed (uri VARCHAR);
        CREATE OR REPLACE TABLE memory.main.changed (item BIGINT, label VARCHAR, split VARCHAR, group_id VARCHAR);
        CREATE OR REPLACE TABLE memory.main.scan_failures (
            n BIGINT, uri VARCHAR, path BLOB, size BIGINT, mtime_ns BIGINT, reason VARCHAR, detail VARCHAR,
            item BIGINT, known BOOLEAN);
    """)


def drop_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Free the memory of a plan."""
    for table in TABLES:
        con.execute(f"DROP TABLE IF EXISTS memory.main.{table}")


def compare_refs(
    con: duckdb.DuckDBPyConnection, refs: Sequence[ImageRef], *, space: str, decoder: str, first: int
) -> dict[str, int]:
    """Compare one chunk of a scan with the catalog, and add it to the plan.

    A file is unchanged when its size and mtime are; it needs no work when its content has a vector in the space. What
    the name of a folder or file says of an item that exists does not replace what is stored.

    Args:
        con: a connection on which the catalog can be read.
        refs: the chunk, in the order of the scan.
        space: key of the space that is filled.
        decoder: failures of another decoder version are tried again.
        first: the number of the chunk's first file in ``todo``.

    Returns:
        How many files are ``todo``, ``unchanged`` and ``failed`` (before, and unchanged since).
    """
    rows = _file_columns(refs) | {  # noqa: F841 - read by SQL
        "n": np.arange(len(refs), dtype=np.int64),
        "label": object_array([r.label for r in refs]),
        "split": object_array([r.split for r in refs]),
        "grp": object_array([r.group for r in refs]),
        "label_is_name": np.array(["label" in r.named_roles for r in refs], dtype=bool),
        "split_is_name": np.array(["split" in r.named_roles for r in refs], dtype=bool),
    }
    con.execute("""
        CREATE OR REPLACE TABLE memory.main.scan AS
        SELECT n, uri::VARCHAR AS uri, path::BLOB AS path, size, mtime_ns, label::VARCHAR AS label,
               split::VARCHAR AS split, grp::VARCHAR AS group_id, label_is_name, split_is_name
        FROM rows
    """)
    con.execute(_COMPARE, {"space": space, "decoder": decoder})
    con.execute(
        """
        INSERT INTO memory.main.todo
        SELECT ? + row_number() OVER (ORDER BY n) - 1, s.uri, s.path, s.size, s.mtime_ns, c.label, c.split, s.group_id,
               c.item
        FROM memory.main.scan s JOIN memory.main.compared c USING (n) WHERE state = 'todo' ORDER BY n
        """,
        [first],
    )
    con.execute("""
        INSERT INTO memory.main.seen SELECT item FROM memory.main.compared WHERE item IS NOT NULL;
        INSERT INTO memory.main.failed
        SELECT uri FROM memory.main.scan s JOIN memory.main.compared c USING (n) WHERE state = 'failed';
        INSERT INTO memory.main.changed
        SELECT item, c.label, c.split, s.group_id FROM memory.main.scan s JOIN memory.main.compared c USING (n)
        WHERE item IS NOT NULL AND state <> 'failed' AND (differs OR NOT present)
    """)
    return dict(con.execute("SELECT state, count(*) FROM memory.main.compared GROUP BY state").fetchall())


def add_scan_failures(
    con: duckdb.DuckDBPyConnection, failures: Sequence[Failure], *, decoder: str, first: int
) -> tuple[int, int]:
    """Add the failures of one chunk of a scan, numbered from ``first``.

    Returns:
        How many the catalog does not hold yet, and how many it holds.
    """
    rows = _file_columns(failures) | {  # noqa: F841 - read by SQL
        "n": np.arange(first, first + len(failures), dtype=np.int64),
        "reason": object_array([f.reason.value for f in failures]),
        "detail": object_array([f.detail for f in failures]),
    }
    con.execute(
        """
        INSERT INTO memory.main.scan_failures
        SELECT r.n, r.uri, r.path::BLOB, r.size, r.mtime_ns, r.reason, r.detail, i.item,
               (r.uri, r.size, r.mtime_ns, r.reason) IN
                   (SELECT (uri, size, mtime_ns, reason) FROM failures WHERE decoder = ?)
        FROM rows r LEFT JOIN items i ON i.uri = r.uri
        """,
        [decoder],
    )
    known = fetch_value(con, "SELECT count(*) FROM memory.main.scan_failures WHERE known AND n >= ?", [first])
    return len(failures) - known, known


def find_missing_items(
    con: duckdb.DuckDBPyConnection,
    roots: Sequence[str],
    archives: Sequence[str],
    tables: Sequence[tuple[str, str]],
    *,
    modality: Modality,
    decoder: str,
) -> None:
    """Collect the items and the failures below ``roots``, in the archives and in the tables that the scan did not find.

    Those of another modality are left out: a scan for texts does not look for images.

    Items below a path that failed are left out: a folder, archive or table that cannot be read says nothing of its
    items. A row of a table or a part of a file is not a file of its folder.

    Args:
        con: a connection on which the catalog can be read.
        roots: the folders.
        archives: the archives.
        tables: what the uris of rows begin with, and what they contain.
        modality: what the scan looked for.
        decoder: the version of the decoder of this modality, whose failures are looked at.
    """
    scope = {
        "roots": [r.rstrip("/") + "/" for r in roots],
        "archives": [f"::{a}" for a in archives],
        "tables": [list(table) for table in tables],
    }
    con.execute(
        f"""
        CREATE OR REPLACE TABLE memory.main.missing AS
        SELECT item, content, uri FROM items i
        WHERE {_IN_SOURCE} AND item NOT IN (SELECT item FROM memory.main.seen)
          AND {of_modality("content", modality)}
        ORDER BY item
        """,
        scope,
    )
    con.execute(
        f"""
        CREATE OR REPLACE TABLE memory.main.gone_failures AS
        SELECT uri FROM failures i
        WHERE {_IN_SOURCE} AND decoder = $decoder
          AND uri NOT IN (SELECT uri FROM memory.main.failed UNION ALL SELECT uri FROM memory.main.scan_failures
                          UNION ALL SELECT uri FROM memory.main.todo)
        """,
        scope | {"decoder": decoder},
    )
    for table in ("missing", "gone_failures"):
        con.execute(f"DELETE FROM memory.main.{table} m WHERE {_BELOW_FAILED}")


def known_contents(con: duckdb.DuckDBPyConnection, space: str) -> NDArray[np.bytes_]:
    """Return the contents that have a vector in the space, ``S16``, ascending."""
    con.execute(f"SELECT DISTINCT {_packed('content')} FROM vectors WHERE space = ?", [space])
    packed = bytearray()
    while rows := con.fetchmany(FETCH_ROWS):
        packed += b"".join(content for (content,) in rows)
    return np.sort(np.frombuffer(packed, "S16"))


def todo_files(con: duckdb.DuckDBPyConnection, first: int, count: int) -> list[tuple[ImageRef, int | None]]:
    """Return the files to read with numbers from ``first``, each with the id of the item that has its uri."""
    rows = con.execute(
        "SELECT uri, path, size, mtime_ns, label, split, group_id, item FROM memory.main.todo "
        "WHERE n >= ? AND n < ? ORDER BY n",
        [first, first + count],
    ).fetchall()
    return [(ImageRef(row[0], decode_path(row[0], row[1]), *row[2:7]), row[7]) for row in rows]


def spread_todo(con: duckdb.DuckDBPyConnection) -> None:
    """Number the files to read anew: one file of every folder in turn, and within a folder from all times.

    The files of a folder are sorted by time, and taken at multiples of the golden ratio, so that the first ones of any
    number are about evenly distributed over them (three-distance theorem, Sos 1958). The folders are taken so, too.
    """
    con.execute("""
        CREATE OR REPLACE TEMP TABLE embedstore_order AS
        WITH by_time AS (
            SELECT n, regexp_replace(uri, '/[^/]*$', '') AS folder,
                row_number() OVER (PARTITION BY regexp_replace(uri, '/[^/]*$', '') ORDER BY mtime_ns, uri, n) - 1 AS k
            FROM memory.main.todo
        ), turns AS (
            SELECT n, dense_rank() OVER (ORDER BY folder) - 1 AS f,
                row_number() OVER (PARTITION BY folder ORDER BY (k * 0.6180339887498949) % 1, k) AS turn
            FROM by_time
        )
        SELECT n, row_number() OVER (ORDER BY turn, (f * 0.6180339887498949) % 1, f) - 1 AS place FROM turns""")
    con.execute("UPDATE memory.main.todo SET n = o.place FROM embedstore_order o WHERE o.n = todo.n")
    con.execute("DROP TABLE embedstore_order")


def new_scan_failures(con: duckdb.DuckDBPyConnection, first: int, count: int) -> list[FailureRow]:
    """Return the failures with numbers from ``first`` that the catalog does not hold, each with its item."""
    rows = con.execute(
        "SELECT uri, path, size, mtime_ns, reason, detail, item FROM memory.main.scan_failures "
        "WHERE NOT known AND n >= ? AND n < ? ORDER BY n",
        [first, first + count],
    ).fetchall()
    return [
        FailureRow(Failure(uri, decode_path(uri, path), size, mtime_ns, FailureReason(reason), detail), item)
        for uri, path, size, mtime_ns, reason, detail, item in rows
    ]


def missing_contents(con: duckdb.DuckDBPyConnection) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Return the contents of the missing items, ``S16``, and the items, ascending by content and item."""
    con.execute(f"SELECT {_packed('content')}, item FROM memory.main.missing WHERE content IS NOT NULL ORDER BY item")
    packed, items = bytearray(), array("q")
    while rows := con.fetchmany(FETCH_ROWS):
        packed += b"".join(content for content, _ in rows)
        items.extend(item for _, item in rows)
    contents = np.frombuffer(packed, "S16")
    order = np.argsort(contents, kind="stable")
    return contents[order], np.frombuffer(items, np.int64)[order]


def missing_items_by_content(con: duckdb.DuckDBPyConnection, digests: Sequence[str]) -> dict[str, list[int]]:
    """Return the missing items that have one of the contents, the latest first."""
    rows = {"content": object_array(digests)}  # noqa: F841 - read by SQL
    found = con.execute(
        "SELECT content::VARCHAR, item FROM memory.main.missing "
        "WHERE content IN (SELECT content::UUID FROM rows) ORDER BY item DESC"
    ).fetchall()
    items: dict[str, list[int]] = {}
    for content, item in found:
        items.setdefault(content_hex(content), []).append(item)
    return items


def remove_missing_items(con: duckdb.DuckDBPyConnection, items: Sequence[int]) -> None:
    """Take items out of the missing ones: their files were found under other names."""
    rows = {"item": np.array(items, dtype=np.int64)}  # noqa: F841 - read by SQL
    con.execute("DELETE FROM memory.main.missing WHERE item IN (SELECT item FROM rows)")


def missing_count(con: duckdb.DuckDBPyConnection) -> int:
    """Return how many items are missing."""
    return int(fetch_value(con, "SELECT count(*) FROM memory.main.missing"))


def update_metadata(con: duckdb.DuckDBPyConnection, stated: Collection[str]) -> int:
    """Give the items that the scan found its label, split and group; a value it does not state stays as it is.

    Args:
        con: a transaction.
        stated: which of ``label``, ``split`` and ``group`` the source has a column for.

    Returns:
        How many stored values stay although the source has a column for them: its cells are empty.
    """
    columns = [STORED_ROLES.get(role, role) for role in ("label", "split", "group") if role in stated]
    kept = " + ".join(f"count(*) FILTER (c.{n} IS NULL AND items.{n} IS NOT NULL)" for n in columns)
    count = fetch_value(con, f"SELECT {kept} FROM items JOIN memory.main.changed c USING (item)") if columns else 0
    con.execute("""
        UPDATE items SET label = coalesce(c.label, items.label), split = coalesce(c.split, items.split),
                         group_id = coalesce(c.group_id, items.group_id)
        FROM memory.main.changed c
        WHERE items.item = c.item AND (items.label IS DISTINCT FROM c.label OR items.split IS DISTINCT FROM c.split
                                       OR items.group_id IS DISTINCT FROM c.group_id)
    """)
    return int(count)


def mark_present(con: duckdb.DuckDBPyConnection) -> None:
    """Mark the items present whose files the scan found again."""
    con.execute("UPDATE items SET present = true WHERE NOT present AND item IN (SELECT item FROM memory.main.changed)")


def forget_gone_failures(con: duckdb.DuckDBPyConnection) -> None:
    """Delete the failures of files that are gone."""
    con.execute("DELETE FROM failures WHERE uri IN (SELECT uri FROM memory.main.gone_failures)")


def mark_missing(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Mark the missing items as not present.

    Returns:
        Which marks of duplicates were cleared because of that, one sentence each.
    """
    con.execute("UPDATE items SET present = false WHERE present AND item IN (SELECT item FROM memory.main.missing)")
    return clear_orphaned_marks(con)


def _packed(column: str) -> str:
    """Return SQL for the 16 bytes of a UUID."""
    return f"unhex(replace({column}::VARCHAR, '-', ''))"


def _file_columns(files: Sequence[ImageRef] | Sequence[Failure]) -> dict[str, NDArray[Any]]:
    """Return the columns that references and failures have in common."""
    return {
        "uri": object_array([f.uri for f in files]),
        "path": encode_paths([(f.uri, f.path) for f in files]),
        "size": np.array([f.size for f in files], dtype=np.int64),
        "mtime_ns": np.array([f.mtime_ns for f in files], dtype=np.int64),
    }


_COMPARE = """
CREATE OR REPLACE TABLE memory.main.compared AS
WITH matched AS MATERIALIZED (
    SELECT s.n, i.item, i.content, i.present, i.size = s.size AND i.mtime_ns = s.mtime_ns AS same,
           i.label, i.split,
           i.label IS DISTINCT FROM s.label OR i.split IS DISTINCT FROM s.split
               OR i.group_id IS DISTINCT FROM s.group_id AS differs
    FROM memory.main.scan s JOIN items i ON i.uri = s.uri
)
SELECT s.n, m.item, m.present, m.differs,
    CASE WHEN s.label_is_name AND m.item IS NOT NULL THEN m.label ELSE s.label END AS label,
    CASE WHEN s.split_is_name AND m.item IS NOT NULL THEN m.split ELSE s.split END AS split,
    CASE WHEN f.n IS NOT NULL THEN 'failed'
         WHEN m.same AND v.content IS NOT NULL THEN 'unchanged'
         ELSE 'todo' END AS state
FROM memory.main.scan s
LEFT JOIN matched m USING (n)
LEFT JOIN (SELECT DISTINCT w.content FROM matched w JOIN vectors x
           ON x.content = w.content AND x.space = $space) v ON v.content = m.content
LEFT JOIN (SELECT DISTINCT t.n FROM memory.main.scan t JOIN failures g
           ON g.uri = t.uri AND g.size = t.size AND g.mtime_ns = t.mtime_ns AND g.decoder = $decoder
           AND g.reason NOT IN ('unreachable', 'unreadable') AND (g.space IS NULL OR g.space = $space)) f ON f.n = s.n
"""

"""One commit: vectors to the disk first, then one catalog transaction that makes them count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage import shard
from embedstore.storage.sql import encode_paths, first_row, object_array, quote_identifier, utc_now
from embedstore.types import Failure, ImageInfo, ImageRef

FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item to write: a new one where ``item`` is None, else the existing one with new facts."""

    ref: ImageRef
    content: str
    item: int | None = None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One failure to write; an existing item whose file can no longer be read is no longer ``present``."""

    failure: Failure
    item: int | None = None


@dataclass
class CommitBatch:
    """What one commit makes durable.

    Attributes:
        items, failures: in the order in which they get their ids.
        pictures: what is known of contents seen for the first time: digest -> (bytes, picture).
        digests, vectors: new vectors: ``len(digests)`` contents and arrays that stack to ``(len(digests), dim)``.
    """

    items: list[ItemRow] = field(default_factory=list)
    failures: list[FailureRow] = field(default_factory=list)
    image_info: dict[str, tuple[int, ImageInfo | None]] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.items or self.failures or self.digests)


def storable_rows(vectors: NDArray[np.float32], dtype: str) -> NDArray[np.bool_]:
    """Which rows can be stored: finite, not zero, and within the range of ``dtype``. bool ``(n,)``."""
    limit = FLOAT16_MAX if dtype == "float16" else np.inf
    largest = np.abs(vectors).max(axis=1, initial=0.0)  # NaN stays NaN, and NaN compares false
    good: NDArray[np.bool_] = (largest > 0) & (largest < np.inf) & (largest <= limit)
    if dtype == "float16":
        with np.errstate(over="ignore", invalid="ignore"):
            good &= vectors.astype(np.float16).any(axis=1)  # 1e-9 becomes 0
    return good


def insert_vectors(con: duckdb.DuckDBPyConnection, header: shard.ShardHeader, digests: Sequence[str]) -> None:
    """The rows of one shard."""
    rows = {"content": object_array(digests), "n": np.arange(len(digests), dtype=np.int32)}  # noqa: F841 - read by SQL
    con.execute("INSERT INTO vectors SELECT ?, content::UUID, ?, n FROM rows", [header.space, header.number])
    con.execute(
        "INSERT INTO shards VALUES (?, ?, ?, ?, ?, ?)",
        [header.space, header.number, header.rows, header.file_bytes, header.checksum, utc_now()],
    )


def insert_contents(con: duckdb.DuckDBPyConnection, image_info: dict[str, tuple[int, ImageInfo | None]]) -> None:
    """Facts about contents that the catalog does not have yet."""
    if not image_info:
        return
    seen = [p for _, p in image_info.values()]
    rows = {  # noqa: F841 - read by SQL
        "content": object_array(list(image_info)),
        "bytes": np.array([b for b, _ in image_info.values()], dtype=np.int64),
        "width": object_array([p and p.width for p in seen]),
        "height": object_array([p and p.height for p in seen]),
        "format": object_array([p.format if p else None for p in seen]),
    }
    con.execute(
        "INSERT INTO contents SELECT content::UUID, bytes, width::INTEGER, height::INTEGER, format::VARCHAR FROM rows "
        "WHERE content::UUID NOT IN (SELECT content FROM contents)"
    )


def upsert_items(con: duckdb.DuckDBPyConnection, items: Sequence[ItemRow], attributes: Path | None) -> None:
    """New items in the given order; existing ones get what the source says now.

    Args:
        con: a write transaction.
        items: the rows.
        attributes: Parquet of ``uri`` and the user's own columns, or None.
    """
    new = [r for r in items if r.item is None]
    old = [r for r in items if r.item is not None]
    if new:
        first = first_row(con.execute("SELECT next_item FROM counters"))[0]
        rows = _columns(new, np.arange(first, first + len(new), dtype=np.int64))
        extra = ", a.* EXCLUDE (uri)" if attributes else ""
        join = "LEFT JOIN read_parquet($attributes) a USING (uri)" if attributes else ""
        con.execute(
            f"INSERT INTO items BY NAME SELECT {_FACTS}{extra} FROM rows r {join} ORDER BY r.item",
            {"now": utc_now()} | ({"attributes": str(attributes)} if attributes else {}),
        )
        con.execute("UPDATE counters SET next_item = ?", [first + len(new)])
    if old:
        rows = _columns(old, np.array([r.item for r in old], dtype=np.int64))  # noqa: F841 - read by SQL
        con.execute(
            "UPDATE items SET uri = r.uri, content = r.content::UUID, size = r.size, mtime_ns = r.mtime_ns, "
            "path = r.path::BLOB, present = true, label = coalesce(r.label::VARCHAR, items.label), "
            'split = coalesce(r.split::VARCHAR, items.split), group_id = coalesce(r."group"::VARCHAR, items.group_id) '
            "FROM rows r WHERE items.item = r.item"
        )
        if attributes:
            set_attributes(con, attributes, [r.ref.uri for r in old])


def set_attributes(con: duckdb.DuckDBPyConnection, attributes: Path, uris: Sequence[str] | None = None) -> None:
    """Give existing items the user's own columns, for the given uris or for all."""
    names = [
        r[0] for r in con.execute("DESCRIBE SELECT * EXCLUDE (uri) FROM read_parquet(?)", [str(attributes)]).fetchall()
    ]
    if not names:
        return
    given = {"uri": object_array(uris or [])}  # noqa: F841 - read by SQL
    chosen = "AND a.uri IN (SELECT uri::VARCHAR FROM given)" if uris is not None else ""
    sets = ", ".join(f"{quote_identifier(n)} = a.{quote_identifier(n)}" for n in names)
    con.execute(f"UPDATE items SET {sets} FROM read_parquet(?) a WHERE items.uri = a.uri {chosen}", [str(attributes)])


def replace_failures(con: duckdb.DuckDBPyConnection, batch: CommitBatch, *, decoder: str, space: str) -> None:
    """Forget earlier failures of every file in the batch, and enter the new ones."""
    uris = {"uri": object_array([r.ref.uri for r in batch.items] + [f.failure.uri for f in batch.failures])}  # noqa: F841
    con.execute("DELETE FROM failures WHERE uri IN (SELECT uri FROM uris)")
    if not batch.failures:
        return
    failed = [f.failure for f in batch.failures]
    rows = {  # noqa: F841 - read by SQL
        "uri": object_array([f.uri for f in failed]),
        "reason": object_array([f.reason.value for f in failed]),
        "detail": object_array([f.detail for f in failed]),
        "size": np.array([f.size for f in failed], dtype=np.int64),
        "mtime_ns": np.array([f.mtime_ns for f in failed], dtype=np.int64),
        "path": encode_paths([(f.uri, f.path) for f in failed]),
    }
    con.execute(
        "INSERT INTO failures BY NAME SELECT uri, reason, detail, size, mtime_ns, ? AS decoder, "
        "CASE WHEN reason = 'not_finite' THEN ? END AS space, ?::TIMESTAMP AS failed, path::BLOB AS path FROM rows",
        [decoder, space, utc_now()],
    )
    gone = [f.item for f in batch.failures if f.item is not None]
    if gone:
        con.execute("UPDATE items SET present = false WHERE list_contains(?, item)", [gone])


_FACTS = (
    "r.item AS item, r.uri AS uri, r.content::UUID AS content, r.label::VARCHAR AS label, r.split::VARCHAR AS split, "
    'r."group"::VARCHAR AS group_id, r.size AS size, r.mtime_ns AS mtime_ns, true AS present, '
    "$now::TIMESTAMP AS added, r.path::BLOB AS path"
)


def _columns(items: Sequence[ItemRow], ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Item rows as columns."""
    refs = [r.ref for r in items]
    return {
        "item": ids,
        "uri": object_array([r.uri for r in refs]),
        "content": object_array([r.content for r in items]),
        "label": object_array([r.label for r in refs]),
        "split": object_array([r.split for r in refs]),
        "group": object_array([r.group for r in refs]),
        "size": np.array([r.size for r in refs], dtype=np.int64),
        "mtime_ns": np.array([r.mtime_ns for r in refs], dtype=np.int64),
        "path": encode_paths([(r.uri, r.path) for r in refs]),
    }

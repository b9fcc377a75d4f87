"""Every byte that matters, read and compared: what is damaged, where, and what mends it. Nothing is changed here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from embedstore.errors import EmbedstoreError, StoreDamaged
from embedstore.space import Space
from embedstore.storage import commit_counter, shard
from embedstore.storage.layout import COMMIT_COUNTER, Layout, read_small_json
from embedstore.storage.queries.counters import read_commit_count
from embedstore.storage.sql import first_line, first_row, object_array
from embedstore.storage.storage import Storage

REPAIR_CURE = "run `embedstore repair`"

CATALOG_TABLES = (
    "items", "contents", "spaces", "vectors", "shards", "failures", "heads", "predictions", "runs", "counters", "schema"
)  # fmt: skip


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        file: relative to the store, or an image's uri.
        where: the block, table or rows in it. what: is wrong with it. cure: what a person can do.
    """

    file: str
    where: str
    what: str
    cure: str = REPAIR_CURE

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.file}{place}: {self.what}; {self.cure}"


@dataclass(frozen=True, slots=True)
class CheckProgress:
    """How far a check has come, in bytes of vectors or in images."""

    unit: str
    done: int
    total: int


@dataclass
class VerificationReport:
    """What was read, and what was wrong with it."""

    damage: list[Damage] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    tables: int = 0
    rows: int = 0
    shards: int = 0
    vectors: int = 0
    bytes: int = 0
    sidecars: int = 0
    images: int = 0
    changed_images: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return not self.damage

    def summary(self) -> str:
        """One line for a person."""
        images = f", {self.images:,} images ({len(self.changed_images):,} changed or gone)" if self.images else ""
        return (
            f"{self.tables} tables with {self.rows:,} rows, {self.shards:,} vector files with {self.vectors:,} vectors "
            f"({self.bytes:,} bytes), {self.sidecars} other files{images}: "
            + ("everything is as it was written" if self.ok else f"{len(self.damage)} damaged")
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "ok": self.ok,
            "damage": [{"file": d.file, "where": d.where, "what": d.what, "cure": d.cure} for d in self.damage],
            "notices": self.notices,
            "tables": self.tables,
            "rows": self.rows,
            "shards": self.shards,
            "vectors": self.vectors,
            "bytes": self.bytes,
            "sidecars": self.sidecars,
            "images": self.images,
            "changed_images": self.changed_images,
        }


def verify(storage: Storage, *, progress: Callable[[CheckProgress], None] = lambda _: None) -> VerificationReport:
    """Check a store's own files.

    Args:
        storage: an open store. Writers may go on: one generation is checked.
        progress: called after every vector file.
    """
    report = VerificationReport(notices=list(storage.notices))
    try:
        acknowledged = commit_counter.read(storage.layout.root)  # before the catalog: a writer may go on
        with storage.catalog.read() as con:
            _tables(con, report)
            if report.damage:
                return report
            _witness(con, acknowledged, report)
            _spaces(con, report)
            _references(con, report)
            known = con.execute('SELECT space, shard, "rows", bytes, checksum FROM shards ORDER BY ALL').fetchall()
    except StoreDamaged as e:
        report.damage.append(Damage(storage.layout.catalog.name, "", _first(e)))
        return report
    total, done = sum(int(row[3] or 0) for row in known), 0
    for row in known:
        _shard(storage, row, report)
        done += int(row[3] or 0)
        progress(CheckProgress("vectors", done, total))
    return report


def _tables(con: duckdb.DuckDBPyConnection, report: VerificationReport) -> None:
    """Read every value of every table; DuckDB compares each block with its checksum on the way."""
    for table in CATALOG_TABLES:
        try:
            rows = first_row(con.execute(f'SELECT count(*), bit_xor(hash(t)) FROM cat."{table}" t'))[0]
        except duckdb.Error as e:
            report.damage.append(Damage("catalog.duckdb", f"table {table}", first_line(e)))
            if isinstance(e, duckdb.FatalException):
                return
        else:
            report.tables += 1
            report.rows += int(rows)


def _witness(con: duckdb.DuckDBPyConnection, acknowledged: int | None, report: VerificationReport) -> None:
    """Every commit that was acknowledged is there."""
    count = read_commit_count(con)
    if acknowledged is None and count:
        report.damage.append(Damage(COMMIT_COUNTER, "", "it is missing, or neither of its records is whole"))
    elif acknowledged is not None and acknowledged > count:
        said = f"it is at commit {count}, but commit {acknowledged} was acknowledged"
        report.damage.append(Damage("catalog.duckdb", "", said))


def _spaces(con: duckdb.DuckDBPyConnection, report: VerificationReport) -> None:
    """A space's facts give its key."""
    for key, name, dim, facts in con.execute("SELECT space, name, dim, facts FROM spaces").fetchall():
        try:
            space = Space.from_json(facts)
            wrong = space.key != key or space.dim != dim
        except (ValueError, KeyError, TypeError):
            wrong = True
        if wrong:
            report.damage.append(
                Damage("catalog.duckdb", f"space {name}", "its facts do not give its key", "restore from a backup")
            )


_REFERENCES = {
    ("items", "a uri stands for two items"): "SELECT count(*) - count(DISTINCT uri) FROM items",
    ("items", "an id stands for two items"): "SELECT count(*) - count(DISTINCT item) FROM items",
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
    ("shards", "a file is entered twice"): "SELECT count(*) - count(DISTINCT (space, shard)) FROM shards",
    ("counters", "ids that are taken would be given again"): (
        "SELECT count(*) FROM counters WHERE next_item <= (SELECT coalesce(max(item), 0) FROM items) "
        "OR next_shard <= (SELECT coalesce(max(shard), 0) FROM shards)"
    ),
    ("counters", "it has not exactly one row"): "SELECT abs(count(*) - 1) FROM counters",
}


def _references(con: duckdb.DuckDBPyConnection, report: VerificationReport) -> None:
    """What a row names is there, once."""
    for (table, what), query in _REFERENCES.items():
        count = first_row(con.execute(query))[0]
        if count:
            report.damage.append(Damage("catalog.duckdb", f"table {table}", f"{what} ({count:,})"))


def _shard(storage: Storage, row: tuple[str, int, int, int, str], report: VerificationReport) -> None:
    """One vector file against itself and against the catalog."""
    space, number, rows, size, checksum = row
    path = storage.layout.shard_file(space, number)
    name = str(path.relative_to(storage.layout.root))
    try:
        found = shard.Shard(path)
        h = found.header
        if (h.space, h.number, h.rows, h.file_bytes, h.checksum) != (space, number, rows, size, checksum):
            report.damage.append(Damage(name, "header", "it is another file than the one that was entered"))
            return
        report.damage += list(_blocks(name, found))
        report.damage += list(_aligned(storage, name, found))
    except EmbedstoreError as e:
        if _still_there(storage, space, number):
            report.damage.append(Damage(name, "", _first(e)))
        return
    report.shards += 1
    report.vectors += h.rows
    report.bytes += h.file_bytes


def _blocks(name: str, found: shard.Shard) -> Iterator[Damage]:
    """Blocks that are not what was written."""
    bad = found.corrupt_rows()
    if len(bad):
        per = found.header.block_rows or found.header.rows
        blocks = sorted({int(r) // per for r in bad})
        shown = ", ".join(map(str, blocks[:10])) + (", …" if len(blocks) > 10 else "")
        yield Damage(name, f"block {shown}", f"{len(bad):,} rows do not match their checksum")
    else:
        try:
            found.verify()
        except StoreDamaged as e:
            yield Damage(name, "header", _first(e))


def _aligned(storage: Storage, name: str, found: shard.Shard) -> Iterator[Damage]:
    """Every row that the catalog says of a file is the row of that content."""
    h = found.header
    rows = {"content": object_array(found.contents), "n": np.arange(h.rows)}  # noqa: F841 - read by SQL
    with storage.catalog.read() as con:
        wrong = first_row(
            con.execute(
                'SELECT count(*) FROM vectors v LEFT JOIN rows r ON r.n = v."row" '
                "WHERE v.space = ? AND v.shard = ? AND (r.content IS NULL OR r.content::UUID <> v.content)",
                [h.space, h.number],
            )
        )[0]
    if wrong:
        yield Damage("catalog.duckdb", "table vectors", f"{wrong:,} rows of {name} name another content than the file")


def _still_there(storage: Storage, space: str, number: int) -> bool:
    """The catalog still wants the file: it was not replaced by a later one while this check went on."""
    with storage.catalog.read() as con:
        found = con.execute("SELECT count(*) FROM shards WHERE space = ? AND shard = ?", [space, number])
        return bool(first_row(found)[0])


def verify_space_files(at: Layout) -> Iterator[Damage]:
    """The notes beside the vectors, from which a lost catalog is made again."""
    for path in sorted(Path(at.root, "spaces").glob("*/space.json")):
        try:
            note = json.loads(read_small_json(path))
            if Space.from_json(note["facts"]).key != path.parent.name:
                raise ValueError("its facts do not give its folder's name")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
            yield Damage(str(path.relative_to(at.root)), "", f"cannot be used ({e})")


def _first(error: Exception) -> str:
    """The message without its cure."""
    return first_line(error).split("; run ")[0]

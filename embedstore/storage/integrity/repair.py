"""Mending what verification names: what is provable is put right, what is not is set aside, nothing is thrown away.

A vector that is lost is taken out of the catalog, so that the next ``embed`` makes exactly that vector again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.storage import disk_errors, layout, lock, recover, shard
from embedstore.storage.catalog import Catalog
from embedstore.storage.commit import insert_vectors
from embedstore.storage.integrity import rebuild_catalog
from embedstore.storage.layout import Layout
from embedstore.storage.sql import content_hex, first_line, first_row, object_array


@dataclass
class StorageRepair:
    """What a repair did.

    Attributes:
        done: one sentence each. lost: contents, 32 hexadecimal digits each, that have no vector any more, by space.
    """

    actions: list[str] = field(default_factory=list)
    lost_contents: dict[str, list[str]] = field(default_factory=dict)


def repair(path: str | Path, *, wait: float = 0.0) -> StorageRepair:
    """Mend a store, also one that cannot be opened.

    Raises:
        StoreBusy: another process is writing.
        StoreDamaged: neither the catalog nor the notes beside the vectors can be used.
        StoreIOError: the disk refuses.
    """
    at = layout.find_store(Path(path))
    mended = StorageRepair()
    said = disk_errors.disk_errors(f"mend {at.root}", cure="make room and run it again")
    with lock.writer_lock(at.lock, "repair", wait=wait), said:
        catalog = _opened(at, mended)
        mended.actions += _rows(catalog)
        mended.actions += recover.register_unknown_shards(at, catalog)
        _shards(at, catalog, mended)
        mended.actions += _indexes(at)
        recover.guarded_checkpoint(at, catalog)
    return mended


def _opened(at: Layout, mended: StorageRepair) -> Catalog:
    """The catalog as recovery leaves it, or what could be saved of it."""
    catalog = Catalog(at.catalog)
    try:
        mended.actions += recover.recover(at, catalog, accept_data_loss=True)
        _readable(catalog)
    except StoreDamaged as e:
        mended.actions.append(f"the catalog cannot be used ({str(e).split('; run ')[0]})")
        catalog.discard_connection()
        mended.actions += rebuild_catalog.rebuild_catalog(at)
        catalog = Catalog(at.catalog)
        mended.actions += recover.register_unknown_shards(at, catalog)
        mended.actions += recover.recover(at, catalog, accept_data_loss=True)
    return catalog


def _readable(catalog: Catalog) -> None:
    """Read every value of every table once.

    Raises:
        StoreDamaged: a block is not what was written.
    """
    with catalog.read() as con:
        for (table,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'cat'").fetchall():
            try:
                con.execute(f'SELECT bit_xor(hash(t)) FROM cat."{table}" t').fetchall()
            except duckdb.Error as e:
                raise StoreDamaged(f"table {table}: {first_line(e)}") from e


_ROWS = {
    "contents that items name were entered": (
        "INSERT INTO contents BY NAME SELECT DISTINCT content FROM items WHERE content IS NOT NULL "
        "AND content NOT IN (SELECT content FROM contents)"
    ),
    "second vectors of a content were taken out": (
        "DELETE FROM vectors WHERE rowid NOT IN (SELECT min(rowid) FROM vectors GROUP BY space, content)"
    ),
    "second entries of a vector file were taken out": (
        "DELETE FROM shards WHERE rowid NOT IN (SELECT min(rowid) FROM shards GROUP BY space, shard)"
    ),
    "entries without a vector file were taken out": (
        "DELETE FROM vectors WHERE (space, shard) NOT IN (SELECT (space, shard) FROM shards)"
    ),
    "counters were set past the ids that are taken": (
        "UPDATE counters SET next_item = greatest(next_item, (SELECT coalesce(max(item), 0) + 1 FROM items)), "
        "next_shard = greatest(next_shard, (SELECT coalesce(max(shard), 0) + 1 FROM shards)), "
        "next_run = greatest(next_run, (SELECT coalesce(max(run), 0) + 1 FROM runs)) "
        "WHERE next_item <= (SELECT coalesce(max(item), 0) FROM items) "
        "OR next_shard <= (SELECT coalesce(max(shard), 0) FROM shards) "
        "OR next_run <= (SELECT coalesce(max(run), 0) FROM runs)"
    ),
}


def _rows(catalog: Catalog) -> list[str]:
    """Rows that contradict each other."""
    done = []
    with catalog.write() as con:
        for said, statement in _ROWS.items():
            count = first_row(con.execute(statement))[0]
            if count:
                done.append(f"{count} {said}")
    return done


def _shards(at: Layout, catalog: Catalog, mended: StorageRepair) -> None:
    """Every vector file: what is whole stays, whole blocks of a damaged one move into a new one."""
    with catalog.read() as con:
        known = con.execute('SELECT space, shard, "rows", checksum FROM shards ORDER BY space, shard').fetchall()
    for space, number, rows, checksum in known:
        path = at.shard_file(space, number)
        good = _good(path, space, number, rows, checksum)
        if good is None:
            _replace(at, catalog, space, number, None, np.arange(0), mended)
        elif len(good[1]) < good[0].header.rows or not _aligned(catalog, good[0]):
            _replace(at, catalog, space, number, good[0], good[1], mended)


def _good(
    path: Path, space: str, number: int, rows: int, checksum: str
) -> tuple[shard.Shard, NDArray[np.int64]] | None:
    """The file and its rows that are as they were written; None where nothing of it can be believed."""
    try:
        found = shard.Shard(path)
        h = found.header
        if (h.space, h.number, h.rows, h.checksum) != (space, number, rows, checksum):
            return None
        bad = found.corrupt_rows()
        if not len(bad):
            found.verify()
    except StoreDamaged:
        return None
    return found, np.setdiff1d(np.arange(h.rows), bad)


def _aligned(catalog: Catalog, found: shard.Shard) -> bool:
    """The catalog says of every row what the file says."""
    rows = {"content": object_array(found.contents), "n": np.arange(found.header.rows)}  # noqa: F841 - read by SQL
    with catalog.read() as con:
        wrong = con.execute(
            'SELECT count(*) FROM vectors v LEFT JOIN rows r ON r.n = v."row" '
            "WHERE v.space = ? AND v.shard = ? AND (r.content IS NULL OR r.content::UUID <> v.content)",
            [found.header.space, found.header.number],
        )
        return not first_row(wrong)[0]


def _replace(
    at: Layout,
    catalog: Catalog,
    space: str,
    number: int,
    found: shard.Shard | None,
    good: NDArray[np.int64],
    mended: StorageRepair,
) -> None:
    """Write the good rows that are in use as a file of their own, enter it in the old one's place, set that aside."""
    with catalog.read() as con:
        used = _hex(con.execute("SELECT content::VARCHAR FROM vectors WHERE space = ? AND shard = ?", [space, number]))
        following = int(first_row(con.execute("SELECT next_shard FROM counters"))[0])
    contents = found.contents if found else []
    wanted = set(used)
    kept = np.array([r for r in good if contents[r] in wanted], dtype=np.int64)
    head = None
    if found is not None and len(kept):
        head = shard.write_shard(
            at.shard_file(space, following),
            space=space,
            number=following,
            vectors=found.vectors[kept],
            contents=[contents[r] for r in kept],
        )
    with catalog.write() as con:
        con.execute("DELETE FROM vectors WHERE space = ? AND shard = ?", [space, number])
        con.execute("DELETE FROM shards WHERE space = ? AND shard = ?", [space, number])
        if head is not None:
            insert_vectors(con, head, [contents[r] for r in kept])
            con.execute("UPDATE counters SET next_shard = ?", [following + 1])
    path = at.shard_file(space, number)
    aside = ""
    if path.exists():
        aside = f"; the damaged file is {layout.quarantine_file(at, path, f'{space}-{path.name}')}"
    lost = sorted(wanted - {contents[r] for r in kept})
    if lost:
        mended.lost_contents.setdefault(space, []).extend(lost)
    mended.actions.append(f"{path.name}: {len(kept)} of {len(used)} vectors were saved, {len(lost)} are lost{aside}")


def _hex(result: duckdb.DuckDBPyConnection) -> list[str]:
    """Contents as 32 hexadecimal digits."""
    return [content_hex(c) for (c,) in result.fetchall()]


def _indexes(at: Layout) -> list[str]:
    """Half-written index files; whole ones are judged by their sidecars whenever they are used."""
    done = []
    for stray in sorted(at.root.glob("spaces/*/index/*.tmp")):
        stray.unlink()
        done.append(f"{stray.name}, half an index, was removed")
    return done

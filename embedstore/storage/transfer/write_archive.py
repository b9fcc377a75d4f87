"""A store into a folder of Parquet files: one generation, also while others write."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from embedstore.errors import QueryError, StoreDamaged, StoreError, StoreExists, StoreIOError
from embedstore.space import Space
from embedstore.storage.catalog import ARCHIVED_TABLES
from embedstore.storage.durable_files import file_sha256, sync_folder, sync_tree
from embedstore.storage.layout import COPIED_FOLDERS, read_small_json
from embedstore.storage.sql import column_types, fetch_value, first_line, first_row, quote_identifier, quote_literal
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import parquet
from embedstore.storage.transfer.manifest import (
    MANIFEST_FILE,
    ArchiveFile,
    ArchiveManifest,
    describe_file,
)
from embedstore.storage.vectors import VectorReader

PART_BYTES = 64 << 20  # bytes of float32 in one Parquet file of vectors
_BLOCK = 4096  # vectors at a time


@dataclass(frozen=True)
class _Space:
    """One space in the generation that is exported; ``memory.main.exported_<n>`` has its rows in order."""

    key: str
    dim: int
    rows: int
    table: str
    vectors: VectorReader


def write_archive(storage: Storage, folder: Path) -> dict[str, int]:
    """Export everything.

    Args:
        storage: the store; writers may go on. folder: a new one.

    Returns:
        Rows by table, and ``vectors``, ``files``, ``bytes``.

    Raises:
        StoreExists: something is there. StoreDamaged: a vector is not what was written.
        StoreIOError: the disk refuses; nothing is left.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StoreExists(f"{folder} exists already; an export goes into a new folder")
    if folder.is_relative_to(storage.layout.root):
        raise StoreExists(f"{folder} lies inside {storage.layout.root}; choose a folder outside of it")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.exporting")
    try:
        temporary.mkdir(parents=True)
        note = _write(storage, temporary)
        (temporary / MANIFEST_FILE).write_text(json.dumps(note.to_json(), indent=1) + "\n", encoding="utf-8")
        sync_tree(temporary)
        temporary.rename(folder)
        sync_folder(folder.parent)
    except BaseException as e:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(e, duckdb.IOException) or (isinstance(e, OSError) and not isinstance(e, StoreError)):
            raise StoreIOError(f"cannot export to {folder}: {first_line(e)}; nothing is left of it") from e
        raise
    pieces = [*note.tables.values(), *note.vectors, *note.files]
    counts = {name: p.rows for name, p in note.tables.items() if name != "counters"}
    vectors = sum(p.rows for p in note.vectors)
    return counts | {"vectors": vectors, "files": len(note.files), "bytes": sum(p.bytes for p in pieces)}


def _write(storage: Storage, folder: Path) -> ArchiveManifest:
    """Everything; the catalog in one read."""
    spaces: list[_Space] = []
    con = storage.catalog.scratch
    try:
        with storage.catalog.read() as con:
            tables = {name: _table(con, name, folder) for name in ARCHIVED_TABLES}
            found = con.execute("SELECT space, facts FROM spaces ORDER BY space").fetchall()
            heads = con.execute("SELECT head, facts FROM heads").fetchall()
            for n, (key, facts) in enumerate(found):
                spaces.append(_chosen(storage, con, key, Space.from_json(facts), f"memory.main.exported_{n}"))
            files = _beside(storage, folder)
        _unchanged(folder, heads)
        vectors = [p for s in spaces for p in _vectors(con, s, folder)]
    finally:
        for s in spaces:
            con.execute(f"DROP TABLE IF EXISTS {s.table}")
    marker = json.loads(read_small_json(storage.layout.marker))
    return ArchiveManifest(str(marker["id"]), datetime.now(UTC).isoformat(timespec="seconds"), tables, vectors, files)


def _table(con: duckdb.DuckDBPyConnection, name: str, folder: Path) -> ArchiveFile:
    """One table; a column whose type Parquet does not keep goes as text.

    Raises:
        QueryError: a column cannot be written so that it reads back the same.
    """
    file = folder / f"{name}.parquet"
    types = column_types(con, f"cat.{name}")
    parquet.write_parquet(con, f"FROM cat.{name}", file)
    back = column_types(con, f"FROM read_parquet({quote_literal(file)})")
    text = {c: kind for c, kind in types.items() if back.get(c) != kind}
    if text:
        casts = ", ".join(f"{quote_identifier(c)}::VARCHAR AS {quote_identifier(c)}" for c in text)
        parquet.write_parquet(con, f"SELECT * REPLACE ({casts}) FROM cat.{name}", file)
    columns = ", ".join(f"{quote_identifier(c)}::{text[c]}" if c in text else quote_identifier(c) for c in types)
    wanted = _sum(con, f"SELECT {', '.join(map(quote_identifier, types))} FROM cat.{name}")
    try:
        same = _sum(con, f"SELECT {columns} FROM read_parquet({quote_literal(file)})") == wanted
    except (duckdb.ConversionException, duckdb.InvalidInputException):
        same = False
    if not same:
        raise QueryError(f"a column of {name} does not survive Parquet ({', '.join(text) or '?'}); change its type")
    return describe_file(folder, file.name, rows=wanted[0], text=text)


def _sum(con: duckdb.DuckDBPyConnection, query: str) -> tuple[int, int]:
    """Number of rows, and a checksum that does not depend on their order."""
    rows, total = first_row(con.execute(f"SELECT count(*), bit_xor(hash(t)) FROM ({query}) t"))
    return int(rows), int(total or 0)


def _chosen(storage: Storage, con: duckdb.DuckDBPyConnection, key: str, space: Space, table: str) -> _Space:
    """The rows of a space in the order of their files, which stay readable from here on."""
    con.execute(
        f'CREATE OR REPLACE TABLE {table} AS SELECT row_number() OVER (ORDER BY shard, "row") - 1 AS n, content, '
        'shard, "row"::BIGINT AS r FROM vectors WHERE space = ?',
        [key],
    )
    rows = int(fetch_value(con, f"SELECT count(*) FROM {table}"))
    return _Space(key, space.dim, rows, table, storage.vector_reader_in(con, space).map_shards())


def _vectors(con: duckdb.DuckDBPyConnection, space: _Space, folder: Path) -> list[ArchiveFile]:
    """The vectors of a space in files of at most so many rows."""
    per = max(_BLOCK, PART_BYTES // (4 * space.dim))
    out = []
    (folder / "vectors" / space.key).mkdir(parents=True)
    for begin in range(0, space.rows, per):
        name = f"vectors/{space.key}/{begin // per:06d}.parquet"
        end = min(space.rows, begin + per)
        con.execute("CREATE OR REPLACE TABLE memory.main.exporting (n BIGINT, vector FLOAT[])")
        try:
            for first in range(begin, end, _BLOCK):
                at = con.execute(
                    f"SELECT shard, r FROM {space.table} WHERE n >= ? AND n < ? ORDER BY n",
                    [first, min(end, first + _BLOCK)],
                ).fetchnumpy()
                block = space.vectors.read_float32(space.vectors.positions(at["shard"], at["r"]))
                parquet.stage_vectors(con, "memory.main.exporting", first, block)
            query = f"SELECT content, vector FROM {space.table} JOIN memory.main.exporting USING (n) ORDER BY n"
            parquet.write_parquet(con, query, folder / name)
        finally:
            con.execute("DROP TABLE IF EXISTS memory.main.exporting")
        out.append(describe_file(folder, name, rows=end - begin, space=space.key))
    return out


def _beside(storage: Storage, folder: Path) -> list[ArchiveFile]:
    """Heads and checkpoints, as they are."""
    out = []
    for name in COPIED_FOLDERS:
        root = storage.layout.root / name
        for path in sorted(root.rglob("*")) if root.is_dir() else []:
            if path.is_file() and not path.is_symlink():
                to = path.relative_to(storage.layout.root).as_posix()
                (folder / to).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / to)
                out.append(describe_file(folder, to))
    return out


def _unchanged(folder: Path, heads: list[tuple[str, str]]) -> None:
    """The heads' files are those that the catalog means.

    Raises:
        StoreDamaged: one is missing, or was replaced while it was copied.
    """
    for name, facts in heads:
        path = folder / "heads" / name / "head.json"
        wanted = json.loads(facts).get("digest")
        if not path.is_file() or file_sha256(path) != wanted:
            raise StoreDamaged(
                f"the files of head {name} are not those that were saved; if another process saves heads, run it "
                "again, else fit and keep it again"
            )

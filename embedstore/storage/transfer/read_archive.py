"""A folder of Parquet files into a new store: all of it, or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import numpy as np

from embedstore.errors import StoreDamaged, StoreError, StoreIOError
from embedstore.space import Space
from embedstore.storage import connection, durable_files, layout, shard
from embedstore.storage.catalog import ARCHIVED_TABLES, STORAGE_VERSION, Catalog, is_disk_error
from embedstore.storage.commit import FLOAT16_MAX, insert_vectors, storable_rows
from embedstore.storage.integrity.verify import verify
from embedstore.storage.layout import Layout
from embedstore.storage.sql import column_types, content_hex, fetch_value, first_line, quote_identifier, quote_literal
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import manifest as notes
from embedstore.storage.transfer import parquet
from embedstore.storage.transfer.manifest import (
    ArchiveFile,
    ArchiveManifest,
    verified_path,
)

MAX_PART_BYTES = 1 << 30  # bytes of float32 that one Parquet file of vectors may hold: they are read at once


def read_archive(folder: Path, target: Path) -> dict[str, int]:
    """Make a store of an export.

    Args:
        folder: the export. target: a new folder; nothing is ever written over.

    Returns:
        Rows by table, and ``vectors``.

    Raises:
        StoreNotFound, NotAStore, StoreTooNew: it is no export, or of a later version.
        StoreExists: something is at ``target``.
        StoreDamaged: a file of the export is missing, changed, or contradicts another; nothing is made.
        StoreIOError: the disk refuses; nothing is left.
    """
    found = notes.read_manifest(folder.absolute())
    try:
        layout.create_folder(target, lambda at: _fill(folder.absolute(), found, at))
    except duckdb.Error as e:  # of the new store's own file: what an export holds is judged where it is read
        raise StoreIOError(f"cannot make {target}: {first_line(e)}; nothing is left of it") from e
    counts = {name: p.rows for name, p in found.tables.items() if name != "counters"}
    return counts | {"vectors": sum(p.rows for p in found.vectors)}


def _fill(folder: Path, note: ArchiveManifest, at: Layout) -> None:
    """Everything into a store that has no name yet."""
    Catalog(at.catalog).create()
    with _catalog(at) as con:
        for name in ARCHIVED_TABLES:
            _table(con, folder, name, note.tables[name])
        _vectors(con, folder, note, at)
        _beside(folder, note, at)
        _heads(con, folder, at)
        con.execute(
            "UPDATE cat.counters SET generation = 0, next_shard = (SELECT coalesce(max(shard), 0) + 1 FROM cat.shards)"
        )
        con.execute("CHECKPOINT cat")
    report = verify(Storage(at))
    if report.damage:
        raise StoreDamaged(f"{folder} contradicts itself: {str(report.damage[0]).rsplit('; ', 1)[0]}; export it again")


@contextmanager
def _catalog(at: Layout) -> Iterator[duckdb.DuckDBPyConnection]:
    """The new catalog, attached to a connection of its own."""
    with connection.connect() as con:
        con.execute(f"ATTACH {quote_literal(at.catalog)} AS cat (STORAGE_VERSION '{STORAGE_VERSION}')")
        try:
            yield con
        finally:
            with suppress(duckdb.Error):  # after a failure of the disk it may be gone already
                con.execute("DETACH cat")


def _table(con: duckdb.DuckDBPyConnection, folder: Path, name: str, p: ArchiveFile) -> None:
    """One table; the user's own columns are added to the items."""
    file = quote_literal(verified_path(folder, p))
    try:
        con.execute(f"DELETE FROM cat.{name}")
        have = {r[0] for r in con.execute(f"DESCRIBE cat.{name}").fetchall()}
        given = column_types(con, f"FROM read_parquet({file})")
        kinds = {c: _kind(con, p.text[c]) if c in p.text else kind for c, kind in given.items()}
        for column in kinds.keys() - have:
            if name != "items":
                raise StoreDamaged(f"{folder / p.name} has a column {column!r} that a store has not")
        for column in [c for c in kinds if c not in have]:
            con.execute(f"ALTER TABLE cat.{name} ADD COLUMN {quote_identifier(column)} {kinds[column]}")
        columns = ", ".join(f"{quote_identifier(c)}::{kind} AS {quote_identifier(c)}" for c, kind in kinds.items())
        con.execute(f"INSERT INTO cat.{name} BY NAME SELECT {columns} FROM read_parquet({file})")
        rows = int(fetch_value(con, f"SELECT count(*) FROM cat.{name}"))
    except duckdb.Error as e:
        if is_disk_error(e):
            raise
        raise _unreadable(folder, p, e) from e
    if rows != p.rows:
        raise StoreDamaged(f"{folder / p.name} has {rows} rows instead of {p.rows}; export the store again")


def _kind(con: duckdb.DuckDBPyConnection, text: str) -> str:
    """A type's name as DuckDB itself writes it: text of a stranger never stands in SQL."""
    return str(con.type(text))


def _vectors(con: duckdb.DuckDBPyConnection, folder: Path, note: ArchiveManifest, at: Layout) -> None:
    """Every file of vectors as a vector file, and its rows in the catalog."""
    spaces = _spaces(con, folder, at)
    for number, p in enumerate(note.vectors, 1):
        if p.space not in spaces:
            raise StoreDamaged(f"{folder / p.name} is of space {p.space!r}, which the export does not have")
        space, dtype = spaces[p.space]
        if p.rows < 1 or 4 * p.rows * space.dim > MAX_PART_BYTES:
            raise StoreDamaged(f"{folder / p.name} has {p.rows} vectors of {space.dim}: that is not how one is written")
        _one(con, folder, p, at, number, dim=space.dim, dtype=dtype)


def _one(
    con: duckdb.DuckDBPyConnection, folder: Path, p: ArchiveFile, at: Layout, number: int, *, dim: int, dtype: str
) -> None:
    """One file of vectors."""
    query = f"FROM read_parquet({quote_literal(verified_path(folder, p))})"
    try:
        rows = int(fetch_value(con, f"SELECT count(*) {query}"))
        if rows != p.rows:
            raise StoreDamaged(f"{folder / p.name} has {rows} rows instead of {p.rows}; export the store again")
        contents = [content_hex(c) for (c,) in con.execute(f"SELECT content::UUID::VARCHAR {query}").fetchall()]
        found = parquet.read_vectors(con, f"SELECT vector {query}", dim)
    except (duckdb.Error, ValueError, AttributeError) as e:
        if isinstance(e, StoreError) or is_disk_error(e):
            raise
        raise _unreadable(folder, p, e) from e
    if not storable_rows(found, dtype).all() or (np.abs(found).max() > FLOAT16_MAX and dtype == "float16"):
        raise StoreDamaged(f"{folder / p.name} has a vector that is not finite, is zero, or does not fit {dtype}")
    head = shard.write_shard(
        at.shard_file(p.space, number), space=p.space, number=number, vectors=found.astype(shard.DTYPES[dtype]),
        contents=contents,
    )  # fmt: skip
    con.execute("USE cat")
    insert_vectors(con, head, contents)
    con.execute("USE memory")


def _spaces(con: duckdb.DuckDBPyConnection, folder: Path, at: Layout) -> dict[str, tuple[Space, str]]:
    """The spaces by key, each with its folder and its note."""
    out: dict[str, tuple[Space, str]] = {}
    found = con.execute("SELECT space, name, dim, dtype, facts, recipe FROM cat.spaces").fetchall()
    for key, name, dim, dtype, facts, recipe in found:
        try:
            space = Space.from_json(facts)
            if space.key != key or space.dim != dim or dtype not in shard.DTYPES:
                raise ValueError("its facts do not give its key")
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise StoreDamaged(f"{folder} does not say what space {name!r} means ({e}); export the store again") from e
        at.shards_folder(key).mkdir(parents=True)
        told = {"name": name, "dtype": dtype, "facts": facts, "recipe": recipe}
        durable_files.write_synced(at.space_file(key), json.dumps(told, indent=1).encode())
        out[key] = (space, dtype)
    return out


def _beside(folder: Path, note: ArchiveManifest, at: Layout) -> None:
    """Heads and checkpoints, checked before they are copied."""
    for p in note.files:
        source = verified_path(folder, p)
        (at.root / p.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, at.root / p.name)


def _heads(con: duckdb.DuckDBPyConnection, folder: Path, at: Layout) -> None:
    """Every head of the catalog has its files."""
    for name, facts in con.execute("SELECT head, facts FROM cat.heads").fetchall():
        path = at.root / "heads" / str(name) / "head.json"
        if not path.is_file() or durable_files.file_sha256(path) != json.loads(facts).get("digest"):
            raise StoreDamaged(f"the files of head {name} are not in {folder}; export the store again")


def _unreadable(folder: Path, p: ArchiveFile, error: Exception) -> StoreDamaged:
    """What DuckDB's error means here."""
    return StoreDamaged(f"{folder / p.name} is not what an export holds: {str(error).splitlines()[0]}")

"""Write a store to a folder of Parquet files: one generation, also while other processes write."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from embedstore.errors import QueryError, StoreDamaged, StoreIOError
from embedstore.storage import layout, reading
from embedstore.storage.catalog import ARCHIVED_TABLES
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import (
    column_types,
    fetch_column,
    first_line,
    first_row,
    parquet_source,
    row_hash,
    scratch_tables,
)
from embedstore.storage.storage import Storage
from embedstore.storage.store_files import copy_regular
from embedstore.storage.transfer.manifest import MANIFEST_FILE, ArchiveFile, ArchiveManifest, changed_heads
from embedstore.storage.transfer.parquet import BLOCK_ROWS, NumberedVectors, write_parquet

FILE_BYTES = 64 << 20  # bytes of float32 in one Parquet file of vectors


def write_archive(storage: Storage, folder: Path) -> dict[str, int]:
    """Write every table, every vector of every space, and the files of heads and checkpoints to a new folder.

    Args:
        storage: the store; writers may go on.
        folder: a new folder outside of the store.

    Returns:
        The number of rows per table, and ``vectors``, ``files`` and ``bytes``.

    Raises:
        StoreExists: if ``folder`` exists and is not an empty folder, or is inside the store.
        StoreDamaged: if a vector or a head is not what was written.
        QueryError: if a column has a type that Parquet cannot hold.
        StoreIOError: if the disk refuses; nothing is left at ``folder``.
    """
    folder = folder.absolute()
    layout.require_outside(folder, storage.layout)
    try:
        with layout.new_folder(folder, f"export to {folder}") as temporary:
            manifest = _write(storage, temporary)
            text = json.dumps(manifest.to_json(), indent=1) + "\n"
            (temporary / MANIFEST_FILE).write_text(text, encoding="utf-8")
    except duckdb.IOException as e:
        raise StoreIOError(f"cannot export to {folder}: {first_line(e)}; nothing is left of it") from e
    return manifest.row_counts | {"files": len(manifest.files), "bytes": sum(f.bytes for f in manifest.all_files)}


def _write(storage: Storage, folder: Path) -> ArchiveManifest:
    """Write all files; the tables in one read, the vectors after it, so that writers wait for the tables only."""
    with scratch_tables(storage.catalog.scratch, "exported_vectors") as (table,):
        with storage.catalog.read() as con:
            existing = fetch_column(con, "SELECT table_name FROM duckdb_tables() WHERE database_name = 'cat'")
            tables = {name: _write_table(con, name, folder) for name in ARCHIVED_TABLES if name in existing}
            spaces = _number_vectors(storage, con, table)
            heads = con.execute("SELECT head, facts FROM heads").fetchall()
            files = _copy_files(storage, folder)
        if changed := changed_heads(folder, heads):
            raise StoreDamaged(
                f"the files of head {changed[0]} are not those that were saved; if another process saves heads, run it "
                "again, else train it and save it again"
            )
        vectors = [file for key, space in spaces.items() for file in _write_vectors(key, space, folder)]
    marker = layout.read_marker(storage.layout)
    return ArchiveManifest(str(marker["id"]), datetime.now(UTC).isoformat(timespec="seconds"), tables, vectors, files)


def _write_table(con: duckdb.DuckDBPyConnection, name: str, folder: Path) -> ArchiveFile:
    """Write one table as Parquet; a column whose type changes in the round trip is written as text.

    Raises:
        QueryError: if the values differ when they are read back.
    """
    path = folder / f"{name}.parquet"
    source = parquet_source(path)
    types = column_types(con, f"cat.{name}")
    write_parquet(con, f"FROM cat.{name}", path)
    read_back = column_types(con, f"FROM {source}")
    text = {column: kind for column, kind in types.items() if read_back.get(column) != kind}
    if text:
        casts = ", ".join(f"{quote_identifier(c)}::VARCHAR AS {quote_identifier(c)}" for c in text)
        write_parquet(con, f"SELECT * REPLACE ({casts}) FROM cat.{name}", path)
    names = {c: quote_identifier(c) for c in types}
    typed = [f"{names[c]}::{kind} AS {names[c]}" if c in text else names[c] for c, kind in types.items()]
    expected = _fingerprint(con, types, f"cat.{name}")
    try:
        same = _fingerprint(con, types, f"(SELECT {', '.join(typed)} FROM {source})") == expected
    except (duckdb.ConversionException, duckdb.InvalidInputException):
        same = False
    if not same:
        raise QueryError(f"a column of {name} does not survive Parquet ({', '.join(text) or '?'}); change its type")
    return ArchiveFile.describe(folder, path.name, rows=expected[0], text_columns=text)


def _fingerprint(con: duckdb.DuckDBPyConnection, columns: Iterable[str], source: str) -> tuple[int, int]:
    """Return the number of rows, and a checksum of some columns that does not depend on their order."""
    rows, checksum = first_row(con.execute(f"SELECT count(*), bit_xor({row_hash(columns)}) FROM {source}"))
    return int(rows), int(checksum or 0)


def _number_vectors(storage: Storage, con: duckdb.DuckDBPyConnection, table: str) -> dict[str, NumberedVectors]:
    """Number the vectors of all spaces in the order of their files, which stay readable from here on."""
    con.execute(
        f'CREATE TABLE {table} AS SELECT row_number() OVER (ORDER BY space, shard, "row") - 1 AS n, space, content, '
        'shard, "row"::BIGINT AS "row" FROM vectors'
    )
    rows = con.execute(
        f"SELECT s.space, coalesce(min(n), 0), coalesce(max(n) + 1, 0) FROM spaces s LEFT JOIN {table} t "
        "ON t.space = s.space GROUP BY ALL ORDER BY s.space"
    ).fetchall()
    known, spaces = {record.key: record for record in storage.spaces_in(con)}, {}
    for key, begin, end in rows:
        reader = storage.vector_reader_in(con, known[key].space).map_shards()
        spaces[key] = NumberedVectors(storage.catalog.scratch, table, reader, begin, end)
    return spaces


def _write_vectors(key: str, space: NumberedVectors, folder: Path) -> list[ArchiveFile]:
    """Write the vectors of a space to files of at most :data:`FILE_BYTES`, or of one block."""
    file_rows = max(BLOCK_ROWS, FILE_BYTES // (4 * space.reader.dim))
    (folder / "vectors" / key).mkdir(parents=True)
    files = []
    for number, part in enumerate(space.split(file_rows)):
        name = f"vectors/{key}/{number:06d}.parquet"
        part.write_parquet(folder / name, "t.content")
        files.append(ArchiveFile.describe(folder, name, rows=len(part), space=key))
    return files


def _copy_files(storage: Storage, folder: Path) -> list[ArchiveFile]:
    """Copy the files of heads and checkpoints."""
    root, files = storage.layout.root, []
    for path in (p for copied in sorted(layout.COPIED_FOLDERS) for p in reading.list_files(root / copied)):
        name = path.relative_to(root).as_posix()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy_regular(path, folder / name)
        files.append(ArchiveFile.describe(folder, name))
    return files

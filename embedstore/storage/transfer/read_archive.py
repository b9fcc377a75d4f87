"""Make a new store from a folder of Parquet files: the whole store or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from embedstore.errors import StoreDamaged, StoreIOError, StoreUnreadable
from embedstore.space import Space
from embedstore.storage import commit_counter, connection, layout, migrations, shard
from embedstore.storage.catalog_errors import is_disk_error, read_problem
from embedstore.storage.integrity.sidecars import require_readable
from embedstore.storage.integrity.verify import verify
from embedstore.storage.layout import Layout
from embedstore.storage.queries.shards import insert_shard
from embedstore.storage.reading import passing_error_of_named_file
from embedstore.storage.space_files import SpaceFile
from embedstore.storage.sql import (
    column_types,
    content_hex,
    fetch_column,
    fetch_value,
    first_line,
    insert_rows,
    parquet_source,
)
from embedstore.storage.storage import Storage
from embedstore.storage.store_files import copy_regular
from embedstore.storage.transfer import parquet
from embedstore.storage.transfer.manifest import ArchiveFile, ArchiveManifest, changed_heads, read_manifest

MAX_FILE_BYTES = 1 << 30  # float32 vectors of one Parquet file: they are read at once


def read_archive(folder: Path, target: Path) -> dict[str, int]:
    """Make a store from what :func:`~embedstore.storage.transfer.write_archive.write_archive` wrote.

    Args:
        folder: the archive.
        target: a new folder.

    Returns:
        The number of rows per table, and ``vectors``.

    Raises:
        StoreNotFound: if there is nothing at ``folder``.
        NotAStore: if the folder is no archive.
        StoreTooNew: if a later version wrote the archive.
        StoreExists: if ``target`` exists and is not an empty folder; nothing is overwritten.
        StoreDamaged: if a file of the archive is missing, changed, or contradicts another; nothing is created.
        StoreUnreadable: if a file cannot be read now; nothing is created.
        StoreIOError: if the disk refuses; nothing is left at ``target``.
    """
    folder = folder.absolute()
    manifest = read_manifest(folder)
    try:
        layout.create_folder(target, lambda at: _fill(folder, manifest, at))
    except duckdb.Error as e:  # of the new store's own catalog: errors in the archive are StoreDamaged already
        raise StoreIOError(f"cannot create {target}: {first_line(e)}; nothing is left of it") from e
    return manifest.row_counts


def _fill(folder: Path, manifest: ArchiveManifest, at: Layout) -> None:
    """Write the whole store to its temporary folder.

    Raises:
        StoreDamaged: if a file of the archive is missing, changed, or contradicts another.
    """
    with _new_catalog(at) as con:
        for name, file in manifest.tables.items():
            _read_table(con, folder, name, file)
        _read_vectors(con, folder, manifest.vectors, at)
        for file in manifest.files:
            (at.root / file.name).parent.mkdir(parents=True, exist_ok=True)
            copy_regular(file.verify(folder), at.root / file.name)
        heads = con.execute("SELECT head, facts FROM cat.heads").fetchall()
        if changed := changed_heads(at.root, heads):
            raise StoreDamaged(f"the files of head {changed[0]} are not in {folder}; export the store again")
        con.execute(
            "UPDATE cat.counters SET generation = 0, next_shard = (SELECT coalesce(max(shard), 0) + 1 FROM cat.shards)"
        )
        con.execute("CHECKPOINT cat")
    report = verify(Storage(at))
    require_readable(report.unread)
    if report.damage:
        first = report.damage[0]
        raise StoreDamaged(f"{folder} contradicts itself: {first.file}: {first.problem}; export the store again")


@contextmanager
def _new_catalog(at: Layout) -> Iterator[duckdb.DuckDBPyConnection]:
    """Create a catalog and keep it attached: DuckDB empties a file that it cannot see when it is attached again."""
    with connection.connect() as con:
        connection.attach_new_file(con, at.catalog)
        try:
            migrations.apply_pending(con)
            commit_counter.reset(at.root, 0)
            yield con
        finally:
            with suppress(duckdb.Error):  # a failure of the disk may have detached it
                con.execute("DETACH cat")


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    """Raise what DuckDB and NumPy say of a file's content as StoreDamaged; errors of the disk pass."""
    try:
        yield
    except (duckdb.Error, ValueError, AttributeError) as e:
        if isinstance(e, StoreDamaged):
            raise
        if isinstance(e, duckdb.Error) and (problem := read_problem(e, path)):
            raise problem from e
        if not is_disk_error(e) and (problem := passing_error_of_named_file(str(e))):  # of the store that is made
            raise problem from e
        if "No files found" in str(e):  # DuckDB hides why; the file was compared with its checksum just before
            raise StoreUnreadable(f"cannot read {path} now: it was there a moment ago; run it again") from e
        if is_disk_error(e):
            raise
        raise StoreDamaged(f"{path} is not what an export holds: {first_line(e)}") from e


def _read_table(con: duckdb.DuckDBPyConnection, folder: Path, name: str, file: ArchiveFile) -> None:
    """Fill one table of the catalog; the user's own columns are added to the items.

    Raises:
        StoreDamaged: if the file is not the table that the manifest describes.
    """
    path = file.verify(folder)
    source = parquet_source(path)
    with _archive_errors(path):
        con.execute(f"DELETE FROM cat.{name}")
        existing, given = column_types(con, f"cat.{name}").keys(), column_types(con, f"FROM {source}")
        # a type goes through DuckDB's parser: text from a stranger never becomes part of SQL
        types = {c: str(con.type(file.text_columns[c])) if c in file.text_columns else t for c, t in given.items()}
        if name != "items" and (unknown := types.keys() - existing):
            raise StoreDamaged(f"{path} has the columns {', '.join(sorted(unknown))}, which a store does not have")
        insert_rows(con, f"cat.{name}", source, types)
        _require_rows(int(fetch_value(con, f"SELECT count(*) FROM cat.{name}")), file, path)


def _require_rows(rows: int, file: ArchiveFile, path: Path) -> None:
    """Compare the number of rows with the manifest."""
    if rows != file.rows:
        raise StoreDamaged(f"{path} has {rows} rows instead of {file.rows}; export the store again")


@dataclass(frozen=True)
class _NewSpace:
    """A space of the new store."""

    key: str
    dim: int
    dtype: str


def _read_vectors(con: duckdb.DuckDBPyConnection, folder: Path, files: list[ArchiveFile], at: Layout) -> None:
    """Write a vector file for every Parquet file of vectors and register its rows."""
    spaces = _create_spaces(con, folder, at)
    for number, file in enumerate(files, 1):
        path, space = folder / file.name, spaces.get(file.space)
        if space is None:
            raise StoreDamaged(f"{path} is of space {file.space!r}, which the export does not have")
        if file.rows < 1 or 4 * file.rows * space.dim > MAX_FILE_BYTES:
            raise StoreDamaged(f"{path} has {file.rows} vectors of {space.dim} values: no export writes such a file")
        header, contents = _convert_vectors(con, file.verify(folder), file, space, at.shard_file(space.key, number))
        con.execute("USE cat")
        insert_shard(con, header, contents)
        con.execute("USE memory")


def _convert_vectors(
    con: duckdb.DuckDBPyConnection, path: Path, file: ArchiveFile, space: _NewSpace, target: Path
) -> tuple[shard.ShardHeader, list[str]]:
    """Write one Parquet file of vectors as a vector file; return its header and contents.

    Raises:
        StoreDamaged: if the file is not what the manifest describes, or a vector cannot be stored.
    """
    source = parquet_source(path)
    with _archive_errors(path):
        _require_rows(int(fetch_value(con, f"SELECT count(*) FROM {source}")), file, path)
        contents = [content_hex(c) for c in fetch_column(con, f"SELECT content::UUID::VARCHAR FROM {source}")]
        vectors = parquet.read_vectors(con, f"SELECT vector FROM {source}", space.dim)
    with np.errstate(over="ignore", invalid="ignore"):
        stored = vectors.astype(shard.DTYPES[space.dtype])
    if not (np.isfinite(stored).all() and stored.any(axis=1).all()):
        raise StoreDamaged(f"{path} has a vector that is not finite, is zero, or does not fit {space.dtype}")
    number = int(target.stem)
    return shard.write_shard(target, space=space.key, number=number, vectors=stored, contents=contents), contents


def _create_spaces(con: duckdb.DuckDBPyConnection, folder: Path, at: Layout) -> dict[str, _NewSpace]:
    """Create the folder and the description of every space; return the spaces by key.

    Raises:
        StoreDamaged: if the facts of a space do not give its key.
    """
    spaces = {}
    rows = con.execute("SELECT space, name, dim, dtype, facts, recipe FROM cat.spaces").fetchall()
    for key, name, dim, dtype, facts, recipe in rows:
        try:
            space = Space.from_json(facts)
            if space.key != key or space.dim != dim or dtype not in shard.DTYPES:
                raise ValueError("its facts do not give its key")
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise StoreDamaged(f"{folder} does not say what space {name!r} means ({e}); export the store again") from e
        at.shards_folder(key).mkdir(parents=True)
        SpaceFile(name, dtype, facts, recipe).write(at.space_file(key))
        spaces[key] = _NewSpace(key, dim, dtype)
    return spaces

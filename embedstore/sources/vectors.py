"""Vectors that were computed elsewhere, and the table that names the image of each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadVectors
from embedstore.sources import vector_files
from embedstore.sources.local_files import stat_file
from embedstore.sources.manifest import open_table, required_uri, root_folder
from embedstore.sources.table_entries import TableEntries, column_roles
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import InputTable
from embedstore.sources.uris import UriResolver, names_a_path, remote_scheme
from embedstore.storage.item_columns import FileColumns
from embedstore.storage.sql import decode_path
from embedstore.threads import map_parts
from embedstore.types import ImageRef, display_uri

CHUNK_ROWS = 8192
_HASHED_ROWS = 8192  # by one thread at a time
MAX_LISTED_ROWS = 5  # bad rows that a message names


@dataclass(frozen=True)
class VectorTable:
    """Vectors and their rows, read in chunks.

    Attributes:
        description: one line for the run's record.
        columns: the user's own, name to DuckDB type.
        dim: the dimension of a vector.
        rows: the number of vectors.
        notices: what a person should know about the table, one sentence each.
        stated_columns: which of ``label``, ``split`` and ``group`` the table has a column for.
    """

    description: str
    columns: dict[str, str]
    dim: int
    rows: int
    notices: list[str]
    stated_columns: tuple[str, ...]
    _vectors: NDArray[Any] = field(repr=False, compare=False)
    _entries: TableEntries = field(repr=False, compare=False)
    _names_files: bool = True

    def batches(self, batch_rows: int = CHUNK_ROWS) -> Iterator[tuple[FileColumns, list[str], NDArray[np.float32]]]:
        """Yield the files, content digests and float32 vectors ``(n, D)``, in the order of the rows."""
        first, named = 0, _NamedFiles()
        for rows in self._entries.columns_in_chunks(batch_rows):
            vectors = _as_float32(self._vectors[first : first + len(rows)])
            yield named.with_facts(rows) if self._names_files else rows, vector_digests(vectors), vectors
            first += len(rows)

    def blocks(self, block_rows: int = CHUNK_ROWS) -> Iterator[NDArray[np.float32]]:
        """Yield the float32 vectors alone, ``(n, D)``, in the order of the rows."""
        for first in range(0, self.rows, block_rows):
            yield _as_float32(self._vectors[first : first + block_rows])

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` and the user's own columns, typed."""
        self._entries.write_columns(parquet)


def open_vectors(
    vectors: str | Path | NDArray[Any], table: Any = None, options: TableOptions = TableOptions()
) -> VectorTable:
    """Open vectors and the table that describes them.

    Args:
        vectors: a ``.npy`` file, read by memory map, a Parquet file with a column of vectors, or an array, ``(N, D)``.
        table: CSV, TSV, Parquet or JSON; a dict of columns, a DataFrame or an Arrow table; N rows in the vectors'
            order. None if nothing is known about the vectors but the other columns of their Parquet file.
        options: how the table is read. Without a column of uris, a row is named ``<file>#<row from 0>``. A uri that is
            a path, relative to the table's folder or the root, becomes absolute, whether or not there is a file yet: so
            images that are embedded later are the same items.

    Raises:
        SourceNotFound: if a file does not exist.
        BadVectors: if the vectors are not numbers of the shape ``(N, D)``, if a row has NaN, infinite values or only
            zeros, or if the table has another number of rows.
        BadManifest: if the table cannot be read or lacks the named column, or if a uri is empty or occurs twice.
        BadEncoding: if a text file has another encoding.
    """
    array, name, described = _load_vectors(vectors, options)
    _check_vectors(array, name)
    tables = described if table is None else open_table(table, options)
    tables = tables or InputTable.of_row_numbers(len(array))
    if tables.row_count() != len(array):
        raise BadVectors(
            f"{name} has {len(array)} vectors and {tables.name} has {tables.row_count()} rows; "
            "the numbers must be equal"
        )
    roles = column_roles(tables.columns(), options.uri_column, tables.name)
    uris = UriResolver(root_folder(tables, options))
    path_of = _path_from_uri(uris, tables.name) if "uri" in roles else _path_from_row(name)
    cure = "" if "uri" in roles else ", or name the column of the images as uri_column"
    entries = TableEntries(tables, roles=roles, path_of=path_of, cure=cure)
    notices = [*tables.notices, *entries.notes, *uris.notes()]
    return VectorTable(
        name,
        entries.columns,
        dim=array.shape[1],
        rows=len(array),
        notices=notices,
        stated_columns=entries.stated_columns,
        _vectors=array,
        _entries=entries,
        _names_files="uri" in roles,
    )


def vector_digests(vectors: NDArray[np.float32]) -> list[str]:
    """Return the contents of items whose images are unknown: the digests of their vectors, 32 hexadecimal digits."""
    parts = (vectors[first : first + _HASHED_ROWS] for first in range(0, len(vectors), _HASHED_ROWS))
    return [digest for digests in map_parts(_digests, parts) for digest in digests]


def _digests(vectors: NDArray[np.float32]) -> list[str]:
    """Return the digests of some vectors."""
    start, digests = hashlib.sha256(b"vector:"), []
    data = np.ascontiguousarray(vectors, dtype="<f4").data.cast("B")
    size = len(data) // max(1, len(vectors))
    for first in range(0, len(data), size or 1):
        digest = start.copy()
        digest.update(data[first : first + size])
        digests.append(digest.hexdigest()[:32])
    return digests


def _load_vectors(
    vectors: str | Path | NDArray[Any], options: TableOptions
) -> tuple[NDArray[Any], str, InputTable | None]:
    """Return the array, its name in messages, and the table that its file has, if any."""
    if not isinstance(vectors, str | os.PathLike):
        array = np.asarray(vectors)
        return array, f"vectors-{hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:8]}", None
    path = os.path.abspath(os.fspath(vectors))  # noqa: PTH100
    if vector_files.is_parquet(path):
        array, table = vector_files.load_parquet(path, options)
        return array, display_uri(path), table
    return vector_files.load_array(path), display_uri(path), None


def _as_float32(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return contiguous float32 in this machine's byte order; a value out of range becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def _check_vectors(vectors: NDArray[Any], name: str) -> None:
    """Raise BadVectors unless the array has two dimensions and every row can be used."""
    if vectors.dtype.kind not in "fiu":
        raise BadVectors(f"{name} holds {vectors.dtype}, not numbers")
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise BadVectors(f"{name} has the shape {vectors.shape}; expected (rows, dimension), both at least 1")
    for first in range(0, len(vectors), CHUNK_ROWS):
        rows = _as_float32(vectors[first : first + CHUNK_ROWS])
        squares = np.einsum("ij,ij->i", rows, rows)
        if np.isfinite(squares).all() and squares.all():
            continue  # of very long and very short rows the squares leave the range: they are looked at one by one
        for problem, bad in {
            "NaN": np.isnan(rows).any(axis=1),
            "infinite values, or values beyond float32": np.isinf(rows).any(axis=1),
            "nothing but zeros": ~rows.any(axis=1),
        }.items():
            if bad.any():
                listed = [str(first + int(i)) for i in np.flatnonzero(bad)]
                more = " and more" if len(listed) > MAX_LISTED_ROWS else ""
                raise BadVectors(
                    f"{name} has {problem} in row {', '.join(listed[:MAX_LISTED_ROWS])}{more} (counted from 0); "
                    "leave these rows out"
                )


def _path_from_uri(uris: UriResolver, table: str) -> Callable[[int, str | None], str]:
    """Return a function that names a row by its uri: a path that is made absolute, or any other name as it is."""

    def path_of(row: int, uri: str | None) -> str:
        uri = required_uri(table, row, uri)
        if remote_scheme(uri):
            return uri
        path = uris.path(uri)
        return path if names_a_path(uri) or os.path.isfile(path) else uri  # noqa: PTH113

    return path_of


def _path_from_row(name: str) -> Callable[[int, str | None], str]:
    """Return a function that names a row by its position."""
    return lambda row, _: f"{name}#{row}"


class _NamedFiles:
    """The files that rows name, for size and mtime; a folder that does not exist is looked for once."""

    def __init__(self) -> None:
        self._is_folder: dict[str, bool] = {}

    def with_facts(self, rows: FileColumns) -> FileColumns:
        """Return the rows with the size and time of those whose uri is a file."""
        size, mtime_ns = rows.size.copy(), rows.mtime_ns.copy()
        for n, path in enumerate(map(decode_path, rows.uri.tolist(), rows.path.tolist())):
            if self._may_exist(path) and isinstance(found := stat_file(path), ImageRef):
                size[n], mtime_ns[n] = found.size, found.mtime_ns
        return replace(rows, size=size, mtime_ns=mtime_ns)

    def _may_exist(self, path: str) -> bool:
        """Return whether the folder of a path exists."""
        folder = path.rpartition("/")[0]
        if folder not in self._is_folder:
            self._is_folder[folder] = os.path.isdir(folder or ("/" if path.startswith("/") else os.curdir))  # noqa: PTH112
        return self._is_folder[folder]

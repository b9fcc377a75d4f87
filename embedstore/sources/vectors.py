"""Vectors that were computed elsewhere, and the table that names the image of each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest, BadVectors, SourceNotFound, did_you_mean
from embedstore.sources.local_files import stat_file
from embedstore.sources.manifest import read_table
from embedstore.sources.table_entries import TableEntries, TableEntry, column_roles
from embedstore.sources.tables import InputTable
from embedstore.sources.uris import local_path, remote_scheme
from embedstore.storage.sql import first_line
from embedstore.types import ImageRef, display_uri

CHUNK_ROWS = 8192
MAX_LISTED_ROWS = 5  # bad rows that a message names


@dataclass(frozen=True)
class VectorTable:
    """Vectors and their rows, read in chunks.

    Attributes:
        description: one line for the run's record.
        columns: the user's own, name to DuckDB type.
        dim: the dimension of a vector.
        rows: the number of vectors.
    """

    description: str
    columns: dict[str, str]
    dim: int
    rows: int
    _vectors: NDArray[Any] = field(repr=False, compare=False)
    _entries: TableEntries = field(repr=False, compare=False)

    def batches(self, batch_rows: int = CHUNK_ROWS) -> Iterator[tuple[list[ImageRef], list[str], NDArray[np.float32]]]:
        """Yield references, content digests and float32 vectors ``(n, D)``, in the order of the rows."""
        first = 0
        for entries in self._entries.chunks(batch_rows):
            vectors = _as_float32(self._vectors[first : first + len(entries)])
            yield [_ref(e) for e in entries], [vector_digest(v) for v in vectors], vectors
            first += len(entries)

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` and the user's own columns, typed."""
        self._entries.write_columns(parquet)


def open_vectors(
    vectors: str | Path | NDArray[Any], table: Any = None, *, uri_column: str | None = None
) -> VectorTable:
    """Open vectors and the table that describes them.

    Args:
        vectors: a ``.npy`` file, read by memory map, or an array, ``(N, D)``.
        table: CSV, TSV, Parquet or JSON lines; a dict of columns or a DataFrame; N rows in the vectors' order. None
            if nothing is known about the vectors.
        uri_column: the column that names the images; by default ``uri``. Without one, a row is named
            ``<file>#<row from 0>``. A uri that is a file's path (relative to the table's folder) becomes absolute.

    Raises:
        SourceNotFound: if a file does not exist.
        BadVectors: if the vectors are not numbers of the shape ``(N, D)``, if a row has NaN, infinite values or only
            zeros, or if the table has another number of rows.
        BadManifest: if the table cannot be read or lacks the named column, or if a uri is empty or occurs twice.
    """
    array, name = _load_array(vectors)
    _check_vectors(array, name)
    tables, folder, table_name = _load_table(table, len(array))
    if tables.row_count() != len(array):
        raise BadVectors(
            f"{name} has {len(array)} vectors and {table_name} has {tables.row_count()} rows; the numbers must be equal"
        )
    roles = column_roles(tables.columns())
    if uri_column is not None:
        roles["uri"] = _find_column(tables.columns(), uri_column, table_name)
    path_of = _path_from_uri(folder, table_name) if "uri" in roles else _path_from_row(name)
    cure = "" if "uri" in roles else ", or name the column of the images as uri_column"
    entries = TableEntries(tables, name=table_name, roles=roles, path_of=path_of, cure=cure)
    return VectorTable(name, entries.columns, array.shape[1], len(array), array, entries)


def vector_digest(vector: NDArray[np.float32]) -> str:
    """Return the content of an item whose image is unknown: the digest of its vector, 32 hexadecimal digits."""
    return hashlib.sha256(b"vector:" + vector.astype("<f4", copy=False).tobytes()).hexdigest()[:32]


def _load_array(vectors: str | Path | NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Return the array and its name in messages."""
    if not isinstance(vectors, str | os.PathLike):
        array = np.asarray(vectors)
        return array, f"vectors-{hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:8]}"
    path = os.path.abspath(os.fspath(vectors))  # noqa: PTH100
    if not os.path.isfile(path):  # noqa: PTH113
        raise SourceNotFound(f"{path} is not a file")
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        raise BadVectors(f"{path} cannot be read as a .npy array: {first_line(e)}") from e
    if not isinstance(loaded, np.ndarray):
        raise BadVectors(f"{path} holds several arrays; save the one of vectors with numpy.save")
    return loaded, display_uri(path)


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


def _load_table(table: Any, rows: int) -> tuple[InputTable, str, str]:
    """Return the table in DuckDB, the folder that its relative uris start from, and its name in messages."""
    if isinstance(table, str | os.PathLike):
        path = os.path.abspath(os.fspath(table))  # noqa: PTH100
        return read_table(path), os.path.dirname(path), path  # noqa: PTH120
    tables = InputTable()
    if table is None:
        tables.load_row_numbers(rows)
        return tables, "", "no table"
    try:
        tables.load_frame(_as_frame(table))
    except BadVectors:
        raise
    except (duckdb.Error, ValueError, TypeError) as e:
        raise BadManifest(
            f"the table cannot be read ({first_line(e)}); give a file, a dict of columns or a DataFrame"
        ) from e
    return tables, str(Path.cwd()), "the table"


def _as_frame(table: Any) -> Any:
    """Return a dict of columns as arrays that DuckDB reads, and any other table unchanged."""
    if not isinstance(table, Mapping):
        return table
    columns = {str(k): np.asarray(v) for k, v in table.items()}
    lengths = {k: len(v) for k, v in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadVectors(f"the table's columns differ in length: {lengths}")
    return {k: v.astype(object) if v.dtype.kind in "US" else v for k, v in columns.items()}


def _find_column(columns: Mapping[str, str], wanted: str, table_name: str) -> str:
    """Return the column of that name, in upper or lower case."""
    for column in columns:
        if column.lower() == wanted.lower():
            return column
    known = ", ".join(columns)
    raise BadManifest(f"{table_name} has no column {wanted!r} (it has {known}){did_you_mean(wanted, columns)}")


def _path_from_uri(folder: str, table_name: str) -> Callable[[int, str | None], str]:
    """Return a function that names a row by its uri."""

    def path_of(row: int, uri: str | None) -> str:
        if uri is None or not uri.strip():
            raise BadManifest(f"{table_name}: row {row + 1} has no uri")
        if remote_scheme(uri):
            return uri
        path = local_path(uri, folder=folder)
        return path if os.path.isfile(path) else uri  # noqa: PTH113

    return path_of


def _path_from_row(name: str) -> Callable[[int, str | None], str]:
    """Return a function that names a row by its position."""
    return lambda row, _: f"{name}#{row}"


def _ref(entry: TableEntry) -> ImageRef:
    """Return the reference of one row, with size and mtime if its uri is a file."""
    _, path, label, split, group = entry
    found = stat_file(path, label, split, group)
    return found if isinstance(found, ImageRef) else ImageRef(display_uri(path), path, 0, 0, label, split, group)

"""Vectors that were computed elsewhere, and the table that says what they are of."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest, BadVectors, SourceNotFound, did_you_mean
from embedstore.sources.manifest import read_table
from embedstore.sources.table_entries import TableEntries, TableEntry, column_roles
from embedstore.sources.tables import InputTable, first_error_line
from embedstore.sources.uris import local_path, remote_scheme
from embedstore.types import ImageRef, display_uri

CHUNK_ROWS = 8192
MAX_LISTED_ROWS = 5  # bad rows named in a message


@dataclass(frozen=True)
class VectorTable:
    """Vectors and their rows, read in chunks.

    Attributes:
        description: one line for the run's record.
        columns: the user's own, name to DuckDB type.
        dim: of a vector. rows: how many.
    """

    description: str
    columns: dict[str, str]
    dim: int
    rows: int
    _vectors: NDArray[Any] = field(repr=False, compare=False)
    _entries: TableEntries = field(repr=False, compare=False)

    def batches(self, batch_rows: int = CHUNK_ROWS) -> Iterator[tuple[list[ImageRef], list[str], NDArray[np.float32]]]:
        """References, content digests and float32 ``(n, D)``, in the order of the rows."""
        first = 0
        for entries in self._entries.chunks(batch_rows):
            vectors = _float32(self._vectors[first : first + len(entries)])
            yield [_ref(e) for e in entries], [vector_digest(v) for v in vectors], vectors
            first += len(entries)

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` and the user's own columns, typed."""
        self._entries.write_columns(parquet)


def open_vectors(
    vectors: str | Path | NDArray[Any], table: Any = None, *, uri_column: str | None = None
) -> VectorTable:
    """Vectors and the table beside them.

    Args:
        vectors: a ``.npy`` file, read by memory map, or an array, ``(N, D)``.
        table: CSV, TSV, Parquet or JSON lines; a dict of columns or a DataFrame; N rows in the vectors' order. None
            where nothing is known of them.
        uri_column: which column names the images; by default ``uri``. Without one, a row is named
            ``<file>#<row from 0>``. A uri that is a file's path (relative to the table's folder) becomes absolute.

    Raises:
        SourceNotFound: a file that is not there.
        BadVectors: not numbers, not ``(N, D)``, NaN, infinite or zero rows, or another number of rows in the table.
        BadManifest: the table cannot be read, lacks the column named, or its uris are empty or there twice.
    """
    given, name = _given(vectors)
    _check(given, name)
    tables, folder, label = _table(table, len(given))
    if tables.row_count() != len(given):
        raise BadVectors(
            f"{name} has {len(given)} vectors and {label} has {tables.row_count()} rows; they must be as many"
        )
    roles = column_roles(tables.columns())
    if uri_column is not None:
        roles["uri"] = _column(tables.columns(), uri_column, label)
    path_of = _named(folder, label) if "uri" in roles else _numbered(name)
    cure = "" if "uri" in roles else ", or name the column of the images as uri_column"
    entries = TableEntries(tables, name=label, roles=roles, path_of=path_of, cure=cure)
    return VectorTable(name, entries.columns, given.shape[1], len(given), given, entries)


def vector_digest(vector: NDArray[np.float32]) -> str:
    """The content of an item whose image is not here: of its vector, 32 hexadecimal digits."""
    return hashlib.sha256(b"vector:" + vector.astype("<f4", copy=False).tobytes()).hexdigest()[:32]


def _given(vectors: str | Path | NDArray[Any]) -> tuple[NDArray[Any], str]:
    """The array, and what to call it."""
    if not isinstance(vectors, str | os.PathLike):
        array = np.asarray(vectors)
        return array, f"vectors-{hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:8]}"
    path = os.path.abspath(os.fspath(vectors))  # noqa: PTH100
    if not os.path.isfile(path):  # noqa: PTH113
        raise SourceNotFound(f"{path} is not a file")
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        raise BadVectors(f"{path} cannot be read as a .npy array: {first_error_line(e)}") from e
    if not isinstance(loaded, np.ndarray):
        raise BadVectors(f"{path} holds several arrays; save the one of vectors with numpy.save")
    return loaded, path


def _float32(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Contiguous float32 in this machine's byte order; what does not fit becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def _check(vectors: NDArray[Any], name: str) -> None:
    """Numbers, two dimensions, every row usable."""
    if vectors.dtype.kind not in "fiu":
        raise BadVectors(f"{name} holds {vectors.dtype}, not numbers")
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise BadVectors(f"{name} has the shape {vectors.shape}; expected (rows, dimension), both at least 1")
    for first in range(0, len(vectors), CHUNK_ROWS):
        rows = _float32(vectors[first : first + CHUNK_ROWS])
        for what, bad in {
            "NaN": np.isnan(rows).any(axis=1),
            "infinite values, or values beyond float32": np.isinf(rows).any(axis=1),
            "nothing but zeros": ~rows.any(axis=1),
        }.items():
            if bad.any():
                at = np.flatnonzero(bad)
                shown = ", ".join(str(first + int(i)) for i in at[:MAX_LISTED_ROWS]) + (
                    " and more" if len(at) > MAX_LISTED_ROWS else ""
                )
                raise BadVectors(f"{name} has {what} in row {shown} (counted from 0); leave these rows out")


def _table(table: Any, rows: int) -> tuple[InputTable, str, str]:
    """The table in DuckDB, what its relative uris are relative to, and what to call it."""
    if isinstance(table, str | os.PathLike):
        path = os.path.abspath(os.fspath(table))  # noqa: PTH100
        return read_table(path), os.path.dirname(path), path  # noqa: PTH120
    tables = InputTable()
    if table is None:
        tables.load_row_numbers(rows)
        return tables, "", "no table"
    try:
        tables.take(_columns(table))
    except BadVectors:
        raise
    except (duckdb.Error, ValueError, TypeError) as e:
        raise BadManifest(
            f"the table cannot be read ({first_error_line(e)}); give a file, a dict of columns or a DataFrame"
        ) from e
    return tables, str(Path.cwd()), "the table"


def _columns(table: Any) -> Any:
    """A dict of arrays, or the frame as it is."""
    if not isinstance(table, Mapping):
        return table
    columns = {str(k): np.asarray(v) for k, v in table.items()}
    lengths = {k: len(v) for k, v in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadVectors(f"the table's columns differ in length: {lengths}")
    return {k: v.astype(object) if v.dtype.kind in "US" else v for k, v in columns.items()}


def _column(columns: Mapping[str, str], wanted: str, name: str) -> str:
    """The column of that name, in any case."""
    for column in columns:
        if column.lower() == wanted.lower():
            return column
    raise BadManifest(f"{name} has no column {wanted!r} (it has {', '.join(columns)}){did_you_mean(wanted, columns)}")


def _named(folder: str, name: str) -> Callable[[int, str | None], str]:
    """Names from the uri column."""

    def path_of(row: int, uri: str | None) -> str:
        if uri is None or not uri.strip():
            raise BadManifest(f"{name}: row {row + 1} has no uri")
        if remote_scheme(uri):
            return uri
        path = local_path(uri, folder=folder)
        return path if os.path.isfile(path) else uri  # noqa: PTH113

    return path_of


def _numbered(name: str) -> Callable[[int, str | None], str]:
    """Names from the position."""
    return lambda row, _: f"{name}#{row}"


def _ref(entry: TableEntry) -> ImageRef:
    """The reference of one row; size and mtime where its uri is a file."""
    _, path, label, split, group = entry
    size = mtime_ns = 0
    try:
        s = os.stat(path)  # noqa: PTH116
        if stat.S_ISREG(s.st_mode):
            size, mtime_ns = s.st_size, s.st_mtime_ns
    except (OSError, ValueError):
        pass
    return ImageRef(display_uri(path), path, size, mtime_ns, label, split, group)

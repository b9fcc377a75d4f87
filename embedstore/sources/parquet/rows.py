"""The images of Parquet files that this process has open: one image by the number of its row.

A row is read with its neighbors, since DuckDB decodes 2,048 rows of a row group at once anyway; few such windows stay
in memory.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, TypeVar

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest, ImageError
from embedstore.sources.local_files import check_size, max_file_bytes, stat_file
from embedstore.sources.parquet.columns import ROW_NUMBER, holds_bytes, holds_text
from embedstore.sources.parquet.empty_rows import NO_TEXT
from embedstore.sources.parquet.footer import IMAGE_FIELD, Footer, RowGroup, read_footer, read_row_groups, rows_of
from embedstore.sources.parquet.row_uri import RowUri
from embedstore.storage import forks
from embedstore.storage.connection import connect, memory_limit
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import first_line
from embedstore.types import Failure, FailureReason

T = TypeVar("T")

MAX_OPEN_FILES = 16
MEMORY_BYTES = 1_000_000_000  # of DuckDB, for one page of images and the rows around the one that is read
WINDOW_BYTES = 8 << 20  # of images that are read at once
WINDOW_ROWS = 256
KEPT_WINDOWS = 8  # besides the last one of each thread

StoredImage = tuple[int | None, bytes | None]  # size and bytes

_NANOSECONDS = 1_000_000_000  # of a second


class ImageColumn:
    """A column of images in one state of a Parquet file; many threads may use it.

    Args:
        path: the file.
        column: the column, of bytes, of Hugging Face's structure, or of texts, which are read as UTF-8.
        version_ns: the state of the file.

    Attributes:
        path: the path of the file.
        column: its name.
        version_ns: the state of the file.
        footer: the columns of the file.
        holds_texts: its values are texts, not images.

    Raises:
        ImageError: if the file cannot be read or has no such column.
    """

    def __init__(self, path: str, column: str, version_ns: int) -> None:
        self.path, self.column, self.version_ns = path, column, version_ns
        self.footer = read_file_footer(path)
        self._value = _value_expression(self.footer, column)
        self.holds_texts = holds_text(self.footer.types[column])
        self._groups = _read_or_fail(lambda con: read_row_groups(con, path, column))
        self._firsts = [group.first for group in self._groups]
        self._lock = threading.Lock()
        self._last = threading.local()  # the window of a thread, which other threads must not push out
        forks.reset_in_child(self, ImageColumn._forget_lock)

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return self._groups[-1].first + self._groups[-1].rows if self._groups else 0

    @property
    def statistics_tell_nulls(self) -> bool:
        """Whether the statistics say which rows have no bytes: in each row group none, or all."""
        return all(group.nulls in (0, group.rows) for group in self._groups)

    def mean_bytes(self, row: int) -> int:
        """Return the mean size of the images in the row's group.

        Raises:
            ImageError: if there is no such row.
        """
        return self._group(row).mean_bytes

    def read(self, row: int) -> bytes:
        """Return the image in a row.

        Raises:
            ImageError: if there is none, it is too large or cannot be read.
        """
        first, count = self._window(row)
        try:
            size, data = self._rows_of_window(first, count)[row - first]
        except ImageError:
            if count == 1:
                raise
            size, data = self.read_rows(row, 1)[0]  # a neighbor may be what cannot be read
        if size is None:
            raise ImageError(*(NO_TEXT if self.holds_texts else (FailureReason.MISSING, "the row has no bytes")))
        if size == 0:
            raise ImageError(*(NO_TEXT if self.holds_texts else (FailureReason.EMPTY, "it has no bytes")))
        check_size(size)
        return data or b""

    def _rows_of_window(self, first: int, count: int) -> list[StoredImage]:
        """Return the rows of a window, from memory if this thread had it last."""
        if getattr(self._last, "first", None) != first:
            with self._lock:
                self._last.rows = _read_window(self, first, count)
            self._last.first = first
        rows: list[StoredImage] = self._last.rows
        return rows

    def read_rows(self, first: int, count: int) -> list[StoredImage]:
        """Return size and bytes of rows; no bytes where there are none or too many.

        Raises:
            ImageError: if one of them cannot be read.
        """
        query = (
            f"SELECT octet_length(image), CASE WHEN octet_length(image) <= {max_file_bytes()} THEN image END FROM "
            f"(SELECT {ROW_NUMBER} AS n, {self._value} AS image FROM {rows_of(self.path)} "
            f"WHERE {ROW_NUMBER} BETWEEN {first} AND {first + count - 1}) ORDER BY n"
        )
        rows = self._fetch(query)
        if len(rows) != count:
            raise ImageError(FailureReason.CORRUPT, f"the file gives {len(rows)} of {count} rows")
        return rows

    def rows_without_bytes(self) -> NDArray[np.bool_]:
        """Return for every row whether it has no bytes; where the statistics say so, no image is read.

        Raises:
            ImageError: if the file cannot be read.
        """
        without = np.zeros(self.row_count, dtype=np.bool_)
        found = self._fetch(f"SELECT {ROW_NUMBER} FROM {rows_of(self.path)} WHERE {self._value} IS NULL")
        without[[row for (row,) in found]] = True
        return without

    def check_classes(self, conditions: Mapping[str, str]) -> None:
        """Refuse a number of a class that has no name.

        Args:
            conditions: SQL that is true for such a row, by column.

        Raises:
            BadManifest: if there is such a row.
            ImageError: if the file cannot be read.
        """
        for column, condition in conditions.items():
            [(row,)] = self._fetch(f"SELECT min({ROW_NUMBER}) FROM {rows_of(self.path)} WHERE {condition}")
            if row is not None:
                raise BadManifest(
                    f"{self.path}: row {row + 1} has a number in the column {column!r} for which the file's metadata "
                    "names no class; correct the column, or write the file without this metadata"
                )

    def _group(self, row: int) -> RowGroup:
        """Return the row group that holds a row."""
        if not 0 <= row < self.row_count:
            raise ImageError(FailureReason.MISSING, f"the file has no row {row}; it has {self.row_count:,}")
        return self._groups[bisect_right(self._firsts, row) - 1]

    def _window(self, row: int) -> tuple[int, int]:
        """Return the first row and the number of the rows that are read together with one."""
        group = self._group(row)
        size = max(1, min(WINDOW_ROWS, WINDOW_BYTES // group.mean_bytes))
        first = row - (row - group.first) % size
        return first, min(size, group.first + group.rows - first)

    def _fetch(self, query: str) -> list[Any]:
        """Return the rows of a query; raise ImageError if the file cannot be read."""
        return _read_or_fail(lambda con: con.execute(query).fetchall())

    def _forget_lock(self) -> None:
        """Get a new lock: a thread that the child does not have may hold the old one."""
        self._lock = threading.Lock()


class _OpenFiles:
    """The files that are open, and the connection that reads them."""

    def __init__(self) -> None:
        self.forget()
        forks.reset_in_child(self, _OpenFiles._leave_parent)

    def _leave_parent(self) -> None:
        """Forget everything in a forked child, which opens its own; the inherited database is never freed."""
        if self._database is not None:
            forks.never_free(self._database)
        self.forget()

    def forget(self) -> None:
        """Forget everything."""
        self._lock = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None
        self._columns: OrderedDict[tuple[str, str], ImageColumn] = OrderedDict()

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for one thread; all share one limit of memory."""
        with self._lock:
            if self._database is None:
                self._database = connect(
                    memory_limit=memory_limit(MEMORY_BYTES), threads="1", enable_external_file_cache="false"
                )
                # it would read the images of a whole row group; an option of the Parquet reader, not of a new database
                self._database.execute("SET disable_parquet_prefetching = true")
            return self._database.cursor()

    def column(self, path: str, column: str) -> ImageColumn:
        """Return a column of a file as it is now; see :func:`open_column`."""
        version_ns = file_version(path)
        with self._lock:
            opened = self._columns.get((path, column))
            if opened is not None and opened.version_ns == version_ns:
                self._columns.move_to_end((path, column))
                return opened
        opened = ImageColumn(path, column, version_ns)
        with self._lock:
            self._columns[path, column] = opened
            while len(self._columns) > MAX_OPEN_FILES:
                self._columns.popitem(last=False)
        return opened


_files = _OpenFiles()


def open_column(path: str, column: str) -> ImageColumn:
    """Return a column of images of a file as it is now; it stays open for a while.

    Raises:
        ImageError: if the file cannot be read or has no such column.
    """
    return _files.column(path, column)


def read_file_footer(path: str) -> Footer:
    """Return what the footer of a file says.

    Raises:
        ImageError: if it is not a Parquet file that can be read.
    """
    return _read_or_fail(lambda con: read_footer(con, path))


def file_version(path: str) -> int:
    """Return a number that changes with modification time or size of a file: the time, its last digits from both.

    Raises:
        ImageError: if there is no such file.
    """
    found = stat_file(path)
    if isinstance(found, Failure):
        raise ImageError(found.reason, found.detail)
    seconds = found.mtime_ns // _NANOSECONDS
    digest = sha256(f"{found.mtime_ns}:{found.size}".encode()).digest()
    version = seconds * _NANOSECONDS + int.from_bytes(digest[:8], "big") % _NANOSECONDS
    return (version + 2**63) % 2**64 - 2**63  # 64 bits hold it, also at the ends of their range


def read_row(uri: RowUri) -> bytes:
    """Return the image in a row.

    Raises:
        ImageError: if it cannot be read.
    """
    return open_column(uri.file, uri.column).read(uri.row)


def stat_row(uri: RowUri) -> tuple[int, int]:
    """Return the mean size of the images around a row, and the version of the file.

    Raises:
        ImageError: if there is no such file or row.
    """
    column = open_column(uri.file, uri.column)
    return column.mean_bytes(uri.row), column.version_ns


@lru_cache(maxsize=KEPT_WINDOWS)
def _read_window(column: ImageColumn, first: int, count: int) -> list[StoredImage]:
    """Return size and bytes of neighboring rows."""
    return column.read_rows(first, count)


def _read_or_fail(call: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """Call with a connection; raise ImageError if a file cannot be read."""
    con = _files.connection()
    try:
        return call(con)
    except (duckdb.OutOfMemoryException, MemoryError) as e:
        detail = (
            f"a page of the file needs more than {memory_limit(MEMORY_BYTES)}; write the file again with smaller "
            "row groups, by DuckDB: COPY (FROM 'old.parquet') TO 'new.parquet' (ROW_GROUP_SIZE 2048)"
        )
        raise ImageError(FailureReason.NO_MEMORY, detail) from e
    except duckdb.IOException as e:
        raise ImageError(FailureReason.UNREADABLE, first_line(e)) from e
    except UnicodeEncodeError as e:
        raise ImageError(FailureReason.UNREADABLE, "the name of the file is not UTF-8; rename it") from e
    except duckdb.Error as e:
        raise ImageError(FailureReason.CORRUPT, first_line(e)) from e


def _value_expression(footer: Footer, column: str) -> str:
    """Return SQL for the bytes of an image; raise ImageError if there is no such column."""
    if ROW_NUMBER in footer.types:
        detail = f"a column has the name {ROW_NUMBER}, by which DuckDB numbers the rows; rename this column"
        raise ImageError(FailureReason.UNREADABLE, detail)
    if column not in footer.types:
        raise ImageError(FailureReason.MISSING, f"the file has no column {column!r}")
    kind, name = footer.types[column], quote_identifier(column)
    if holds_text(kind):
        return f"encode({name})"
    if not holds_bytes(kind):
        raise ImageError(FailureReason.NOT_AN_IMAGE, f"the column {column!r} holds {kind}, not bytes")
    return f"{name}.{IMAGE_FIELD}" if kind.id == "struct" else name

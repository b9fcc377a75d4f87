"""A table with a column of texts: it is read once, and gives the text of any row."""

from __future__ import annotations

import threading
from functools import lru_cache

from embedstore.errors import BadManifest, ItemError, SourceError, TextError, did_you_mean
from embedstore.sources.local_files import check_size, stat_file
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import ROW_COLUMN, InputTable
from embedstore.sources.text_tables.row_uri import TextRowUri
from embedstore.storage.column_names import ROLE_COLUMNS, find_column
from embedstore.storage.quoting import quote_identifier
from embedstore.types import Failure, FailureReason

WINDOW_ROWS = 256  # rows that are read at once: the texts of a run are read in order
KEPT_TABLES = 4  # that were opened by the uris of items


class TextColumn:
    """A column of texts.

    Args:
        table: the table that was read.
        column: the name of the column, as the user wrote it.

    Attributes:
        table: the table.
        column: the name as the table has it.

    Raises:
        BadManifest: if the table has no such column.
    """

    def __init__(self, table: InputTable, column: str) -> None:
        columns = table.columns()
        found = find_column(column, columns)
        if found is None:
            listed = ", ".join(columns) or "none"
            raise BadManifest(f"{table.name} has no column {column!r} (it has {listed}){did_you_mean(column, columns)}")
        self.table, self.column = table, found
        self._lock = threading.Lock()
        self._first, self._window = -1, list[bytes | None]()

    def sizes(self) -> str:
        """Return SQL for the bytes of a row's text, 0 where there is none."""
        return f"coalesce(octet_length(encode({quote_identifier(self.column)})), 0)"

    def text(self, row: int) -> bytes:
        """Return the text of a row as UTF-8; many threads may call it.

        Raises:
            TextError: if there is no such row, it has no text, or the text is too large.
        """
        with self._lock:
            first = row - row % WINDOW_ROWS
            if first != self._first:
                self._first, self._window = first, self._read(first)
            if row - first >= len(self._window):
                raise TextError(FailureReason.MISSING, f"the table has no row {row}")
            text = self._window[row - first]
        if not text:
            raise TextError(FailureReason.EMPTY, "the cell is empty")
        check_size(len(text))
        return text

    def _read(self, first: int) -> list[bytes | None]:
        """Return the texts of the rows from ``first``."""
        rows = (
            self.table.con.cursor()
            .execute(
                f"SELECT encode({quote_identifier(self.column)}) FROM given "
                f"WHERE {ROW_COLUMN} >= ? AND {ROW_COLUMN} < ? ORDER BY {ROW_COLUMN}",
                [first, first + WINDOW_ROWS],
            )
            .fetchall()
        )
        return [text for (text,) in rows]


def open_text_table(path: str, column: str, options: TableOptions) -> TextColumn:
    """Read a table; the column of texts stays text, and columns with a role are names.

    Raises:
        SourceNotFound: if there is no such file.
        BadManifest: if it cannot be read as a table, or has no such column.
        BadEncoding: if it has another encoding.
    """
    return TextColumn(InputTable.read_file(path, options, (*ROLE_COLUMNS, column.lower())), column)


def read_text_row(uri: TextRowUri) -> bytes:
    """Return the text of a row of a table as it is now.

    Raises:
        ItemError: if it cannot be read.
    """
    version, size = _version(uri.file)
    try:
        table = _kept_table(uri.file, uri.column, uri.encoding, version, size)
    except SourceError as e:
        raise TextError(FailureReason.CORRUPT, str(e)) from e
    return table.text(uri.row)


def stat_text_row(uri: TextRowUri) -> tuple[int, int]:
    """Return the bytes of a row's text, and the version of the table.

    Raises:
        ItemError: if it cannot be read.
    """
    return len(read_text_row(uri)), _version(uri.file)[0]


def _version(path: str) -> tuple[int, int]:
    """Return modification time and size of a table."""
    found = stat_file(path)
    if isinstance(found, Failure):
        raise ItemError(found.reason, found.detail)
    return found.mtime_ns, found.size


@lru_cache(maxsize=KEPT_TABLES)
def _kept_table(path: str, column: str, encoding: str | None, version: int, size: int) -> TextColumn:
    """Return a table in one state of its file."""
    return open_text_table(path, column, TableOptions(encoding=encoding))

"""CSV, TSV, Parquet and JSON lines into a table of DuckDB, typed by DuckDB; memory is bounded, the rest spills."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedstore.storage import connection

ROW_COLUMN = "embedstore_row"  # the position of a row, from 0, in every table made here
MEMORY_LIMIT = "512MB"  # of a table while it is held; the rest lies in a temporary folder

READERS = {
    ".csv": "read_csv({file}, header=true, sample_size=-1{types})",
    ".tsv": "read_csv({file}, header=true, sample_size=-1, delim='\t'{types})",
    ".parquet": "read_parquet({file})",
    ".pq": "read_parquet({file})",
    ".jsonl": "read_json({file}, format='newline_delimited', sample_size=-1)",
    ".ndjson": "read_json({file}, format='newline_delimited', sample_size=-1)",
}
COMPRESSION_SUFFIXES = (".gz", ".zst")


def table_suffix(path: str) -> str | None:
    """The suffix by which a table is read, compression left aside; None where it is no table."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSION_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in READERS else None


class InputTable:
    """A private DuckDB that holds one file as the table ``given``.

    Attributes:
        con: the connection.
    """

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="embedstore-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.con = connection.connect(
            memory_limit=MEMORY_LIMIT,
            temp_directory=folder,
            autoinstall_known_extensions="false",
            autoload_known_extensions="false",
        )

    def load_file(self, path: str, *, as_text: Sequence[str]) -> None:
        """Read a file into ``given``, its rows numbered in their order.

        Args:
            path: of the file; its suffix says what it is.
            as_text: columns, in lower case, whose values are names and not numbers ("007" stays "007").

        Raises:
            duckdb.Error: the file cannot be read as what its suffix says.
        """
        suffix = table_suffix(path) or ".csv"
        file, reader = quote_literal(_escaped(path)), READERS[suffix]
        text = [n for n in self._names(reader.format(file=file, types="")) if n.lower() in as_text]
        types = ", types={" + ", ".join(f"{quote_literal(n)}: 'VARCHAR'" for n in text) + "}" if text else ""
        casts = ", ".join(f"{quote_identifier(n)}::VARCHAR AS {quote_identifier(n)}" for n in text)
        replace = f" REPLACE ({casts})" if casts else ""
        self.con.execute(
            f"CREATE TABLE given AS SELECT row_number() OVER () - 1 AS {ROW_COLUMN}, *{replace} "
            f"FROM {reader.format(file=file, types=types)}"
        )

    def take(self, frame: Any) -> None:
        """Copy a dict of arrays or a DataFrame into ``given``.

        Raises:
            duckdb.Error: DuckDB does not know such an object.
        """
        self.con.execute(f"CREATE TABLE given AS SELECT row_number() OVER () - 1 AS {ROW_COLUMN}, * FROM frame")

    def load_row_numbers(self, rows: int) -> None:
        """Make ``given`` of rows that nothing is known of."""
        self.con.execute(f"CREATE TABLE given AS SELECT range AS {ROW_COLUMN} FROM range(?)", [rows])

    def columns(self) -> dict[str, str]:
        """Name to DuckDB type, without the row number."""
        described = self.con.execute("DESCRIBE given").fetchall()
        return {name: kind for name, kind, *_ in described if name != ROW_COLUMN}

    def row_count(self) -> int:
        """How many."""
        return int(self.con.execute("SELECT count(*) FROM given").fetchall()[0][0])

    def _names(self, reader: str) -> list[str]:
        """The columns that a reader would give."""
        return [row[0] for row in self.con.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()]


def quote_identifier(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def first_error_line(e: Exception) -> str:
    """What DuckDB says, without its advice."""
    return next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__)


def _escaped(path: str) -> str:
    """A file's name that DuckDB takes for no pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)

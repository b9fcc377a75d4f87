"""CSV, TSV, Parquet and JSON lines in a table of DuckDB, typed by DuckDB; memory is bounded, and the rest spills."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedstore.storage.connection import connect
from embedstore.storage.sql import column_types, fetch_value, quote_identifier, quote_literal

ROW_COLUMN = "embedstore_row"  # the position of a row, from 0, in every table created here
MEMORY_LIMIT = "512MB"  # of a table; what exceeds it spills to a temporary folder

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
    """Return the suffix that decides how a table is read, without a suffix of compression; None for other files."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSION_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in READERS else None


class InputTable:
    """A private DuckDB that holds a user's table as ``given``.

    Attributes:
        con: the connection.
    """

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="embedstore-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.con = connect(
            memory_limit=MEMORY_LIMIT,
            temp_directory=folder,
            autoinstall_known_extensions="false",
            autoload_known_extensions="false",
        )

    def load_file(self, path: str, *, as_text: Sequence[str]) -> None:
        """Load a file, and number its rows in their order.

        Args:
            path: the file; its suffix decides how it is read.
            as_text: columns, in lower case, that hold names and not numbers ("007" stays "007").

        Raises:
            duckdb.Error: if the content does not match the suffix.
        """
        suffix = table_suffix(path) or ".csv"
        file, reader = quote_literal(_escape_pattern(path)), READERS[suffix]
        columns = column_types(self.con, f"SELECT * FROM {reader.format(file=file, types='')}")
        text = [name for name in columns if name.lower() in as_text]
        types = ", types={" + ", ".join(f"{quote_literal(n)}: 'VARCHAR'" for n in text) + "}" if text else ""
        casts = ", ".join(f"{quote_identifier(n)}::VARCHAR AS {quote_identifier(n)}" for n in text)
        replace = f" REPLACE ({casts})" if casts else ""
        self.con.execute(
            f"CREATE TABLE given AS SELECT row_number() OVER () - 1 AS {ROW_COLUMN}, *{replace} "
            f"FROM {reader.format(file=file, types=types)}"
        )

    def load_frame(self, frame: Any) -> None:  # DuckDB reads the parameter by its name
        """Load a dict of arrays or a DataFrame.

        Raises:
            duckdb.Error: if DuckDB cannot read such an object.
        """
        self.con.execute(f"CREATE TABLE given AS SELECT row_number() OVER () - 1 AS {ROW_COLUMN}, * FROM frame")

    def load_row_numbers(self, rows: int) -> None:
        """Load rows that have no columns."""
        self.con.execute(f"CREATE TABLE given AS SELECT range AS {ROW_COLUMN} FROM range(?)", [rows])

    def columns(self) -> dict[str, str]:
        """Return the DuckDB type of each column by name, without the row number."""
        return {name: kind for name, kind in column_types(self.con, "given").items() if name != ROW_COLUMN}

    def row_count(self) -> int:
        """Return the number of rows."""
        return int(fetch_value(self.con, "SELECT count(*) FROM given"))


def _escape_pattern(path: str) -> str:
    """Return a file's name so that DuckDB does not take it for a pattern."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)

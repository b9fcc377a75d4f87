"""CSV and TSV as a table of text: the header names the columns, and nothing is guessed but the delimiter."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import duckdb

from embedstore.errors import BadManifest
from embedstore.storage.column_names import INTERNAL_PREFIX, first_double, name_problem, stored_name
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.spreadsheet_cells import restore_cell, restore_sql

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}  # in the order in which they are tried
_SAMPLE_ROWS = 50
_STATEMENT = re.compile(rb"\"?sep=([,;\t|])\"?[\r\n]+")
_MAX_STATEMENT_BYTES = 16
_LINE_BYTES = 1 << 26  # of the longest row: a caption or an embedding as text


def detect_delimiter(file: Path) -> str:
    """Return the delimiter that gives several cells in the header, the same number in the first rows, and the most.

    A row that is too short or too long is then named as such, and does not turn the header into one cell.

    Args:
        file: UTF-8 text.
    """

    def score(delimiter: str) -> tuple[bool, bool, int]:
        rows = _first_rows(file, delimiter)
        cells = len(rows[0]) if rows else 0
        return cells > 1, len({len(row) for row in rows}) == 1, cells

    return max(DELIMITERS, key=score)


def stated_delimiter(file: Path) -> str | None:
    """Return the delimiter of a first line ``sep=;``, which Excel obeys, and remove that line; None without one.

    Args:
        file: UTF-8 text.
    """
    with file.open("rb") as text:
        first = text.readline(_MAX_STATEMENT_BYTES)
    match = _STATEMENT.fullmatch(first)
    if match is None:
        return None
    with file.open("rb") as text, file.with_name(file.name + ".rest").open("wb") as rest:
        text.seek(len(first))
        shutil.copyfileobj(text, rest)
    file.with_name(file.name + ".rest").replace(file)
    return match[1].decode()


def load_delimited(con: duckdb.DuckDBPyConnection, file: Path, table: str, *, delimiter: str, name: str) -> list[str]:
    """Create a table of the rows, in their order, with every cell as text; an empty cell is NULL.

    Where an apostrophe protects a cell from a spreadsheet, it is taken away.

    Args:
        con: the connection.
        file: UTF-8 text, with a header.
        table: the table to create; its first column is the row's number from 0.
        delimiter: one character.
        name: the file's name in messages.

    Returns:
        The names of the columns.

    Raises:
        BadManifest: if there is no header, a column occurs twice, or a row has another number of cells.
    """
    rows = _first_rows(file, delimiter, count=1)
    if not rows:
        raise BadManifest(f"{name} is empty; a table has a header that names its columns")
    columns = column_names(rows[0], name)
    cells = ", ".join(f"{restore_sql(quote_identifier(c))} AS {quote_identifier(c)}" for c in columns)
    types = ", ".join(f"{quote_literal(c)}: 'VARCHAR'" for c in columns)
    only = f" WHERE {quote_identifier(columns[0])} IS NOT NULL" if len(columns) == 1 else ""  # a blank line
    try:
        con.execute(
            f"CREATE TABLE {table} AS SELECT row_number() OVER () - 1 AS embedstore_row, {cells} FROM "
            f"read_csv({quote_literal(file)}, auto_detect=false, header=true, columns={{{types}}}, "
            f"delim={quote_literal(delimiter)}, quote='\"', escape='\"', nullstr='', allow_quoted_nulls=true, "
            f"hive_partitioning=false, compression='none', max_line_size={_LINE_BYTES}){only}"
        )
    except duckdb.Error as e:
        raise BadManifest(f"{name} cannot be read as a table: {_csv_message(e)}") from e
    return columns


def column_names(header: Sequence[str], name: str) -> list[str]:
    """Return the names of columns as a store has them; an empty one gets its number.

    Raises:
        BadManifest: if two names are one for a person, or one is a name of the columns that readers add.
    """
    names = [stored_name(text) or text or f"column{i}" for i, text in enumerate(map(restore_cell, header))]
    for column in names:
        if column.lower().startswith(INTERNAL_PREFIX):
            raise BadManifest(f"{name} has a column {column!r}, {name_problem(column)}")
    if double := first_double(names):
        raise BadManifest(
            f"{name} has the columns {double[0]!r} and {double[1]!r}, which are one name; rename one of them"
        )
    return names


def _first_rows(file: Path, delimiter: str, *, count: int = _SAMPLE_ROWS) -> list[list[str]]:
    """Return the first rows that are not blank."""
    with file.open(encoding="utf-8", newline="") as text:
        rows = csv.reader(text, delimiter=delimiter)
        try:
            return list(itertools.islice((row for row in rows if row), count))
        except csv.Error:  # a cell that is too long for a sample
            return []


def _csv_message(error: duckdb.Error) -> str:
    """Return what is wrong and where, of DuckDB's many lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    facts = itertools.takewhile(lambda line: line and not line.startswith("Possible"), lines)
    return "; ".join(facts).removeprefix("Invalid Input Error: ")[:300] or type(error).__name__

"""The one reader of tables: CSV, TSV, Parquet, JSON, and tables in memory, for every verb that takes one.

Text comes in as text, and its columns are typed by one rule (:mod:`embedstore.sources.column_types`), or by the columns
that the store has already. Memory is bounded; the rest spills to a temporary folder.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from embedstore.errors import BadManifest, SourceNotFound
from embedstore.sources import column_types
from embedstore.sources.column_types import ANY_KIND, TEXT, TypedColumn
from embedstore.sources.decimal_commas import DELIMITERS_OF_COMMAS, Commas, commas_of, replace_commas
from embedstore.sources.delimited import DELIMITERS, column_names, detect_delimiter, load_delimited, stated_delimiter
from embedstore.sources.frames import as_frame, frame_columns
from embedstore.sources.json_tables import JsonKind, load_json
from embedstore.sources.table_options import TableOptions
from embedstore.sources.text_files import write_utf8_copy
from embedstore.storage.connection import connect, memory_limit
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import column_types as sql_types
from embedstore.storage.sql import escape_pattern, fetch_value, first_line
from embedstore.temporary import new_folder, remove

ROW_COLUMN = "embedstore_row"  # the position of a row, from 0, in every table created here
MEMORY_BYTES = 512_000_000  # of a table; what exceeds it spills to a temporary folder
TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".json")
COMPRESSION_SUFFIXES = (".gz", ".zst")
_PARQUET_SUFFIXES = (".parquet", ".pq")
_JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
_KIND_NAMES = {
    JsonKind.TEXT: "text",
    JsonKind.NUMBER: "numbers",
    JsonKind.BOOLEAN: "truth values",
    JsonKind.NESTED: "lists or objects of different kinds",
}
_UNKNOWN_PART = re.compile(
    r'"NULL"(?=[\[\],)])'
)  # the type of a part that has no value; a field's name has a space after it


def table_suffix(path: str) -> str | None:
    """Return the suffix that decides how a table is read, without a suffix of compression; None for other files."""
    suffixes = [s.lower() for s in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSION_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in TABLE_SUFFIXES else None


class InputTable:
    """A private DuckDB that holds a user's table as ``given``, its rows numbered in their order.

    Attributes:
        con: the connection.
        name: the table's name in messages.
        folder: the folder that its relative uris start from, unless the user names another.
        notices: what a person should know about the reading, one sentence each.
    """

    def __init__(self, name: str = "the table", folder: str = "") -> None:
        spill = new_folder("table-")
        weakref.finalize(self, remove, spill)
        self.name, self.folder = name, folder
        self.notices: list[str] = []
        self._spill = spill
        self._may_have_decimal_commas = False
        self.con = connect(
            memory_limit=memory_limit(MEMORY_BYTES),
            temp_directory=str(spill),
            autoinstall_known_extensions="false",
            autoload_known_extensions="false",
            pandas_analyze_sample=str(2**31 - 1),  # a value that differs from all before it must not be converted
        )

    @classmethod
    def read_file(cls, path: str, options: TableOptions, as_text: Collection[str]) -> InputTable:
        """Read a file; its suffix decides how.

        Args:
            path: the file, whatever characters its name has.
            options: how it is read.
            as_text: columns, in lower case, that hold names and not numbers ("007" stays "007").

        Raises:
            SourceNotFound: if there is no such file.
            BadManifest: if the suffix is not a table's, the content does not match it, or a value does not fit a column
                of the store.
            BadEncoding: if a text file has another encoding.
            BadOption: if there is no such encoding.
        """
        if not os.path.isfile(path):  # noqa: PTH113
            raise SourceNotFound(f"{path} is not a file")
        suffix = table_suffix(path)
        if suffix is None:
            raise BadManifest(f"{path} is not of a kind that is read as a table ({', '.join(TABLE_SUFFIXES)})")
        absolute = os.path.abspath(path)  # noqa: PTH100
        self = cls(absolute, os.path.dirname(absolute))  # noqa: PTH120
        kinds = self._load_parquet(path) if suffix in _PARQUET_SUFFIXES else self._load_text(path, suffix, options)
        self._create_given(kinds, options, as_text)
        return self

    @classmethod
    def read_frame(cls, table: Any, options: TableOptions, as_text: Collection[str]) -> InputTable:
        """Read a table in memory: a dict of columns, a DataFrame of pandas or polars, an Arrow table.

        Raises:
            BadManifest: if it cannot be read, or a value does not fit a column of the store.
        """
        self = cls("the table", str(Path.cwd()))
        column_names(frame_columns(table), self.name)  # before DuckDB renames the second of two equal names
        frame = as_frame(table)  # noqa: F841 - read by SQL
        try:
            self.con.execute(f"CREATE TABLE raw AS SELECT row_number() OVER () - 1 AS {ROW_COLUMN}, * FROM frame")
        except (duckdb.Error, ValueError, TypeError) as e:
            raise BadManifest(
                f"the table cannot be read ({first_line(e)}); give a file, a dict of columns, a DataFrame of pandas or "
                "polars, or an Arrow table"
            ) from e
        self._create_given({}, options, as_text)
        return self

    @classmethod
    def of_row_numbers(cls, rows: int) -> InputTable:
        """Return a table of rows that have no columns."""
        self = cls("no table", "")
        self.con.execute(f"CREATE TABLE given AS SELECT range AS {ROW_COLUMN} FROM range(?)", [rows])
        return self

    def load_parts(self, queries: Sequence[str], options: TableOptions, as_text: Collection[str]) -> list[int | str]:
        """Load the rows of several queries one after the other; columns of one name are one column.

        Args:
            queries: each numbers its rows from 0.
            options: how the table is read.
            as_text: columns, in lower case, that hold names.

        Returns:
            For each query the number of its first row in the table, or why it cannot be read.

        Raises:
            BadManifest: if the columns of the queries do not fit together, or a value does not fit a column of the
                store.
        """
        empty = " UNION ALL BY NAME ".join(f"(SELECT * FROM ({query}) LIMIT 0)" for query in queries)
        try:
            self.con.execute(f"CREATE TABLE raw AS {empty}")
        except duckdb.Error as e:
            raise BadManifest(f"{self.name}: the columns do not fit together: {first_line(e)}") from e
        firsts = [self._load_part(query) for query in queries]
        self._create_given({}, options, as_text)
        return firsts

    def columns(self) -> dict[str, str]:
        """Return the DuckDB type of each column by name, without the row number."""
        return {name: kind for name, kind in sql_types(self.con, "given").items() if name != ROW_COLUMN}

    def row_count(self) -> int:
        """Return the number of rows."""
        return int(fetch_value(self.con, "SELECT count(*) FROM given"))

    def _load_part(self, query: str) -> int | str:
        """Append the rows of a query to ``raw``; return the number of the first, or why it cannot be read."""
        first = int(fetch_value(self.con, "SELECT count(*) FROM raw"))
        try:
            self.con.execute(
                f"INSERT INTO raw BY NAME SELECT {ROW_COLUMN} + {first} AS {ROW_COLUMN}, * EXCLUDE ({ROW_COLUMN}) "
                f"FROM ({query})"
            )
        except duckdb.Error as e:
            return first_line(e)
        return first

    def _load_parquet(self, path: str) -> dict[str, JsonKind]:
        """Load a Parquet file as ``raw``, typed as it says."""
        file = quote_literal(escape_pattern(path))
        try:
            nodes = self.con.execute(f"SELECT name, num_children FROM parquet_schema({file})").fetchall()
            column_names(_top_level(nodes), self.name)  # before DuckDB renames the second of two equal names
            self.con.execute(
                f"CREATE TABLE raw AS SELECT row_number() OVER () - 1 AS {ROW_COLUMN}, * "
                f"FROM read_parquet({file}, hive_partitioning=false)"
            )
        except duckdb.Error as e:
            raise BadManifest(f"{self.name} cannot be read as a table: {first_line(e)}") from e
        return {}

    def _load_text(self, path: str, suffix: str, options: TableOptions) -> dict[str, JsonKind]:
        """Load a text file as ``raw``, all of it text, and return what each column may be."""
        copy = self._spill / "table.txt"
        write_utf8_copy(path, copy, encoding=options.encoding)
        try:
            if suffix in (".csv", ".tsv"):
                return dict.fromkeys(self._load_delimited(copy, suffix), ANY_KIND)
            return load_json(self.con, copy, "raw", lines=suffix in _JSON_LINES_SUFFIXES, name=self.name)
        finally:
            copy.unlink()

    def _load_delimited(self, file: Path, suffix: str) -> list[str]:
        """Load CSV or TSV, and note a delimiter that the suffix does not promise."""
        delimiter = stated_delimiter(file) or ("\t" if suffix == ".tsv" else detect_delimiter(file))
        if suffix == ".csv" and delimiter != ",":
            self.notices.append(f"{self.name}: the cells are separated by {DELIMITERS[delimiter]}")
        self._may_have_decimal_commas = delimiter in DELIMITERS_OF_COMMAS
        return load_delimited(self.con, file, "raw", delimiter=delimiter, name=self.name)

    def _restore_points(self, column: str) -> None:
        """Write the numbers of a column of text with points, and say what was done about commas."""
        commas = commas_of(self.con, "raw", column)
        if commas is Commas.DECIMAL:
            replace_commas(self.con, "raw", column)
            self.notices.append(f"{self.name}: the numbers of {column!r} have decimal commas (3,14 was read as 3.14)")
        elif commas is Commas.UNCLEAR:
            self.notices.append(
                f"{self.name}: {column!r} stays text: its commas may be decimal commas or separate thousands; write "
                "the numbers with points and without separators"
            )

    def _create_given(self, kinds: Mapping[str, JsonKind], options: TableOptions, as_text: Collection[str]) -> None:
        """Create ``given`` from ``raw``: every column under its clean name, with its type."""
        raw = {name: kind for name, kind in sql_types(self.con, "raw").items() if name != ROW_COLUMN}
        names = column_names(list(raw), self.name)
        known = {name.lower(): kind for name, kind in options.known_types.items()}
        text = {*as_text, (options.uri_column or "uri").lower()}
        columns = [ROW_COLUMN]
        for (column, kind), name in zip(raw.items(), names, strict=True):
            if self._may_have_decimal_commas and name.lower() not in text and known.get(name.lower()) != TEXT:
                self._restore_points(column)
            typed = self._own_type(column, kind, kinds)
            if name.lower() == (options.text_column or "").lower():
                _require_texts(column, kinds.get(column, JsonKind(0)), self.name)
            if name.lower() in text:
                typed = _as_text(column, kind, self.name)
            elif name.lower() in known:
                typed = self._store_type(column, typed, known[name.lower()], is_text=column in kinds)
            elif typed.kind == TEXT and (said := _kinds_as_text(kinds.get(column, ANY_KIND))):
                self.notices.append(f"{self.name}: the column {name!r} is stored as text, since it has {said}")
            columns.append(f"{typed.expression} AS {quote_identifier(name)}")
        self.con.execute(f"CREATE TABLE given AS SELECT {', '.join(columns)} FROM raw")
        self.con.execute("DROP TABLE raw")

    def _own_type(self, column: str, kind: str, kinds: Mapping[str, JsonKind]) -> TypedColumn:
        """Return a column with the type that its own values decide."""
        if column in kinds:
            return column_types.typed_text(self.con, "raw", column, kinds[column])
        name = quote_identifier(column)
        if kind == '"NULL"' or kind.startswith("ENUM"):
            return TypedColumn(TEXT, f"{name}::{TEXT}")
        if '"NULL"' in kind:  # of lists that are all empty, or of fields without any value
            kind = _UNKNOWN_PART.sub(TEXT, kind)
            return TypedColumn(kind, f"{name}::{kind}")
        return TypedColumn(kind, name)

    def _store_type(self, column: str, typed: TypedColumn, kind: str, *, is_text: bool) -> TypedColumn:
        """Return a column with the type that the store has for it."""
        if fetch_value(self.con, f"SELECT count({typed.expression}) FROM raw") == 0:
            return TypedColumn(kind, f"CAST(NULL AS {kind})")
        if is_text and kind in (TEXT, f"{TEXT}[]") and not typed.kind.endswith("[]"):
            typed = TypedColumn(TEXT, quote_identifier(column))
        fitted = column_types.fitted(self.con, "raw", column, typed, kind=kind, name=self.name)
        if fitted.kind != kind:
            self.notices.append(f"{self.name}: the column {column!r} was {kind} in the store; now it is {fitted.kind}")
        return fitted


def _kinds_as_text(kinds: JsonKind) -> str:
    """Return in words what became text of a column of JSON; "" for text, and for a file without types."""
    if kinds in (ANY_KIND, JsonKind.TEXT, JsonKind(0)):
        return ""
    return " and ".join(_KIND_NAMES[kind] for kind in kinds)


def _require_texts(column: str, kinds: JsonKind, table: str) -> None:
    """Raise BadManifest if a column of a JSON table, which the user names as that of the texts, holds other values."""
    if JsonKind.NESTED in kinds:
        raise BadManifest(
            f"{table}: the column {column!r} holds lists or objects, not texts; write each text as a string, in "
            "a row of its own"
        )


def _as_text(column: str, kind: str, table: str) -> TypedColumn:
    """Return a column of names as text.

    Raises:
        BadManifest: if it holds bytes, lists or structures, which are no names.
    """
    if holds_no_names(kind):
        raise BadManifest(
            f"{table}: the column {column!r} holds {'bytes' if kind == 'BLOB' else kind}, not names; rename it (images "
            "inside a table are read from Parquet files)"
        )
    return TypedColumn(TEXT, f"{quote_identifier(column)}::{TEXT}")


def holds_no_names(kind: str) -> bool:
    """Return whether a type holds bytes, lists or structures."""
    return kind == "BLOB" or kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))


def _top_level(nodes: Sequence[tuple[str, int | None]]) -> list[str]:
    """Return the columns of a Parquet file.

    Args:
        nodes: name and number of children of every node of its schema, the root first, each before its children.
    """
    names, deeper = list[str](), 0  # nodes that follow and belong to the last column
    for name, children in nodes[1:]:
        if deeper == 0:
            names.append(name)
        else:
            deeper -= 1
        deeper += children or 0
    return names

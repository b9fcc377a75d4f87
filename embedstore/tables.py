"""Result tables: rows as a DataFrame, an Arrow table, a file or HTML. Results of every room above storage use it."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embedstore.errors import MissingExtra, QueryError
from embedstore.storage import durable_files
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.record_types import TEXT, value_type
from embedstore.storage.spreadsheet_cells import protect_cell
from embedstore.temporary import temporary_folder

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FILE_SUFFIXES = (".csv", ".parquet", ".jsonl")
MAX_HTML_ROWS = 50  # rows of a table in a notebook; pandas shows 60

Record = dict[str, Any]
_PANDAS_INTEGERS = {"BIGINT": "Int64", "UBIGINT": "UInt64"}


class Table(ABC):
    """A result with one flat record per row."""

    @abstractmethod
    def records(self) -> list[Record]:
        """Return one mapping per row, all with the same keys."""

    def df(self) -> pd.DataFrame:
        """Return the table as a pandas DataFrame.

        Raises:
            MissingExtra: If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as e:
            raise MissingExtra("pandas is not installed; run `pip install embedstore[frames]`") from e
        records = self.records()
        frame = pd.DataFrame(records)
        for name, kind in _column_types(records).items():
            values = [record[name] for record in records]
            if kind in _PANDAS_INTEGERS and None in values:  # pandas would make them floats
                frame[name] = pd.array(values, dtype=_PANDAS_INTEGERS[kind])
        return frame

    def arrow(self) -> pa.Table:
        """Return the table as a pyarrow Table.

        Raises:
            MissingExtra: If pyarrow is not installed.
        """
        try:
            import pyarrow as pa
        except ImportError as e:
            raise MissingExtra("pyarrow is not installed; run `pip install embedstore[frames]`") from e
        records, columns = self.records(), {}
        for name, kind in _column_types(records).items():
            values = [record[name] for record in records]
            if kind == TEXT and any(isinstance(v, int) for v in values):  # more than 64 bits, or beside other types
                values = [v if v is None else str(v) for v in values]
            columns[name] = pa.array(values, pa.uint64() if kind == "UBIGINT" else None)
        return pa.table(columns)

    def typed_records(self) -> list[Record]:
        """Return :meth:`records` with values of their own types, where JSON has text for them."""
        return self.records()

    def save(self, path: str | Path) -> None:
        """Write the table to a file; see :func:`save_records`."""
        save_records(self.typed_records(), Path(path))

    def _repr_html_(self) -> str:
        return html_table(self.records())


class OneRow(Table):
    """A result of single facts, a dataclass: a table of one row, in which lists and mappings are JSON text."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(cast("Any", self))

    def records(self) -> list[Record]:
        """Return one mapping, of the names and values of :meth:`to_json`."""
        return [{name: _cell(value) for name, value in self.to_json().items()}]


def _cell(value: Any) -> Any:
    """Return a value as a cell of a table."""
    if isinstance(value, dict | list | tuple):
        return json.dumps(to_json_value(value), ensure_ascii=False)
    return str(value) if isinstance(value, str) else value  # a member of an enumeration is its text


def html_table(records: Sequence[Record]) -> str:
    """Return the first rows of a table as HTML."""
    if not records:
        return "<p>0 rows</p>"
    header = "".join(f"<th>{html.escape(name)}</th>" for name in records[0])
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in record.values()) + "</tr>"
        for record in records[:MAX_HTML_ROWS]
    )
    hidden = len(records) - MAX_HTML_ROWS
    note = f"<p>{hidden:,} more rows</p>" if hidden > 0 else ""
    return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>{note}"


def save_records(records: Sequence[Record], path: Path) -> None:
    """Write a table to a file. The file is complete and synced when it appears under its name.

    Args:
        records: Mappings with the same keys.
        path: A file that ends in ``.csv``, ``.parquet`` or ``.jsonl``. Missing parent folders are created.

    Raises:
        QueryError: If the file has another suffix, or the table has no rows.
        OSError: If the file cannot be written. An existing file keeps its content.
    """
    if path.suffix not in FILE_SUFFIXES:
        raise QueryError(f"a table is written as .csv, .parquet or .jsonl, not {path.name!r}")
    if not records:
        raise QueryError(f"the result has no rows; {path} is not written")
    if path.suffix == ".parquet":
        _write_parquet(records, path)
    else:
        text = csv_text(records) if path.suffix == ".csv" else _json_lines(records)
        durable_files.write_output(path, text.encode())


def csv_text(records: Sequence[Record]) -> str:
    """Return a table as CSV with a header. A spreadsheet shows all its text as text."""
    text = io.StringIO(newline="")
    table_writer = csv.writer(text)
    table_writer.writerow([protect_cell(name) for name in records[0]])
    table_writer.writerows([csv_cell(record[name]) for name in records[0]] for record in records)
    return text.getvalue()


def csv_cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file; lists and structures are JSON, bytes are hexadecimal digits."""
    if isinstance(value, list | tuple | dict):
        value = json.dumps(to_json_value(value), ensure_ascii=False)
    elif not isinstance(value, str | int | float | bool | None):
        value = to_json_value(value)
    return protect_cell(value)


def _json_lines(records: Sequence[Record], not_finite: Callable[[float], str | None] = lambda _: None) -> str:
    """Return a table as one JSON object per line."""
    return "".join(json.dumps(to_json_value(dict(r), not_finite), ensure_ascii=False) + "\n" for r in records)


def _write_parquet(records: Sequence[Record], path: Path) -> None:
    """Write a table as Parquet, with types that hold each value exactly."""
    from embedstore.storage import connection, disk_errors

    path.parent.mkdir(parents=True, exist_ok=True)
    types = _column_types(records)
    with temporary_folder() as folder, durable_files.atomic_path(path) as temporary:
        lines = folder / "records.jsonl"
        lines.write_text(_json_lines(records, str), encoding="utf-8")
        texts = {name: TEXT if kind == "BLOB" else kind for name, kind in types.items()}
        with connection.connect() as con, disk_errors.duckdb_output(path):
            columns = ", ".join(_from_json(name, kind) for name, kind in types.items())
            read = con.read_json(str(lines), format="newline_delimited", columns=texts)
            read.project(columns).write_parquet(str(temporary))


def _from_json(name: str, kind: str) -> str:
    """Return SQL for a column of :func:`_json_lines` in its own type."""
    column = quote_identifier(name)
    return f"unhex({column}) AS {column}" if kind == "BLOB" else column


def _column_types(records: Sequence[Record]) -> dict[str, str]:
    """Return the DuckDB type of each column of a table."""
    return {name: value_type(record[name] for record in records) for name in (records[0] if records else ())}


def to_json_value(value: Any, not_finite: Callable[[float], str | None] = lambda _: None) -> Any:
    """Return a value that JSON can hold: bytes become hexadecimal digits, and dates and other types text.

    Args:
        value: any value.
        not_finite: what NaN and infinity become; by default null.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else not_finite(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, dict):
        return {str(k): to_json_value(v, not_finite) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(v, not_finite) for v in value]
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)

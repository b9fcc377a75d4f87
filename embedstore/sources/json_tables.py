"""JSON lines and JSON arrays of objects as a table of text; numbers keep every digit that was written."""

from __future__ import annotations

import functools
import itertools
import json
import operator
import re
from collections.abc import Iterable, Iterator
from enum import Flag, auto
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest
from embedstore.sources.delimited import column_names
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import object_array

CHUNK_ROWS = 8192

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")  # a character beyond U+FFFF is two of them
_CONTEXT = 20  # characters before an error that its message shows

JsonRow = dict[str, Any]


class JsonKind(Flag):
    """What the values of a column are in JSON."""

    TEXT = auto()
    NUMBER = auto()
    BOOLEAN = auto()
    NESTED = auto()


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


def load_json(con: duckdb.DuckDBPyConnection, file: Path, table: str, *, lines: bool, name: str) -> dict[str, JsonKind]:
    """Create a table of the objects, in their order, with every value as text; null and NaN are NULL.

    Args:
        con: the connection.
        file: UTF-8 text.
        table: the table to create; its first column is the row's number from 0.
        lines: one object per line; otherwise one array of objects, which is read at once.
        name: the file's name in messages.

    Returns:
        What the values of each column are.

    Raises:
        BadManifest: if the text is not JSON, a row is not an object, or two keys of a row differ in case only.
    """
    rows = _json_lines(file, name) if lines else iter(_json_array(file, name))
    con.execute(f"CREATE TABLE {table} (embedstore_row BIGINT)")
    kinds: dict[str, JsonKind] = {}
    first = 0
    while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
        _insert(con, table, _same_spelling(chunk, kinds), kinds, first)
        first += len(chunk)
    return kinds


def _same_spelling(rows: list[JsonRow], known: Iterable[str]) -> list[JsonRow]:
    """Return the rows with keys that differ in case only spelled as where they came first."""
    spelling = {key.lower(): key for key in known}
    return [{spelling.setdefault(key.lower(), key): value for key, value in row.items()} for row in rows]


def _insert(
    con: duckdb.DuckDBPyConnection, table: str, rows: list[JsonRow], kinds: dict[str, JsonKind], first: int
) -> None:
    """Insert one chunk; a key that is new becomes a column."""
    for key in dict.fromkeys(key for row in rows for key in row):
        if key not in kinds:
            con.execute(f"ALTER TABLE {table} ADD COLUMN {quote_identifier(key)} VARCHAR")
            kinds[key] = JsonKind(0)
    chunk: dict[str, NDArray[Any]] = {"embedstore_row": np.arange(first, first + len(rows), dtype=np.int64)}
    for key in kinds:
        cells = [_cell(row.get(key)) for row in rows]
        kinds[key] |= functools.reduce(operator.or_, (kind for _, kind in cells))
        chunk[key] = object_array([text for text, _ in cells])
    columns = "".join(f", {quote_identifier(key)}::VARCHAR AS {quote_identifier(key)}" for key in kinds)
    con.execute(f"INSERT INTO {table} BY NAME SELECT embedstore_row{columns} FROM chunk")


def _cell(value: Any) -> tuple[str | None, JsonKind]:
    """Return a value as text, and what it is."""
    match value:
        case None:
            return None, JsonKind(0)
        case _Number():
            return str(value), JsonKind.NUMBER
        case bool():
            return ("true" if value else "false"), JsonKind.BOOLEAN
        case str():
            return value, JsonKind.TEXT
    return json.dumps(_plain(value), ensure_ascii=False), JsonKind.NESTED


def _plain(value: Any) -> Any:
    """Return a nested value with its numbers as numbers."""
    if isinstance(value, _Number):
        return float(value) if set(value) & set(".eE") else int(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _json_lines(file: Path, name: str) -> Iterator[JsonRow]:
    """Yield the object of every line that is not blank."""
    with file.open(encoding="utf-8", newline="\n") as text:
        for number, line in enumerate(text, 1):
            if line.strip():
                yield _object(_parse(line, f"{name}, line {number}"), f"{name}, line {number}")


def _json_array(file: Path, name: str) -> list[JsonRow]:
    """Return the objects of an array."""
    rows = _parse(file.read_text(encoding="utf-8"), name)
    if not isinstance(rows, list):
        raise BadManifest(
            f"{name} is a JSON {_type_name(rows)}, not an array of objects; with pandas write it by "
            "to_json(…, orient='records')"
        )
    return [_object(row, f"{name}, row {i}") for i, row in enumerate(rows, 1)]


def _parse(text: str, where: str) -> Any:
    """Parse JSON; numbers stay text, NaN and infinity are null."""
    try:
        value = json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as e:
        raise BadManifest(f"{where} is not JSON: {e}") from e
    if _SURROGATE_ESCAPE.search(text):
        _require_characters(value, where)
    return value


def _require_characters(value: Any, where: str) -> None:
    """Refuse strings with half of a character: JSON can write it (an emoji that was cut in two), and UTF-8 cannot."""
    written = json.dumps(value, ensure_ascii=False)
    try:
        written.encode("utf-8")
    except UnicodeEncodeError as e:
        before = written[max(0, e.start - _CONTEXT) : e.start].encode("ascii", "replace").decode()
        raise BadManifest(
            f"{where} has half of a character, {ascii(written[e.start])[1:-1]}, after {before!r}; remove it, or write "
            "the whole character"
        ) from e


def _object(value: Any, where: str) -> JsonRow:
    """Return a row, with the names of its columns in the form in which names are compared."""
    if not isinstance(value, dict):
        raise BadManifest(f"{where} is a JSON {_type_name(value)}, not an object with the columns as its keys")
    if len(value) == 0:
        return value
    return dict(zip(column_names(list(value), where), value.values(), strict=True))


def _type_name(value: Any) -> str:
    """Return what JSON calls a value."""
    names = {dict: "object", list: "array", _Number: "number", str: "string", bool: "boolean"}
    return names.get(type(value), "null")

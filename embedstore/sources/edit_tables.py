"""A table that says which columns of which items to set. It is read by the same rules as a manifest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.errors import BadManifest
from embedstore.sources.manifest import open_table, root_folder
from embedstore.sources.table_entries import NameReader, parquet_column
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import ROW_COLUMN, InputTable
from embedstore.sources.uris import UriResolver, remote_scheme
from embedstore.storage.column_names import find_column
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import object_array
from embedstore.storage.table_edits import EditRows
from embedstore.text_form import is_absent
from embedstore.types import display_uri

CHUNK_ROWS = 8192
_NAME_COLUMNS = {"label": "label", "split": "split", "group": "group_id", "group_id": "group_id"}


@dataclass(frozen=True)
class EditTable:
    """An opened table of edits.

    Attributes:
        rows: what storage needs to know about the file that :meth:`write` makes.
        notices: what a person should know about the reading, one sentence each.
    """

    rows: EditRows
    notices: list[str]


@dataclass(frozen=True)
class AbsoluteUris:
    """Reads the uris of rows as the store knows their files.

    Attributes:
        table: its name in messages.
        uris: finds the files.
        required: whether every row needs a uri.
    """

    table: str
    uris: UriResolver
    required: bool

    def absolute(self, row: int, uri: str | None) -> str | None:
        """Return the absolute uri of a row, None where there is none.

        Raises:
            BadManifest: if a uri that is required is missing.
        """
        if uri is None or is_absent(uri):
            if self.required:
                raise BadManifest(f"{self.table}: row {row + 1} names no item; give each row a uri")
            return None
        return uri if remote_scheme(uri) else display_uri(self.uris.path(uri))


def write_edits(table: Any, parquet: Path, options: TableOptions, *, key: str | None = None) -> EditTable:
    """Read a table of edits, and write it as Parquet: the key of each item, and typed columns.

    Args:
        table: a file or a table in memory, with ``item`` or a uri, and columns to set.
        parquet: the file to write.
        options: how the table is read.
        key: the column with the id or uri of the item; by default ``item``, else the column of the uris.

    Raises:
        SourceNotFound: if there is no such file.
        BadManifest: if the table cannot be read, lacks the key or a column to set, or has a value that does not fit.
        BadEncoding: if a text file has another encoding.
    """
    if key is not None and key.lower() != "item":
        options = replace(options, uri_column=key)
    given = open_table(table, options)
    columns = given.columns()
    key_column = _key_column(given.name, columns, key or options.uri_column)
    by_item = find_column("item", [key_column]) is not None
    keys = (key_column, find_column("item", columns), find_column("uri", columns))
    to_set = {c: kind for c, kind in columns.items() if c not in keys}
    if not to_set:
        raise BadManifest(f"{given.name} has no column to set besides {key_column}")
    uri_column = key_column if not by_item else find_column("uri", columns) if key is None else None
    uris, names = UriResolver(root_folder(given, options)), NameReader(given.name)
    read = AbsoluteUris(given.name, uris, required=not by_item)
    _create_names(given, uri_column, uris=read, to_set=to_set, names=names)
    kinds = _write(given, key_column, uri_column, to_set, parquet)
    return EditTable(
        EditRows(given.name, parquet, "item" if by_item else "uri", kinds),
        [*given.notices, *names.notes(), *uris.notes()],
    )


def _key_column(name: str, columns: Mapping[str, str], key: str | None) -> str:
    """Return the column that names the item of a row."""
    for wanted in (key,) if key else ("item", "uri"):
        if (column := find_column(wanted, columns)) is not None:
            return column
    raise BadManifest(f"{name} needs a column {key or 'item or uri'}; it has {', '.join(columns)}")


def _create_names(
    given: InputTable,
    uri_column: str | None,
    *,
    uris: AbsoluteUris,
    to_set: Mapping[str, str],
    names: NameReader,
) -> None:
    """Create the table ``names``: the absolute uri, and the label, split and group of each row in their one form."""
    roles = {c: _NAME_COLUMNS[c.lower()] for c in to_set if c.lower() in _NAME_COLUMNS}
    created = "".join(f", {quote_identifier(c)} VARCHAR" for c in roles)
    given.con.execute(f"CREATE TABLE names ({ROW_COLUMN} BIGINT, embedstore_absolute VARCHAR{created})")
    uri = f"{quote_identifier(uri_column)}::VARCHAR" if uri_column else "NULL"
    selected = ", ".join([uri, *(f"{quote_identifier(c)}::VARCHAR" for c in roles)])
    for first in range(0, given.row_count(), CHUNK_ROWS):
        rows = given.con.execute(
            f"SELECT {ROW_COLUMN}, {selected} FROM given WHERE {ROW_COLUMN} >= ? AND {ROW_COLUMN} < ? "
            f"ORDER BY {ROW_COLUMN}",
            [first, first + CHUNK_ROWS],
        ).fetchall()
        chunk = {
            ROW_COLUMN: np.array([r[0] for r in rows], dtype=np.int64),
            "embedstore_absolute": object_array([uris.absolute(r[0], r[1]) for r in rows]),
        }
        for i, (column, role) in enumerate(roles.items(), 2):
            read = names.split if role == "split" else lambda _, value, role=role: names.name(role, value)
            chunk[column] = object_array([read(r[0], r[i]) for r in rows])
        columns = ", ".join(f"{quote_identifier(c)}::VARCHAR" for c in chunk if c != ROW_COLUMN)
        given.con.execute(f"INSERT INTO names SELECT {ROW_COLUMN}, {columns} FROM chunk")


def _write(
    given: InputTable, key_column: str, uri_column: str | None, to_set: Mapping[str, str], parquet: Path
) -> dict[str, str]:
    """Write the Parquet file, and return the types of the columns to set."""
    uri = f"given.{quote_identifier(uri_column)}::VARCHAR" if uri_column else "NULL::VARCHAR"
    keys = f"given.{quote_identifier(key_column)} AS embedstore_key, names.embedstore_absolute, {uri} AS embedstore_uri"
    kinds: dict[str, str] = {}
    columns = [f"given.{ROW_COLUMN}", keys]
    for column, kind in to_set.items():
        role = _NAME_COLUMNS.get(column.lower())
        if (role or column) in kinds:
            raise BadManifest(f"{given.name} has two columns for {role}; remove one of them")
        kinds[role or column] = "VARCHAR" if role else kind
        table = "names" if role else "given"
        columns.append(parquet_column(f"{table}.{quote_identifier(column)}", role or column, kinds[role or column]))
    given.con.execute(
        f"COPY (SELECT {', '.join(columns)} FROM given JOIN names USING ({ROW_COLUMN}) ORDER BY {ROW_COLUMN}) "
        f"TO {quote_literal(os.fspath(parquet))} (FORMAT parquet)"
    )
    return kinds

"""A table that names the images and states what is known about them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb

from embedstore.errors import BadManifest, SourceNotFound, did_you_mean
from embedstore.sources.locations import is_location, stat_locations
from embedstore.sources.source import LocalFileSource, Scan
from embedstore.sources.table_entries import TableEntries, column_roles
from embedstore.sources.tables import READERS, InputTable, table_suffix
from embedstore.sources.uris import REMOTE_CURE, local_path, remote_scheme
from embedstore.storage.column_names import ROLE_COLUMNS
from embedstore.storage.sql import first_line
from embedstore.types import Failure, ImageRef

LIKELY_URI_COLUMNS = "path file filename file_name filepath file_path image image_path img url src location key".split()


def is_manifest(path: str) -> bool:
    """Return whether the path has a table's suffix and is not a folder."""
    return table_suffix(path) is not None and not os.path.isdir(path)  # noqa: PTH112


class Manifest(LocalFileSource):
    """A CSV, TSV, Parquet or JSON-lines file with a column ``uri``.

    The columns ``label``, ``split`` and ``group`` are used if they exist; every other column is kept with its type.
    Relative uris are relative to the manifest's folder.

    Args:
        path: the file.

    Raises:
        SourceNotFound: if there is no such file.
        BadManifest: if the file is not a table, has no column ``uri`` or a column with a reserved name, or if a uri is
            empty, remote or occurs twice.
    """

    overrides_metadata = True

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100
        self.description = self.path
        tables = read_table(path)
        roles = column_roles(tables.columns())
        if "uri" not in roles:
            raise BadManifest(_missing_uri_message(path, tables.columns()))
        self._entries = TableEntries(tables, name=self.path, roles=roles, path_of=self._path)

    @property
    def columns(self) -> dict[str, str]:
        """The user's own columns, name to DuckDB type."""
        return self._entries.columns

    def scan(self) -> Scan:
        """Start a pass over the rows in order; a file that does not exist is a failure."""
        return Scan(self._refs())

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` as the store knows it and the other columns, typed."""
        self._entries.write_columns(parquet)

    def _refs(self) -> Iterator[ImageRef | Failure]:
        """Yield the reference of every row."""
        for chunk in self._entries.chunks():
            yield from stat_locations(row[1:] for row in chunk)

    def _path(self, row: int, uri: str | None) -> str:
        """Return the absolute path that a uri means, without resolving links."""
        if uri is None or not uri.strip():
            raise BadManifest(f"{self.path}: row {row + 1} has no uri")
        if is_location(uri):
            return uri
        scheme = remote_scheme(uri)
        if scheme:
            raise BadManifest(f"{self.path}: row {row + 1} names {uri!r}; {scheme}:// {REMOTE_CURE}")
        return local_path(uri, folder=os.path.dirname(self.path))  # noqa: PTH120


def read_table(path: str) -> InputTable:
    """Load a table file.

    Raises:
        SourceNotFound: if there is no such file.
        BadManifest: if the suffix is not a table's, or the content does not match it.
    """
    if not os.path.isfile(path):  # noqa: PTH113
        raise SourceNotFound(f"{path} is not a file")
    if table_suffix(path) is None:
        raise BadManifest(f"{path} is not of a kind that is read as a table ({', '.join(READERS)})")
    tables = InputTable()
    try:
        tables.load_file(path, as_text=ROLE_COLUMNS)
    except duckdb.Error as e:
        raise BadManifest(f"{path} cannot be read as a table: {first_line(e)}") from e
    return tables


def _missing_uri_message(path: str, columns: Mapping[str, str]) -> str:
    """Say that there is no column ``uri``, and which column was probably meant."""
    likely = next((c for n in LIKELY_URI_COLUMNS for c in columns if c.lower() == n), None)
    cure = f"rename `{likely}` to `uri`" if likely else f"add one{did_you_mean('uri', columns)}"
    return f"{path} has no column `uri` (it has {', '.join(columns) or 'none'}); {cure}"

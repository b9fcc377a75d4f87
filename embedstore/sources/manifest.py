"""A table that says where the images are and what is known of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb

from embedstore.errors import BadManifest, SourceNotFound, did_you_mean
from embedstore.sources.local_files import stat_file
from embedstore.sources.table_entries import ROLE_COLUMNS, TableEntries, column_roles
from embedstore.sources.tables import READERS, InputTable, first_error_line, table_suffix
from embedstore.sources.uris import REMOTE_CURE, local_path, remote_scheme
from embedstore.types import Failure, ImageRef

LIKELY_URI_COLUMNS = "path file filename file_name filepath file_path image image_path img url src location key".split()


def is_manifest(path: str) -> bool:
    """The suffix is one of a table's, and it is not a folder."""
    return table_suffix(path) is not None and not os.path.isdir(path)  # noqa: PTH112


class Manifest:
    """A CSV, TSV, Parquet or JSON-lines file with a column ``uri``.

    ``label``, ``split`` and ``group`` are taken where they are; every other column is kept with its type. Relative
    uris are relative to the manifest's folder. Nothing of the other columns passes through Python.

    Args:
        path: of the file.

    Attributes:
        columns: the other columns, name to DuckDB type.

    Raises:
        SourceNotFound: no such file.
        BadManifest: not a table, no column ``uri``, a reserved name, a uri that is empty, remote or there twice.
    """

    overrides_metadata = True
    roots: tuple[str, ...] = ()
    skipped = 0

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100
        self.description = self.path
        tables = read_table(path)
        roles = column_roles(tables.columns())
        if "uri" not in roles:
            raise BadManifest(_no_uri(path, tables.columns()))
        self._entries = TableEntries(tables, name=self.path, roles=roles, path_of=self._path)
        self.columns = self._entries.columns

    def scan(self) -> Iterator[ImageRef | Failure]:
        """Every row, in order; a file that is not there is a failure."""
        for chunk in self._entries.chunks():
            for _, path, label, split, group in chunk:
                yield stat_file(path, label, split, group)

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` as the store knows it and the other columns, typed, by DuckDB itself."""
        self._entries.write_columns(parquet)

    def _path(self, row: int, uri: str | None) -> str:
        """The absolute path that a uri means, links kept."""
        if uri is None or not uri.strip():
            raise BadManifest(f"{self.path}: row {row + 1} has no uri")
        scheme = remote_scheme(uri)
        if scheme:
            raise BadManifest(f"{self.path}: row {row + 1} names {uri!r}; {scheme}:// {REMOTE_CURE}")
        return local_path(uri, folder=os.path.dirname(self.path))  # noqa: PTH120


def read_table(path: str) -> InputTable:
    """A table file in a DuckDB of its own.

    Raises:
        SourceNotFound: no such file.
        BadManifest: it cannot be read as what its suffix says.
    """
    if not os.path.isfile(path):  # noqa: PTH113
        raise SourceNotFound(f"{path} is not a file")
    if table_suffix(path) is None:
        raise BadManifest(f"{path} is not of a kind that is read as a table ({', '.join(READERS)})")
    tables = InputTable()
    try:
        tables.load_file(path, as_text=ROLE_COLUMNS)
    except duckdb.Error as e:
        raise BadManifest(f"{path} cannot be read as a table: {first_error_line(e)}") from e
    return tables


def _no_uri(path: str, columns: Mapping[str, str]) -> str:
    """What is wrong, and which column was probably meant."""
    likely = next((c for n in LIKELY_URI_COLUMNS for c in columns if c.lower() == n), None)
    cure = f"rename `{likely}` to `uri`" if likely else f"add one{did_you_mean('uri', columns)}"
    return f"{path} has no column `uri` (it has {', '.join(columns) or 'none'}); {cure}"

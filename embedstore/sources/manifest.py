"""A table that names the images and states what is known about them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from embedstore.errors import BadManifest, did_you_mean
from embedstore.sources.locations import is_location, stat_locations
from embedstore.sources.missing_files import MissingFiles
from embedstore.sources.parts.part_uri import parse_part_uri
from embedstore.sources.source import LocationSource, Scan
from embedstore.sources.table_entries import TableEntries, column_roles
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import InputTable, holds_no_names, table_suffix
from embedstore.sources.uris import REMOTE_CURE, UriResolver, remote_scheme
from embedstore.storage.column_names import ROLE_COLUMNS
from embedstore.text_form import is_absent
from embedstore.types import Failure, FailureReason, ImageRef

LIKELY_URI_COLUMNS = (
    "path file filename file_name filepath file_path image image_path image_file img url src location key".split()
)


def is_manifest(path: str) -> bool:
    """Return whether the path has a table's suffix and is not a folder."""
    return table_suffix(path) is not None and not os.path.isdir(path)  # noqa: PTH112


class Manifest(LocationSource):
    """A table with a column ``uri``: CSV, TSV, Parquet, JSON, or a DataFrame, an Arrow table or a dict of columns.

    The columns ``label``, ``split`` and ``group`` are used if they exist; every other column is kept with its type.
    Relative uris are relative to the folder of the file, those of a table in memory to the working folder.

    Args:
        table: the file, the table in memory, or one that was read already.
        options: how it is read.

    Raises:
        SourceNotFound: if there is no such file.
        BadManifest: if the file is not a table, has no column ``uri`` or a column with a reserved name, if a uri is
            empty, remote or occurs twice, or if a split is not understood.
        BadEncoding: if a text file has another encoding.
    """

    overrides_metadata = True

    def __init__(self, table: Any, options: TableOptions = TableOptions()) -> None:
        self._table = table if isinstance(table, InputTable) else open_table(table, options)
        self.description = self._table.name
        columns = self._table.columns()
        roles = column_roles(columns, options.uri_column, self._table.name)
        if "uri" not in roles:
            raise BadManifest(_missing_uri_message(self._table.name, columns))
        root = root_folder(self._table, options)
        self._uris = UriResolver(root)
        self._entries = TableEntries(self._table, roles=roles, path_of=self._path, collect_rows=options.collect_rows)
        self._own_columns = self._entries
        self.stated_columns = tuple(roles)
        self._missing = MissingFiles(self.description, root, _likely_columns(self.columns))

    @property
    def notices(self) -> list[str]:
        """What a person should know about the reading, one sentence each."""
        return [*self._table.notices, *self._entries.notes, *self._uris.notes(), *self._missing.notes()]

    def scan(self) -> Scan:
        """Start a pass over the rows in order; a file that does not exist is a failure.

        Its end raises BadManifest if no file exists.
        """
        return Scan(self._refs())

    def _refs(self) -> Iterator[ImageRef | Failure]:
        """Yield the reference of every row."""
        for chunk in self._entries.chunks():
            for entry in stat_locations(row[1:] for row in chunk):
                self._missing.count(entry)
                yield self._with_near_miss(entry) if isinstance(entry, Failure) else entry
        self._missing.check()

    def _with_near_miss(self, failure: Failure) -> Failure:
        """Return the failure of a missing file, with the file that was probably meant."""
        near = self._uris.near_miss(failure.path) if failure.reason is FailureReason.MISSING else None
        return replace(failure, detail=f"{failure.detail}; {near} differs in upper and lower case") if near else failure

    def _path(self, row: int, uri: str | None) -> str:
        """Return the absolute path that a uri means, without resolving links."""
        uri = required_uri(self._table.name, row, uri)
        part = parse_part_uri(uri)
        if part is not None:
            return str(replace(part, file=self._path(row, part.file)))
        if is_location(uri):
            return uri
        scheme = remote_scheme(uri)
        if scheme:
            raise BadManifest(f"{self._table.name}: row {row + 1} names {uri!r}; {scheme}:// {REMOTE_CURE}")
        return self._uris.path(uri)


def open_table(table: Any, options: TableOptions) -> InputTable:
    """Read a file or a table in memory; the columns with a role are text.

    Raises:
        SourceNotFound: if there is no such file.
        BadManifest: if it cannot be read as a table.
        BadEncoding: if a text file has another encoding.
    """
    if isinstance(table, str | os.PathLike):
        return InputTable.read_file(os.fspath(table), options, ROLE_COLUMNS)
    return InputTable.read_frame(table, options, ROLE_COLUMNS)


def root_folder(table: InputTable, options: TableOptions) -> str:
    """Return the folder that relative uris start from.

    Raises:
        BadManifest: if the user names a folder that is not there.
    """
    if options.root is None:
        return table.folder
    root = os.path.abspath(os.path.expanduser(options.root))  # noqa: PTH100, PTH111
    if not os.path.isdir(root):  # noqa: PTH112
        raise BadManifest(f"{root} is not a folder; --root names the folder that the uris start from")
    return root


def required_uri(table: str, row: int, uri: str | None) -> str:
    """Return the uri of a row, numbered from 0.

    Raises:
        BadManifest: if it is absent.
    """
    if uri is None or is_absent(uri):
        raise BadManifest(f"{table}: row {row + 1} has no uri")
    return uri


def _likely_columns(columns: Mapping[str, str]) -> list[str]:
    """Return the columns that probably name images, the likeliest first."""
    likely = [c for n in LIKELY_URI_COLUMNS for c in columns if c.lower() == n]
    return [c for c in likely if not holds_no_names(columns[c])]


def _missing_uri_message(table: str, columns: Mapping[str, str]) -> str:
    """Say that there is no column ``uri``, and which column was probably meant."""
    listed = f"{table} has no column `uri` (it has {', '.join(columns) or 'none'})"
    names = _likely_columns(columns)
    if names:
        return f"{listed}; rename `{names[0]}` to `uri`, or use --uri-column {names[0]}"
    images = [c for c, kind in columns.items() if "BLOB" in kind]
    if images:
        return (
            f"{listed}; the column `{images[0]}` holds bytes: images are read from a Parquet file with a column of "
            "bytes or of Hugging Face's structure (bytes, path); write such a file, or add a column `uri` of paths"
        )
    hint = did_you_mean("uri", columns)
    return f"{listed}; add one, or name the column of images by --uri-column, or of texts by --text-column{hint}"

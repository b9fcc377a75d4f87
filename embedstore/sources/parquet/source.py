"""Parquet files that hold the images themselves, as a source."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest, ImageError
from embedstore.sources.locations import is_location, stat_locations
from embedstore.sources.manifest import root_folder
from embedstore.sources.missing_files import MissingFiles
from embedstore.sources.parquet.columns import ROW_NUMBER, ColumnPlan, plan_columns
from embedstore.sources.parquet.empty_rows import NO_IMAGE, NO_TEXT
from embedstore.sources.parquet.footer import rows_of
from embedstore.sources.parquet.kept_rows import rows_without_bytes
from embedstore.sources.parquet.row_uri import RowUri, column_fragment, parse_row_uri
from embedstore.sources.parquet.rows import ImageColumn, file_version, open_column
from embedstore.sources.source import LocationSource, Scan
from embedstore.sources.table_entries import TableEntries, TableEntry
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import ROW_COLUMN, InputTable
from embedstore.sources.uris import UriResolver
from embedstore.storage.column_names import ROLE_COLUMNS
from embedstore.types import Failure, FailureReason, ImageRef, display_uri


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file to embed.

    Attributes:
        path: absolute.
        folder: the folder that the paths in it start from.
        split: the split that its name or folder states, or None.
    """

    path: str
    folder: str
    split: str | None


@dataclass(frozen=True)
class _Part:
    """A file that can be read.

    Attributes:
        file: the file.
        images: its column of images.
        plan: what its other columns become.
        without_bytes: for every row whether it has no bytes.
    """

    file: ParquetFile
    images: ImageColumn
    plan: ColumnPlan
    without_bytes: NDArray[np.bool_]

    @property
    def named_roles(self) -> tuple[str, ...]:
        """Which roles of its rows the name of the file states."""
        return ("split",) if self.plan.split_is_name else ()

    @property
    def query(self) -> str:
        """SQL for the rows of the file, with the columns of the table of all files."""
        return f"SELECT {ROW_NUMBER} AS {ROW_COLUMN}, {self.plan.select} FROM {rows_of(self.file.path)}"


class ParquetImages(LocationSource):
    """Rows of Parquet files whose column holds images: bytes, or Hugging Face's structure of bytes and path.

    A row without bytes is read as the path that it has. Columns ``label``, ``split`` and ``group`` have their meaning,
    numbers of classes become their names, and every other column is kept with its type. A file that cannot be read is
    a failure.

    Args:
        files: at least one.
        column: the column of the images.
        options: how tables are read.
        covers: prefixes of uris of which the source covers every row, besides its files.
        listings: the folder that keeps which rows have no bytes; None keeps nothing.

    Raises:
        BadManifest: if no file can be read, a number of a class has no name, a split is not understood, two rows name
            one image, or ``options.root`` is not a folder.
    """

    overrides_metadata = True
    unit = "row"

    def __init__(
        self,
        files: Sequence[ParquetFile],
        column: str,
        options: TableOptions,
        covers: Sequence[str] = (),
        listings: Path | None = None,
    ) -> None:
        self.description = files[0].path if len(files) == 1 else f"{len(files)} tables, first {files[0].path}"
        self._column, self._listings = column, listings
        self._failures: list[Failure] = []
        self._resolvers: dict[str, UriResolver] = {}
        self._named_paths: dict[str, tuple[str, ...]] = {}  # of rows without bytes in files whose names state a split
        self._table = InputTable(self.description)
        self._root = None if options.root is None else root_folder(self._table, options)
        self._parts: dict[int, _Part] = {}  # by the number of the first row
        self._load([part for file in files if (part := self._open(file)) is not None], options)
        self._firsts = list(self._parts)
        self._by_path = {part.file.path: part for part in self._parts.values()}
        roles = {role: role for role in ROLE_COLUMNS if role in self._table.columns()}
        self._entries = TableEntries(self._table, roles=roles, path_of=self._path, collect_rows=options.collect_rows)
        self._own_columns = self._entries
        self.stated_columns = tuple(roles)
        self._missing = MissingFiles(self.description, self._root or files[0].folder)
        fragment = column_fragment(column)
        self.tables = tuple((prefix, fragment) for prefix in [*(f"{path}#" for path in self._by_path), *covers])

    @property
    def notices(self) -> list[str]:
        """What a person should know about the reading, one sentence each."""
        left_out = dict.fromkeys(name for part in self._parts.values() for name in part.plan.left_out)
        uris = [note for resolver in self._resolvers.values() for note in resolver.notes()]
        return [
            *(f"{self.description}: the column {name!r} holds bytes and was left out" for name in left_out),
            *self._entries.notes,
            *uris,
            *self._missing.notes(),
        ]

    def scan(self) -> Scan:
        """Start a pass over the rows in order; no image is read."""
        return Scan(self._refs())

    def _open(self, file: ParquetFile) -> _Part | None:
        """Return a file's rows; None, and a failure, if it cannot be read."""
        try:
            images = open_column(file.path, self._column)
            plan = plan_columns(images.footer, self._column, file.split)
            images.check_classes(plan.class_checks)
            return _Part(file, images, plan, rows_without_bytes(images, self._listings))
        except ImageError as e:
            self._fail(file, e.reason, e.detail)
            return None

    def _load(self, parts: Sequence[_Part], options: TableOptions) -> None:
        """Load the rows of the files that can be read into one table."""
        loaded = self._table.load_parts([part.query for part in parts], options, ROLE_COLUMNS) if parts else []
        for part, first in zip(parts, loaded, strict=True):
            if isinstance(first, int):
                self._parts[first] = part
            else:
                self._fail(part.file, FailureReason.CORRUPT, first)
        if not self._parts:
            raise BadManifest(f"{self._failures[0].path} cannot be read as a table: {self._failures[0].detail}")

    def _fail(self, file: ParquetFile, reason: FailureReason, detail: str) -> None:
        """Note a file that cannot be read."""
        try:
            version_ns = file_version(file.path)
        except ImageError:
            version_ns = 0
        self._failures.append(Failure(display_uri(file.path), file.path, 0, version_ns, reason, detail))

    def _path(self, row: int, uri: str | None) -> str:
        """Return what a row of the table is read from: the row of the file, or the path in it."""
        first = self._firsts[bisect_right(self._firsts, row) - 1]
        part = self._parts[first]
        if uri is None or part.images.holds_texts or not part.without_bytes[row - first]:
            return str(RowUri(part.file.path, self._column, row - first))
        folder = self._root or part.file.folder
        path = uri if is_location(uri) else self._resolvers.setdefault(folder, UriResolver(folder)).path(uri)
        if part.named_roles:
            self._named_paths[path] = part.named_roles
        return path

    def _refs(self) -> Iterator[ImageRef | Failure]:
        """Yield the reference of every row, after the files that cannot be read."""
        yield from self._failures
        for chunk in self._entries.chunks():
            rows = [parse_row_uri(path) for _, path, *_ in chunk]
            paths = stat_locations(entry[1:] for entry, row in zip(chunk, rows, strict=True) if not self._holds(row))
            for entry, row in zip(chunk, rows, strict=True):
                found = self._row(entry, row) if row is not None and self._holds(row) else self._named(next(paths))
                self._missing.count(found)
                yield found
        self._missing.check()

    def _named(self, entry: ImageRef | Failure) -> ImageRef | Failure:
        """Return the reference of a path with the roles that the name of its table's file states."""
        roles = self._named_paths.get(entry.path, ())
        return replace(entry, named_roles=roles) if isinstance(entry, ImageRef) and roles else entry

    def _holds(self, row: RowUri | None) -> bool:
        """Return whether a row is of one of the files."""
        return row is not None and row.file in self._by_path and row.column == self._column

    def _row(self, entry: TableEntry, row: RowUri) -> ImageRef | Failure:
        """Return the reference of a row with bytes, or why there is none."""
        uri, path, label, split, group = entry
        part = self._by_path[row.file]
        size, version_ns = part.images.mean_bytes(row.row), part.images.version_ns
        if part.without_bytes[row.row]:
            reason, detail = NO_TEXT if part.images.holds_texts else NO_IMAGE
            return Failure(uri, path, size, version_ns, reason, detail)
        return ImageRef(uri, path, size, version_ns, label, split, group, part.named_roles)

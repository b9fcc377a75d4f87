"""A CSV, TSV or JSON table as a source of texts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from embedstore.errors import BadManifest, ItemError
from embedstore.sources.local_files import stat_file
from embedstore.sources.source import LocationSource, Scan
from embedstore.sources.table_entries import TableEntries, column_roles
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import ROW_COLUMN
from embedstore.sources.text_tables.row_uri import TextRowUri, parse_text_row_uri, text_fragment
from embedstore.sources.text_tables.table import open_text_table
from embedstore.types import Failure, ImageRef


class TextRows(LocationSource):
    """The texts in a column of a table, one item per row.

    The columns ``label``, ``split`` and ``group`` are used if they exist. Every other column is kept with its type, and
    so is that of the texts.

    Args:
        path: the table.
        options: how it is read; ``text_column`` names the column.

    Raises:
        SourceNotFound: if there is no such file.
        BadManifest: if it is not a table, has no such column or one with a reserved name, or a split is not understood.
        BadEncoding: if it has another encoding.
    """

    overrides_metadata = True
    unit = "row"

    def __init__(self, path: str, options: TableOptions) -> None:
        if options.text_column is None or options.uri_column is not None or options.collect_rows:
            raise BadManifest(
                f"{path}: --text-column makes an item of every row; leave out --uri-column, --collect-rows"
            )
        self._texts = open_text_table(path, options.text_column, options)
        table = self._texts.table
        self.description = self._file = table.name
        self._encoding = options.encoding
        roles = {role: c for role, c in column_roles(table.columns(), None, table.name).items() if role != "uri"}
        roles = {role: column for role, column in roles.items() if column != self._texts.column}
        self._entries = TableEntries(table, roles=roles, path_of=self._path)
        self._own_columns = self._entries
        self.stated_columns = tuple(roles)
        self.tables = ((f"{self._file}#", text_fragment(self._texts.column, self._encoding)),)
        self._sizes = table.con.execute(f"SELECT {self._texts.sizes()} FROM given ORDER BY {ROW_COLUMN}").fetchnumpy()

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know about the reading, one sentence each."""
        return [*self._texts.table.notices, *self._entries.notes]

    def scan(self) -> Scan:
        """Start a pass over the rows in order; a row without text fails when it is read."""
        return Scan(self._refs())

    def read(self, refs: Sequence[ImageRef]) -> Iterator[bytes | Failure]:
        """Yield the text of every row, or why there is none."""
        for ref in refs:
            row = parse_text_row_uri(ref.path)
            try:
                yield self._texts.text(row.row if row else -1)
            except ItemError as e:
                yield Failure.from_ref(ref, e.reason, e.detail)

    def _path(self, row: int, uri: str | None) -> str:
        """Return the uri of a row."""
        return str(TextRowUri(self._file, self._texts.column, row, self._encoding))

    def _refs(self) -> Iterator[ImageRef | Failure]:
        """Yield the reference of every row."""
        sizes = next(iter(self._sizes.values()))
        file = stat_file(os.fspath(self._file))
        version = 0 if isinstance(file, Failure) else file.mtime_ns
        row = 0
        for chunk in self._entries.chunks():
            for uri, path, label, split, group in chunk:
                yield ImageRef(uri, path, int(sizes[row]), version, label, split, group)
                row += 1

"""The rows of a user's table: the path, label, split and group of each image, and the user's own columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from embedstore.errors import BadManifest
from embedstore.sources.folder_labels import SPLIT_NAMES
from embedstore.sources.tables import ROW_COLUMN, InputTable
from embedstore.storage.column_names import ROLE_COLUMNS, find_column, first_double, name_problem, stored_name
from embedstore.storage.sql import decode_path, encode_paths, object_array, quote_identifier, quote_literal
from embedstore.types import display_uri

CHUNK_ROWS = 8192

TableEntry = tuple[str, str, str | None, str | None, str | None]  # uri, path, label, split, group


class TableEntries:
    """The table ``entries``: for each row of ``given`` an absolute uri, and the label, split and group.

    Args:
        tables: holds ``given``.
        name: the table's name in messages.
        roles: which column is the uri, the label, the split and the group; the rest are the user's own.
        path_of: returns the path of a row from its position and its uri.
        cure: what else than renaming helps against a column with a reserved name.

    Attributes:
        columns: the user's own, name in the store to DuckDB type.
        row_count: the number of rows.

    Raises:
        BadManifest: if a column has a name that it cannot have in a store, or a uri occurs twice.
    """

    def __init__(
        self,
        tables: InputTable,
        *,
        name: str,
        roles: Mapping[str, str],
        path_of: Callable[[int, str | None], str],
        cure: str = "",
    ) -> None:
        self._tables, self._name, self._roles, self._path_of = tables, name, roles, path_of
        self.row_count = tables.row_count()
        given = tables.columns()
        self._own = {n: stored_name(n) for n in given if n not in roles.values()}  # by the name in ``given``
        self._check_columns(given, cure)
        self.columns = {column: given[n] for n, column in self._own.items()}
        self._create_entries()
        self._check_unique()

    def chunks(self, size: int = CHUNK_ROWS) -> Iterator[list[TableEntry]]:
        """Yield the rows in order, at most ``size`` at a time."""
        con = self._tables.con.cursor()
        for first in range(0, self.row_count, size):
            rows = con.execute(
                f'SELECT uri, path, label, split, "group" FROM entries '
                f"WHERE {ROW_COLUMN} >= ? AND {ROW_COLUMN} < ? ORDER BY {ROW_COLUMN}",
                [first, first + size],
            ).fetchall()
            yield [(uri, decode_path(uri, raw), *facts) for uri, raw, *facts in rows]

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` and the user's own columns, typed; no value passes through Python."""
        names = "".join(f", given.{quote_identifier(n)} AS {quote_identifier(c)}" for n, c in self._own.items())
        self._tables.con.cursor().execute(
            f"COPY (SELECT entries.uri{names} FROM entries JOIN given USING ({ROW_COLUMN}) ORDER BY {ROW_COLUMN}) "
            f"TO {quote_literal(parquet)} (FORMAT parquet)"
        )

    def _check_columns(self, given: Iterable[str], cure: str) -> None:
        """Refuse columns that a store cannot keep apart from its own or from each other."""
        for name in self._own:
            if problem := name_problem(name):
                raise BadManifest(f"{self._name} has a column {name!r}, {problem}{cure}")
        if double := first_double(given):
            raise BadManifest(
                f"{self._name} has the columns {double[0]!r} and {double[1]!r}, which are one name; rename one of them"
            )

    def _create_entries(self) -> None:
        """Create and fill the table, chunk by chunk."""
        self._tables.con.execute(
            f"CREATE TABLE entries ({ROW_COLUMN} BIGINT, uri VARCHAR, path BLOB, "
            'label VARCHAR, split VARCHAR, "group" VARCHAR)'
        )
        columns = ", ".join(
            f"{quote_identifier(self._roles[n])}::VARCHAR" if n in self._roles else "NULL" for n in ROLE_COLUMNS
        )
        for first in range(0, self.row_count, CHUNK_ROWS):
            rows = self._tables.con.execute(
                f"SELECT {ROW_COLUMN}, {columns} FROM given "
                f"WHERE {ROW_COLUMN} >= ? AND {ROW_COLUMN} < ? ORDER BY {ROW_COLUMN}",
                [first, first + CHUNK_ROWS],
            ).fetchall()
            self._insert(rows)

    def _insert(self, rows: Sequence[tuple[int, str | None, str | None, str | None, str | None]]) -> None:
        """Insert one chunk; an empty value is NULL."""
        paths = [self._path_of(row, uri) for row, uri, *_ in rows]
        uris = [display_uri(p) for p in paths]
        chunk = {  # noqa: F841 - read by SQL
            "n": np.array([r[0] for r in rows], dtype=np.int64),
            "uri": object_array(uris),
            "path": encode_paths(list(zip(uris, paths, strict=True))),
            "label": object_array([r[2] or None for r in rows]),
            "split": object_array([_split(r[3]) for r in rows]),
            "grp": object_array([r[4] or None for r in rows]),
        }
        self._tables.con.execute(
            "INSERT INTO entries SELECT n, uri::VARCHAR, path::BLOB, label::VARCHAR, split::VARCHAR, grp::VARCHAR "
            "FROM chunk"
        )

    def _check_unique(self) -> None:
        """Refuse a uri that occurs in two rows."""
        duplicate = self._tables.con.execute(
            f"SELECT uri, list({ROW_COLUMN} + 1 ORDER BY {ROW_COLUMN})[:5], count(*) FROM entries "
            f"GROUP BY uri HAVING count(*) > 1 "
            f"ORDER BY min({ROW_COLUMN}) LIMIT 1"
        ).fetchone()
        if duplicate:
            uri, rows, count = duplicate
            more = " and more" if count > len(rows) else ""
            raise BadManifest(f"{self._name} names {uri} in rows {', '.join(map(str, rows))}{more}; keep one of them")


def column_roles(columns: Mapping[str, str]) -> dict[str, str]:
    """Return which columns are the uri, label, split and group, in upper or lower case."""
    return {role: column for role in ROLE_COLUMNS if (column := find_column(role, columns)) is not None}


def _split(value: str | None) -> str | None:
    """Return the usual name of a split that has one ("valid" is "val"), and any other value unchanged."""
    known = SPLIT_NAMES.get(value.lower()) if value else None
    return known.value if known else value or None

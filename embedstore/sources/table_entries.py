"""The rows of a user's table: the path, label, split and group of each image, and the user's own columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from embedstore.errors import BadManifest, did_you_mean
from embedstore.sources.tables import ROW_COLUMN, InputTable
from embedstore.storage.column_names import FILE_COLUMNS, ROLE_COLUMNS, STORED_ROLES, find_column, name_problem
from embedstore.storage.item_columns import FileColumns
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import decode_path, encode_paths, fetch_objects, fetch_value, object_array
from embedstore.text_form import clean_name, clean_text, is_absent, known_split, split_words
from embedstore.types import display_uri

CHUNK_ROWS = 8192
_WIDE_INTEGERS = ("HUGEINT", "UHUGEINT")  # Parquet has no such type: they travel as text

TableEntry = tuple[str, str, str | None, str | None, str | None]  # uri, path, label, split, group


class TableEntries:
    """The table ``entries``: for each row of ``given`` an absolute uri, and the label, split and group.

    Args:
        tables: holds ``given``.
        roles: which column is the uri, the label, the split and the group; the rest are the user's own.
        path_of: returns the path of a row from its position and its uri.
        cure: what else than renaming helps against a column with a reserved name.
        collect_rows: make one item of several rows of one image.

    Attributes:
        columns: the user's own, name to DuckDB type.
        row_count: the number of rows, after rows were collected.
        stated_columns: which of ``label``, ``split`` and ``group`` the table has a column for.

    Raises:
        BadManifest: if a column has a name that it cannot have in a store, a split is not understood, or a uri occurs
            twice (with ``collect_rows``: with several labels, splits or groups).
    """

    def __init__(
        self,
        tables: InputTable,
        *,
        roles: Mapping[str, str],
        path_of: Callable[[int, str | None], str],
        cure: str = "",
        collect_rows: bool = False,
    ) -> None:
        self._tables, self._name, self._path_of = tables, tables.name, path_of
        self._names = NameReader(tables.name)
        self._numbers = tables.row_count()  # rows are numbered below it; collected rows leave gaps
        self.columns = tables.columns()
        self._left_out = self._leave_out_file_columns()
        self._roles = {**STORED_ROLES, **roles} if self._left_out and "group_id" in self.columns else roles
        self.stated_columns = tuple(role for role in self._roles if role != "uri")
        self.columns = {n: kind for n, kind in self.columns.items() if n not in self._roles.values()}
        self._check_columns(cure)
        self._create_entries()
        if collect_rows:
            self._collect_rows()
        self._check_unique()
        self.row_count = tables.row_count()

    @property
    def notes(self) -> list[str]:
        """What a person should know about the names in the table, one sentence each."""
        names = ", ".join(self._left_out)
        left_out = f"{self._name} is an export of a store: its columns {names} describe files there and are left out"
        return [*([left_out] if self._left_out else []), *self._names.notes()]

    def chunks(self, size: int = CHUNK_ROWS) -> Iterator[list[TableEntry]]:
        """Yield the rows in order, at most ``size`` at a time."""
        for rows in self.columns_in_chunks(size):
            paths = map(decode_path, rows.uri, rows.path)
            yield list(zip(rows.uri, paths, rows.label, rows.split, rows.group, strict=True))

    def columns_in_chunks(self, size: int = CHUNK_ROWS) -> Iterator[FileColumns]:
        """Yield the rows in order as columns, at most ``size`` at a time; their sizes and times are 0."""
        con = self._tables.con.cursor()
        for first in range(0, self._numbers, size):
            rows = con.execute(
                f'SELECT uri, path, label, split, "group" FROM entries '
                f"WHERE {ROW_COLUMN} >= ? AND {ROW_COLUMN} < ? ORDER BY {ROW_COLUMN}",
                [first, first + size],
            )
            uri, path, label, split, group = fetch_objects(rows)
            unknown = np.zeros(len(uri), np.int64)
            yield FileColumns(uri, path, label, split, group, size=unknown, mtime_ns=unknown)

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` and the user's own columns, typed; no value passes through Python."""
        names = "".join(f", {parquet_column(f'given.{quote_identifier(n)}', n, k)}" for n, k in self.columns.items())
        self._tables.con.cursor().execute(
            f"COPY (SELECT entries.uri{names} FROM entries JOIN given USING ({ROW_COLUMN}) ORDER BY {ROW_COLUMN}) "
            f"TO {quote_literal(parquet)} (FORMAT parquet)"
        )

    def _leave_out_file_columns(self) -> list[str]:
        """Remove what a store says of its files from a table that :meth:`~embedstore.store.Store.export` wrote."""
        if not all(name in self.columns for name in FILE_COLUMNS):
            return []
        self.columns = {name: kind for name, kind in self.columns.items() if name not in FILE_COLUMNS}
        return list(FILE_COLUMNS)

    def _check_columns(self, cure: str) -> None:
        """Refuse columns that a store cannot keep apart from its own."""
        for name in self.columns:
            if problem := name_problem(name):
                raise BadManifest(f"{self._name} has a column {name!r}, {problem}{cure}")

    def _create_entries(self) -> None:
        """Create and fill the table, chunk by chunk."""
        self._tables.con.execute(
            f"CREATE TABLE entries ({ROW_COLUMN} BIGINT, uri VARCHAR, path BLOB, "
            'label VARCHAR, split VARCHAR, "group" VARCHAR)'
        )
        given = {n: quote_identifier(self._roles[n]) if n in self._roles else "NULL" for n in ROLE_COLUMNS}
        columns = ", ".join(f"{column} AS given_{role}" for role, column in given.items())
        for first in range(0, self._numbers, CHUNK_ROWS):
            rows = self._tables.con.execute(
                f"SELECT {ROW_COLUMN}, {columns} FROM given "
                f"WHERE {ROW_COLUMN} >= ? AND {ROW_COLUMN} < ? ORDER BY {ROW_COLUMN}",
                [first, first + CHUNK_ROWS],
            )
            self._insert(*(column.tolist() for column in fetch_objects(rows)))

    def _insert(
        self,
        rows: list[int],
        uris: list[str | None],
        labels: list[str | None],
        splits: list[str | None],
        groups: list[str | None],
    ) -> None:
        """Insert one chunk; an absent value is NULL."""
        paths = list(map(self._path_of, rows, uris))
        names = list(map(display_uri, paths))
        chunk = {  # noqa: F841 - read by SQL
            "n": np.array(rows, dtype=np.int64),
            "uri": object_array(names),
            "path": encode_paths(list(zip(names, paths, strict=True))),
            "label": object_array(self._names.names("label", labels)),
            "split": object_array(self._names.splits(rows, splits)),
            "grp": object_array(self._names.names("group", groups)),
        }
        self._tables.con.execute(
            "INSERT INTO entries SELECT n, uri::VARCHAR, path::BLOB, label::VARCHAR, split::VARCHAR, grp::VARCHAR "
            "FROM chunk"
        )

    def _collect_rows(self) -> None:
        """Make one row of the rows of one image: the first, with lists in the columns whose values differ."""
        con, key = self._tables.con, f"min({ROW_COLUMN})"
        for role in ("label", "split", "group"):
            several = con.execute(
                f"SELECT uri, list(DISTINCT {quote_identifier(role)})[:5] FROM entries GROUP BY uri "
                f"HAVING count(DISTINCT {quote_identifier(role)}) > 1 ORDER BY {key} LIMIT 1"
            ).fetchone()
            if several:
                raise BadManifest(
                    f"{self._name} gives {several[0]} several values of {role!r} ({', '.join(sorted(several[1]))}); "
                    f"rename the column, for example to {role + 's'!r}, and it becomes a list"
                )
        collected = [self._collected(name, kind) for name, kind in self.columns.items()]
        columns = "".join(f", {c}" for c in collected)
        con.execute(
            f"CREATE TABLE collected AS SELECT {key} AS first_row{columns} "
            f"FROM given JOIN (SELECT {ROW_COLUMN}, uri AS entry_uri FROM entries) USING ({ROW_COLUMN}) "
            f"GROUP BY entry_uri"
        )
        con.execute(
            f"CREATE OR REPLACE TABLE entries AS SELECT {key} AS {ROW_COLUMN}, uri, any_value(path) AS path, "
            'any_value(label) AS label, any_value(split) AS split, any_value("group") AS "group" '
            "FROM entries GROUP BY uri"
        )
        con.execute("DROP TABLE given")
        con.execute(f"ALTER TABLE collected RENAME COLUMN first_row TO {ROW_COLUMN}")
        con.execute("ALTER TABLE collected RENAME TO given")
        types = self._tables.columns()
        self.columns = {name: types[name] for name in self.columns}

    def _collected(self, name: str, kind: str) -> str:
        """Return SQL for one column of collected rows: its value, or the list of its values where they differ."""
        column = quote_identifier(name)
        differs = self._tables.con.execute(
            f"SELECT 1 FROM given JOIN entries USING ({ROW_COLUMN}) GROUP BY entries.uri "
            f"HAVING count(DISTINCT given.{column}) > 1 LIMIT 1"
        ).fetchone()
        if not differs:
            return f"any_value({column}) AS {column}"
        values = f"list({column} ORDER BY {ROW_COLUMN}) FILTER ({column} IS NOT NULL)"
        return f"{f'flatten({values})' if kind.endswith('[]') else values} AS {column}"

    def _check_unique(self) -> None:
        """Refuse a uri that occurs in two rows."""
        if fetch_value(self._tables.con, "SELECT count(*) = count(DISTINCT uri) FROM entries"):
            return  # lists of the rows of each uri take four times as long
        duplicate = self._tables.con.execute(
            f"SELECT uri, list({ROW_COLUMN} + 1 ORDER BY {ROW_COLUMN})[:5], count(*) FROM entries "
            f"GROUP BY uri HAVING count(*) > 1 "
            f"ORDER BY min({ROW_COLUMN}) LIMIT 1"
        ).fetchone()
        if duplicate:
            uri, rows, count = duplicate
            more = " and more" if count > len(rows) else ""
            raise BadManifest(
                f"{self._name} names {uri} in rows {', '.join(map(str, rows))}{more}; keep one of them, or make lists "
                "of their values with --collect-rows"
            )


class NameReader:
    """Read labels, groups and splits in the form in which names are compared, and count what that changed.

    Args:
        table: the table's name in messages.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._changed: Counter[tuple[str, str, str]] = Counter()
        self._absent: Counter[tuple[str, str]] = Counter()

    def name(self, role: str, value: str | None, count: int = 1) -> str | None:
        """Return a label or group that some cells have, None if it is absent."""
        name = clean_name(value)
        if value is not None and name is None and clean_text(value):
            self._absent[role, value] += count
        elif value is not None and name is not None and name != value:
            self._changed[role, value, name] += count
        return name

    def names(self, role: str, values: Sequence[str | None]) -> list[str | None]:
        """Return the labels or groups of some rows, None where one is absent; equal values are read once."""
        known = {value: self.name(role, value, count) for value, count in Counter(values).items()}
        return [known[value] for value in values]

    def splits(self, rows: Sequence[int], values: Sequence[str | None]) -> list[str | None]:
        """Return the splits of some numbered rows, None where one is absent; equal words are read once.

        Raises:
            BadManifest: if a word does not name a split.
        """
        known: dict[str | None, str | None] = {}
        for row, value in zip(rows, values, strict=True):
            if value not in known:
                known[value] = self.split(row, value)
        return [known[value] for value in values]

    def split(self, row: int, value: str | None) -> str | None:
        """Return the split that a word names, None if it is absent.

        Raises:
            BadManifest: if the word does not name a split.
        """
        if value is None or is_absent(value):
            return None
        split = known_split(value)
        if split is None:
            raise BadManifest(
                f"{self._table}: row {row + 1} has the split {value!r}, which is not understood; use {split_words()}, "
                "leave it empty, or rename the column to keep its values as your own"
            )
        return split.value

    def notes(self) -> list[str]:
        """Return one sentence per kind of change."""
        out = []
        for role in ("label", "group"):
            changed = [(v, n, count) for (r, v, n), count in self._changed.items() if r == role]
            if changed:
                value, name, _ = changed[0]
                out.append(
                    f"{self._table}: {sum(c for *_, c in changed):,} cells of {role} were read in their common form "
                    f"(trimmed, composed letters), first {value!a} as {name!r}"
                )
            absent = {v: count for (r, v), count in self._absent.items() if r == role}
            if absent:
                listed = ", ".join(f"{v!r} ({n:,})" for v, n in sorted(absent.items()))
                out.append(f"{self._table}: cells of {role} that say nothing were read as none: {listed}")
        return out


def column_roles(columns: Mapping[str, str], uri_column: str | None, table: str) -> dict[str, str]:
    """Return which columns are the uri, label, split and group, in upper or lower case.

    Raises:
        BadManifest: if the table lacks the named column of the uris.
    """
    roles = {role: column for role in ROLE_COLUMNS if (column := find_column(role, columns)) is not None}
    if uri_column is None:
        return roles
    named = find_column(uri_column, columns)
    if named is None:
        raise BadManifest(
            f"{table} has no column {uri_column!r} (it has {', '.join(columns)}){did_you_mean(uri_column, columns)}"
        )
    return {role: c for role, c in roles.items() if c != named} | {"uri": named}


def parquet_column(expression: str, name: str, kind: str) -> str:
    """Return SQL that writes a column so that Parquet changes no value: integers beyond 64 bits as text."""
    wide = any(k in kind for k in _WIDE_INTEGERS)
    cast = kind
    for k in _WIDE_INTEGERS[::-1]:
        cast = cast.replace(k, "VARCHAR")
    return f"{f'{expression}::{cast}' if wide else expression} AS {quote_identifier(name)}"

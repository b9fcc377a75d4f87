"""A table that says where the images are and what is known of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadManifest, near
from embedstore.records import Failure, ImageRef, display_uri
from embedstore.source.labels import SPLITS
from embedstore.source.tables import READERS, ROW, Tables, first_line, literal, quoted, suffix_of
from embedstore.source.walk import find

KNOWN = ("uri", "label", "split", "group")
# Columns of the table ``items`` that the store itself fills, and ``source``, kept for it.
RESERVED = frozenset(
    "item content label split group_id size mtime mtime_ns path present added source rowid".split()
) | {ROW}
LIKELY = "path file filename file_name filepath file_path image image_path img url src location key".split()
CHUNK = 8192

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")


def is_manifest(path: str) -> bool:
    """The suffix is one of a table's, and it is not a folder."""
    return suffix_of(path) is not None and not os.path.isdir(path)  # noqa: PTH112


class Manifest:
    """A CSV, TSV, Parquet or JSON-lines file with a column ``uri``.

    ``label``, ``split`` and ``group`` are taken where they are; every other column is kept with its type. Relative
    uris are relative to the manifest's folder. Nothing of the other columns passes through Python.

    Args:
        path: of the file.

    Attributes:
        columns: the other columns, name to DuckDB type.

    Raises:
        BadManifest: not a table, no column ``uri``, a reserved name, a uri that is empty, remote or there twice.
    """

    declares = True
    roots: tuple[str, ...] = ()
    skipped = 0

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100
        self.description = self.path
        self._tables = Tables()
        try:
            self._tables.load(self.path, as_text=KNOWN)
        except duckdb.Error as e:
            kinds = ", ".join(READERS)
            raise BadManifest(f"{path} cannot be read as a table ({kinds}): {first_line(e)}") from e
        self._by_name = _by_name(path, self._tables.columns())
        self.columns = {
            name: kind for name, kind in self._tables.columns().items() if name not in self._by_name.values()
        }
        self._check_columns()
        self._resolve()
        self._check_unique()

    def scan(self) -> Iterator[ImageRef | Failure]:
        """Every row, in order; a file that is not there is a failure."""
        con = self._tables.con.cursor()
        for first in range(0, self._tables.rows(), CHUNK):
            rows = con.execute(
                f'SELECT uri, path, label, split, "group" FROM entries WHERE {ROW} >= ? AND {ROW} < ? ORDER BY {ROW}',
                [first, first + CHUNK],
            ).fetchall()
            for uri, raw, label, split, group in rows:
                yield find(uri if raw is None else os.fsdecode(raw), label, split, group)

    def attributes(self, parquet: Path) -> None:
        """Write ``uri`` as the store knows it and the other columns, typed, by DuckDB itself."""
        names = ", ".join(f"given.{quoted(n)}" for n in self.columns)
        self._tables.con.cursor().execute(
            f"COPY (SELECT entries.uri, {names} FROM entries JOIN given USING ({ROW}) ORDER BY {ROW}) "
            f"TO {literal(str(parquet))} (FORMAT parquet)"
        )

    def _check_columns(self) -> None:
        """No column of the user's own may take a name that the store fills."""
        for name in self.columns:
            if name.lower() in RESERVED:
                raise BadManifest(
                    f"{self.path} has a column {name!r}, a name that the store uses itself; rename it, "
                    f"for example to {'my_' + name!r}"
                )

    def _resolve(self) -> None:
        """Fill ``entries``: the absolute uri of every row, and its label, split and group."""
        con = self._tables.con
        con.execute(
            f"CREATE TABLE entries ({ROW} BIGINT, uri VARCHAR, path BLOB, label VARCHAR, split VARCHAR, "
            '"group" VARCHAR)'
        )
        wanted = ", ".join(quoted(self._by_name[n]) if n in self._by_name else "NULL" for n in KNOWN)
        for first in range(0, self._tables.rows(), CHUNK):
            rows = con.execute(
                f"SELECT {ROW}, {wanted} FROM given WHERE {ROW} >= ? AND {ROW} < ? ORDER BY {ROW}",
                [first, first + CHUNK],
            ).fetchall()
            self._insert(rows)

    def _insert(self, rows: Sequence[tuple[int, str | None, str | None, str | None, str | None]]) -> None:
        """One chunk into ``entries``."""
        paths = [self._path(row, uri) for row, uri, *_ in rows]
        uris = [display_uri(p) for p in paths]
        chunk = {  # noqa: F841 - read by SQL
            "n": np.array([r[0] for r in rows], dtype=np.int64),
            "uri": _objects(uris),
            "path": _objects([None if u == p else os.fsencode(p) for u, p in zip(uris, paths, strict=True)]),
            "label": _objects([r[2] for r in rows]),
            "split": _objects([_split(r[3]) for r in rows]),
            "grp": _objects([r[4] for r in rows]),
        }
        self._tables.con.execute(
            "INSERT INTO entries SELECT n, uri::VARCHAR, path::BLOB, label::VARCHAR, split::VARCHAR, grp::VARCHAR "
            "FROM chunk"
        )

    def _path(self, row: int, uri: str | None) -> str:
        """The absolute path that a uri means, links kept."""
        if uri is None or not uri.strip():
            raise BadManifest(f"{self.path}: row {row + 1} has no uri")
        scheme = _SCHEME.match(uri)
        if scheme:
            if scheme[1].lower() != "file":
                raise BadManifest(
                    f"{self.path}: row {row + 1} names {uri!r}; {scheme[1]}:// is not read, "
                    "copy the images to a folder first"
                )
            uri = os.fsdecode(unquote_to_bytes(urlsplit(uri).path))
        return os.path.normpath(os.path.join(os.path.dirname(self.path), uri))  # noqa: PTH118, PTH120

    def _check_unique(self) -> None:
        """One row for one image."""
        twice = self._tables.con.execute(
            f"SELECT uri, list({ROW} + 1 ORDER BY {ROW})[:5], count(*) FROM entries GROUP BY uri HAVING count(*) > 1 "
            f"ORDER BY min({ROW}) LIMIT 1"
        ).fetchone()
        if twice:
            uri, rows, count = twice
            more = " and more" if count > len(rows) else ""
            raise BadManifest(f"{self.path} names {uri} in rows {', '.join(map(str, rows))}{more}; keep one of them")


def _by_name(path: str, columns: dict[str, str]) -> dict[str, str]:
    """Which columns are uri, label, split and group, in any case."""
    found = {name.lower(): name for name in reversed(columns) if name.lower() in KNOWN}
    if "uri" in found:
        return found
    likely = next((c for n in LIKELY for c in columns if c.lower() == n), None)
    cure = f"rename `{likely}` to `uri`" if likely else f"add one{near('uri', columns)}"
    raise BadManifest(f"{path} has no column `uri` (it has {', '.join(columns) or 'none'}); {cure}")


def _split(value: str | None) -> str | None:
    """A known split by its usual name; any other as it stands."""
    known = SPLITS.get(value.lower()) if value else None
    return known.value if known else value


def _objects(values: Sequence[str | bytes | None]) -> NDArray[np.object_]:
    """A column for DuckDB; None is NULL."""
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out

"""Images in tables of an SQLite database: every table with a column ``image`` of bytes.

The uri of an image is the database, the table and SQLite's number of the row, as in
``/data/photos.sqlite#table=photos&id=17``. ``label``, ``split`` and ``group`` have their meaning, and other columns of
numbers and text become columns of the items.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, quote

from embedstore.sources.plug_in.protocol import SourceItem, SourcePlugIn

IMAGE = "image"
_ROLES = ("label", "split", "group")


def scan(name: str) -> Iterator[SourceItem]:
    """Yield the images of a database, table by table."""
    with closing(_open(name)) as database:
        for table in _tables(database):
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({_quoted(table)})")]
            if IMAGE not in columns:
                continue
            shown = [column for column in columns if column != IMAGE]
            names = "".join(f", {_quoted(column)}" for column in shown)
            rows = database.execute(f"SELECT rowid, length({IMAGE}){names} FROM {_quoted(table)} ORDER BY rowid")
            for number, size, *values in rows:
                yield _item(name, table, number, size or 0, dict(zip(shown, values, strict=True)))


def read(uri: str) -> bytes:
    """Return the bytes of an image."""
    path, table, number = _parse(uri)
    with closing(_open(path)) as database:
        row = database.execute(f"SELECT {IMAGE} FROM {_quoted(table)} WHERE rowid = ?", [number]).fetchone()
    if row is None or row[0] is None:
        raise FileNotFoundError(uri)
    return bytes(row[0])


def stat(uri: str) -> SourceItem:
    """Return an image as it is now."""
    path, table, number = _parse(uri)
    with closing(_open(path)) as database:
        row = database.execute(f"SELECT length({IMAGE}) FROM {_quoted(table)} WHERE rowid = ?", [number]).fetchone()
    if row is None:
        raise FileNotFoundError(uri)
    return _item(path, table, number, row[0] or 0, {})


def _item(path: str, table: str, number: int, size: int, values: dict[str, object]) -> SourceItem:
    """Return an item; its version is that of the database, since SQLite has none for a row."""
    roles = {name: None if values.get(name) is None else str(values[name]) for name in _ROLES}
    columns = {name: value for name, value in values.items() if name not in _ROLES and not isinstance(value, bytes)}
    uri = f"{path}#table={quote(table, safe='')}&id={number}"
    return SourceItem(uri, size, Path(path).stat().st_mtime_ns, **roles, columns=columns)


def _parse(uri: str) -> tuple[str, str, int]:
    """Return the database, table and row of a uri."""
    path, _, fragment = uri.rpartition("#")
    values = parse_qs(fragment)
    return path, values["table"][0], int(values["id"][0])


def _open(path: str) -> sqlite3.Connection:
    """Open a database to read."""
    if not Path(path).is_file():
        raise FileNotFoundError(path)
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)


def _tables(database: sqlite3.Connection) -> list[str]:
    """Return the names of the tables."""
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in rows if not name.startswith("sqlite_")]


def _quoted(name: str) -> str:
    """Return a name in SQL."""
    return '"' + name.replace('"', '""') + '"'


SQLITE = SourcePlugIn(name="SQLite", scan=scan, read=read, stat=stat, suffixes=(".sqlite", ".sqlite3"))

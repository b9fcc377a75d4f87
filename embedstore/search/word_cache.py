"""Where lexical indexes are kept: one per column in memory while the catalog stays as it is, and a file in the store.

A file is derived and safe to delete at any time. It says which texts it was made of, so a stale one is never used.
"""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from pathlib import Path

import duckdb

from embedstore.errors import UnsafeStore
from embedstore.search.words import MAX_BYTES, WordIndex, build_word_index, from_bytes, to_bytes
from embedstore.storage.catalog import CatalogStamp
from embedstore.storage.derived_files import read_derived, write_derived
from embedstore.storage.queries import search as queries
from embedstore.storage.queries.words import read_texts, texts_fingerprint
from embedstore.storage.storage import Storage

MAX_INDEXES = 2  # in memory: of the columns that were searched last


class WordIndexCache:
    """The lexical indexes of one store.

    Args:
        storage: the store.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._indexes: dict[str, tuple[CatalogStamp, str, WordIndex]] = {}
        self._lock = threading.Lock()

    def get(self, con: duckdb.DuckDBPyConnection, column: str) -> WordIndex:
        """Return the index of a column; it is made again if a text changed.

        Args:
            con: the open catalog.
            column: a column of the items.

        Raises:
            UnknownColumn: if the items lack the column.
            QueryError: if its texts are too long for the memory of this process.
        """
        with self._lock:
            return self._get(con, column)

    def _get(self, con: duckdb.DuckDBPyConnection, column: str) -> WordIndex:
        """Return the index of a column; the caller has the lock."""
        stamp = self._storage.catalog.stamp
        known = self._indexes.get(column)
        if known is not None and known[0] == stamp:
            return known[2]
        name = queries.require_item_column(column, queries.item_columns(con))
        fingerprint = texts_fingerprint(con, name)
        index = known[2] if known is not None and known[1] == fingerprint else self._open(con, name, fingerprint)
        self._indexes.pop(column, None)
        self._indexes[column] = stamp, fingerprint, index
        if len(self._indexes) > MAX_INDEXES:
            del self._indexes[next(iter(self._indexes))]
        return index

    def _open(self, con: duckdb.DuckDBPyConnection, column: str, fingerprint: str) -> WordIndex:
        """Return the index from its file, or make it and write the file."""
        path = index_file(self._storage.layout.words, column)
        with suppress(OSError, ValueError, UnsafeStore):
            index = from_bytes(read_derived(path, MAX_BYTES), fingerprint)
            if index is not None:
                return index
        index = build_word_index(column, read_texts(con, column))
        write_derived(path, to_bytes(index, fingerprint))
        return index


def index_file(folder: Path, column: str) -> Path:
    """Return the file of the index of a column, whose name may have any characters."""
    return folder / f"{hashlib.sha256(column.encode()).hexdigest()[:32]}.words"

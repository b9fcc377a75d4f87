"""What is told without vectors: numbers, failures, SQL. It is imported by itself where nothing else is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedstore.operations.session import Face
from embedstore.reports.results import SqlResult
from embedstore.search.index import build
from embedstore.storage.info import info
from embedstore.storage.storage import Storage


def counting(path: str | Path) -> Counting:
    """A store opened for counting only.

    Raises:
        StoreNotFound, NotAStore, StoreTooNew, StoreDamaged: as their names say.
    """
    return Counting(Storage.open(path))


class Counting(Face):
    """Verbs that count."""

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> SqlResult:
        """A read-only DuckDB query over the catalog's tables: items, contents, spaces, failures, runs …."""
        names, rows = self._storage.sql(query, parameters)
        return SqlResult(tuple(names), tuple(rows))

    def failures(self) -> SqlResult:
        """Every image that could not be embedded, with the reason."""
        return self.sql("SELECT uri, reason, detail, size, failed FROM failures ORDER BY uri")

    def info(self) -> dict[str, Any]:
        """Counts and sizes: items, contents, failures, spaces, indexes, heads, bytes."""
        return info(self._storage) | {"indexes": build.list_indexes(self._storage)}

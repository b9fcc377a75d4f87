"""Counts, failures and SQL: what needs no vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from embedstore.errors import QueryError
from embedstore.operations.label_conflicts import note_label_conflicts
from embedstore.operations.results import StoreInfo
from embedstore.operations.session import Session
from embedstore.plain_values import plain_value
from embedstore.replicas.state import list_replicas
from embedstore.reports.results import SqlResult
from embedstore.search.index import build
from embedstore.storage import info as storage_info
from embedstore.storage.column_names import unique_names
from embedstore.storage.queries import items
from embedstore.storage.queries.query_texts import ALL_ITEMS
from embedstore.storage.query_limits import QUERY_SECONDS, QueryLimits
from embedstore.storage.sql import decode_path
from embedstore.storage.user_query import run_query


def sql(
    session: Session, query: str, parameters: Sequence[Any], *, timeout: float, memory: str | int | None
) -> SqlResult:
    """Run a query of the user; see :meth:`embedstore.Store.sql`."""
    if isinstance(parameters, str | bytes | Mapping):
        raise QueryError(f"parameters are a list of one value for each ?, not {parameters!r:.100}")
    try:
        values = [plain_value(value) for value in parameters]
    except TypeError as e:
        raise QueryError(f"the parameters have {e}") from e
    names, rows = run_query(session.storage.catalog, query, values, QueryLimits(timeout, memory))
    return SqlResult(unique_names(names), tuple(rows))


def count_items(session: Session) -> int:
    """Count the items; see :meth:`embedstore.Store.__len__`."""
    return items.count_items(session.storage)


def all_items(session: Session) -> SqlResult:
    """List all items; see :attr:`embedstore.Store.items`."""
    return sql(session, ALL_ITEMS, (), timeout=QUERY_SECONDS, memory=None)


def failures(session: Session) -> SqlResult:
    """List failures; see :meth:`embedstore.Store.failures`."""
    names, rows = items.failures(session.storage)
    return SqlResult(tuple(names), tuple(rows))


def info(session: Session) -> StoreInfo:
    """Count what the store holds; see :meth:`embedstore.Store.info`."""
    note_label_conflicts(session, "label")
    storage = session.storage
    return StoreInfo(**storage_info.info(storage), indexes=build.list_indexes(storage), replicas=list_replicas(storage))


def item_uris(session: Session, ids: Sequence[int]) -> dict[int, str]:
    """Look up uris; see :meth:`embedstore.Store.item_uris`."""
    return items.item_uris(session.storage, ids)


def item_paths(session: Session, ids: Sequence[int]) -> dict[int, str]:
    """Look up paths; see :meth:`embedstore.Store.item_paths`."""
    return {item: decode_path(*file) for item, file in items.item_files(session.storage, ids).items()}


def failed_paths(session: Session) -> list[str]:
    """List the paths of failures; see :meth:`embedstore.Store.failed_paths`."""
    return [decode_path(*file) for file in items.failed_files(session.storage)]

"""Find near-duplicates and clusters, and write them as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.operations.edit import write
from embedstore.operations.results import ChangedItems
from embedstore.operations.session import Session
from embedstore.search.clusters import find_clusters
from embedstore.search.duplicates import DuplicateGroups, DuplicateKeepPolicy, find_duplicates
from embedstore.storage import item_changes


def duplicates(
    session: Session,
    *,
    threshold: float,
    where: str | None,
    keep: str,
    exact: bool | None,
    write_columns: bool,
    space: str | None,
    wait: float,
) -> DuplicateGroups:
    """Group near-duplicates; see :meth:`embedstore.Store.duplicates`."""
    if keep not in list(DuplicateKeepPolicy):
        raise QueryError(f"keep must be {' or '.join(DuplicateKeepPolicy)}, not {keep!r}")
    groups = find_duplicates(
        session.storage,
        session.space(space),
        threshold=threshold,
        where=where,
        keep=DuplicateKeepPolicy(keep),
        exact=exact,
    )
    if write_columns:
        columns = {
            "duplicate_group": np.array([i.group for i in groups.items], np.int64),
            "duplicate_keep": np.array([i.keep for i in groups.items], np.bool_),
        }
        items = np.array([i.item for i in groups.items], np.int64)
        _write_columns(session, "duplicates", {"threshold": threshold, "where": where}, items, columns, wait)
    return groups


def cluster(
    session: Session,
    n_clusters: int,
    *,
    where: str | None,
    cluster_column: str,
    outlier_column: str,
    space: str | None,
    wait: float,
) -> ChangedItems:
    """Cluster items; see :meth:`embedstore.Store.cluster`."""
    found = find_clusters(session.storage, session.space(space), n_clusters, where=where)
    settings = {"k": n_clusters, "where": where, "column": cluster_column}
    columns: dict[str, NDArray[Any]] = {cluster_column: found.cluster, outlier_column: found.outlier_score}
    return _write_columns(session, "cluster", settings, found.items, columns, wait)


def _write_columns(
    session: Session,
    operation: str,
    settings: dict[str, Any],
    items: NDArray[np.int64],
    columns: dict[str, NDArray[Any]],
    wait: float,
) -> ChangedItems:
    """Write computed columns of items."""
    counts = write(session, operation, settings, wait, lambda w: {"items": item_changes.set_columns(w, items, columns)})
    return ChangedItems(**counts)

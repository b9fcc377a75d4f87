"""Find near-duplicates and clusters, and write them as columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embedstore.errors import QueryError
from embedstore.operations.results import ChangedItems
from embedstore.operations.session import Session
from embedstore.search.clusters import find_clusters
from embedstore.search.duplicate_groups import DuplicateGroups, DuplicateKeepPolicy
from embedstore.search.duplicates import DuplicateOptions, find_duplicates
from embedstore.storage.queries.computed_columns import ColumnRole, ComputedValues, require_writable
from embedstore.storage.sql import utc_now


def duplicates(
    session: Session,
    *,
    threshold: float | None,
    where: str | None,
    keep: str,
    exact: bool | None,
    check_pixels: bool,
    columns: tuple[str, str] | None,
    space: str | None,
    wait: float,
) -> DuplicateGroups:
    """Group near-duplicates; see :meth:`embedstore.Store.duplicates`. ``columns`` are those to write, if any."""
    if keep not in list(DuplicateKeepPolicy):
        policies = list(DuplicateKeepPolicy)
        raise QueryError(f"keep must be {', '.join(policies[:-1])} or {policies[-1]}, not {keep!r}")
    names = dict(zip((ColumnRole.DUPLICATE_GROUP, ColumnRole.DUPLICATE_KEEP), columns or (), strict=False))
    _check_columns(session, names)
    record, started = session.space(space), utc_now()
    options = DuplicateOptions(threshold, where, DuplicateKeepPolicy(keep), exact, check_pixels)
    groups = find_duplicates(session.storage, record, options)
    if names:
        values = ComputedValues(
            np.array([i.item for i in groups.items], np.int64),
            {
                ColumnRole.DUPLICATE_GROUP: np.array([i.group for i in groups.items], np.int64),
                ColumnRole.DUPLICATE_KEEP: np.array([i.keep for i in groups.items], np.bool_),
            },
            names,
        )
        settings = {"threshold": groups.threshold, "where": where, "keep": keep, "columns": list(names.values())}
        with session.storage.writer("duplicates", wait=wait) as writer:
            writer.put_computed_columns("duplicates", record.key, values, settings, started)
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
    names = {ColumnRole.CLUSTER: cluster_column, ColumnRole.OUTLIER: outlier_column}
    _check_columns(session, names)
    record, started = session.space(space), utc_now()
    found = find_clusters(session.storage, record, n_clusters, where=where)
    values = ComputedValues(
        found.items, {ColumnRole.CLUSTER: found.cluster, ColumnRole.OUTLIER: found.outlier_score}, names
    )
    settings = {"k": n_clusters, "where": where, "columns": list(names.values())}
    with session.storage.writer("cluster", wait=wait) as writer:
        return ChangedItems(**writer.put_computed_columns("cluster", record.key, values, settings, started))


def _check_columns(session: Session, columns: Mapping[ColumnRole, str]) -> None:
    """Raise QueryError, before any work is done, if a column may not be overwritten."""
    with session.storage.catalog.read() as con:
        require_writable(con, columns)

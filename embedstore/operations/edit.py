"""Changing: delete, forget, edit, rename, compact, index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.operations.session import Face
from embedstore.search.clusters import find_clusters
from embedstore.search.duplicates import DuplicateGroups, DuplicateKeepPolicy, find_duplicates
from embedstore.search.index import build
from embedstore.storage import compact as compacting
from embedstore.storage import item_changes, space_changes
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.sql import utc_now
from embedstore.storage.writer import Writer


class Changing(Face):
    """Verbs that change what is there."""

    def delete(
        self, where: str | None = None, *, items: Sequence[int] | None = None, wait: float = 0.0
    ) -> dict[str, int]:
        """Take items out; a later scan of their files brings them back as new items.

        Args:
            where: a filter, ``"true"`` for all. items: ids. With both, items must match both.
            wait: seconds to wait for another writer.

        Returns:
            ``{"items"}``: how many.

        Raises:
            QueryError: neither a filter nor ids, or an id that does not exist; nothing is changed then.
        """
        return self._change(
            "delete",
            {"where": where, "items": items},
            wait,
            lambda writer: item_changes.delete(writer, ItemSelection(where, items)),
        )

    def forget(
        self, where: str | None = None, *, items: Sequence[int] | None = None, wait: float = 0.0
    ) -> dict[str, int]:
        """Take the contents of items out, with all items that have them; :meth:`compact` wipes their vectors.

        Returns:
            ``{"items", "contents", "vectors"}``: how many.
        """
        return self._change(
            "forget",
            {"where": where, "items": items},
            wait,
            lambda writer: item_changes.purge(writer, ItemSelection(where, items)),
        )

    def edit(
        self,
        assignments: Mapping[str, str],
        where: str | None = None,
        *,
        items: Sequence[int] | None = None,
        new: bool = False,
        wait: float = 0.0,
    ) -> dict[str, int]:
        """Set columns to SQL expressions over the items: ``store.edit({"label": "'bee'"}, "label = 'Bee'")``.

        Args:
            assignments: expressions by column: label, split, group_id or one of the user's own.
            where, items: which items, as in :meth:`delete`.
            new: make columns that do not exist.
            wait: seconds to wait for another writer.

        Raises:
            UnknownColumn, BadFilter, QueryError: a column or an expression that cannot be used; nothing is changed.
        """
        settings = {"set": dict(assignments), "where": where, "items": items}
        return self._change(
            "edit",
            settings,
            wait,
            lambda writer: item_changes.edit(writer, assignments, ItemSelection(where, items), create_columns=new),
        )

    def edit_from(self, table: str | Path, *, key: str | None = None, wait: float = 0.0) -> dict[str, int]:
        """Set columns from a CSV, Parquet or JSON lines table with ``item`` or ``uri``.

        Returns:
            ``{"items", "unknown"}``: rows used, and rows whose item the store does not have.
        """
        return self._change(
            "edit",
            {"table": str(table)},
            wait,
            lambda writer: item_changes.edit_from_table(writer, Path(table), key=key),
        )

    def rename(self, old: str, new: str, *, wait: float = 0.0) -> dict[str, int]:
        """Give an item, or with ``/`` at the end all items below a folder, another uri; files are not touched."""
        return self._change(
            "rename", {"old": old, "new": new}, wait, lambda writer: item_changes.rename(writer, old, new)
        )

    def rename_space(self, old: str, new: str, *, wait: float = 0.0) -> None:
        """Call a space otherwise."""
        with self._storage.writer(f"rename space {old}", wait=wait) as writer:
            space_changes.rename_space(self._storage, writer, old, new)

    def compact(self, *, wait: float = 0.0, report: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
        """Merge small vector files, wipe vectors that no item needs, and build indexes over them again.

        Returns:
            ``{"files_before", "files_after", "rows_dropped", "bytes_freed", "indexes"}``.
        """
        result = self._change(
            "compact",
            {},
            wait,
            lambda writer: compacting.compact(self._storage, writer, progress=lambda n: report(f"{n:,} rows written")),
        )
        rebuilt = []
        for space in self.spaces:
            if not build.indexes_match_shards(self._storage, space):  # an old index would still hold what was wiped
                built = build.rebuild_index(self._storage, space, progress=report, wait=wait)
                rebuilt += [built.sidecar.file] if built else []
        return result | {"indexes": rebuilt}

    def index(
        self,
        *,
        recall: float = 0.95,
        max_memory: str | int = "4GB",
        kind: str | None = None,
        space: str | None = None,
        wait: float = 0.0,
        report: Callable[[str], None] = lambda _: None,
    ) -> build.IndexBuild:
        """Build an approximate index; see :func:`embedstore.search.index.build.build_index`. Searches go on meanwhile.

        Raises:
            QueryError: nothing to index, or nothing within the memory reaches the recall.
        """
        target = build.IndexTarget(recall, max_memory, kind)
        return build.build_index(self._storage, self._storage.space(space), target, progress=report, wait=wait)

    def duplicates(
        self,
        threshold: float = 0.95,
        *,
        where: str | None = None,
        keep: str = "first",
        exact: bool | None = None,
        mark: bool = False,
        space: str | None = None,
        wait: float = 0.0,
    ) -> DuplicateGroups:
        """Groups of items that look alike; see :func:`embedstore.search.duplicates.find_duplicates`.

        Args:
            threshold: least cosine of a pair. where: only items that match.
            keep: which item of a group stays: first or largest.
            exact: compare all with all; None decides by the number.
            mark: write the columns ``duplicate_group`` and ``duplicate_keep``.
            space: name or key. wait: seconds to wait for another writer.

        Raises:
            QueryError: a threshold or policy that does not exist.
        """
        if keep not in list(DuplicateKeepPolicy):
            raise QueryError(f"keep is {' or '.join(DuplicateKeepPolicy)}, not {keep!r}")
        row = self._storage.space(space)
        found = find_duplicates(
            self._storage, row, threshold=threshold, where=where, keep=DuplicateKeepPolicy(keep), exact=exact
        )
        if mark:
            columns = {
                "duplicate_group": np.array([i.group for i in found.items], np.int64),
                "duplicate_keep": np.array([i.keep for i in found.items], np.bool_),
            }
            items = np.array([i.item for i in found.items], np.int64)
            self._change("duplicates", {"threshold": threshold, "where": where}, wait, _setter(items, columns))
        return found

    def cluster(
        self,
        k: int,
        *,
        where: str | None = None,
        column: str = "cluster",
        outlier: str = "outlier",
        space: str | None = None,
        wait: float = 0.0,
    ) -> dict[str, int]:
        """K-means into two columns of the items: the cluster (0 is the largest) and how unlike its centre an item is.

        Returns:
            ``{"items"}``: how many.
        """
        found = find_clusters(self._storage, self._storage.space(space), k, where=where)
        settings = {"k": k, "where": where, "column": column}
        return self._change(
            "cluster", settings, wait, _setter(found.items, {column: found.cluster, outlier: found.outlier_score})
        )

    def _change(
        self, verb: str, settings: dict[str, Any], wait: float, work: Callable[[Writer], dict[str, int]]
    ) -> dict[str, int]:
        """Do it in the writer's place; kept as a run if it succeeds."""
        started = utc_now()
        with self._storage.writer(verb, wait=wait) as writer:
            result = work(writer)
            writer.record_run(verb, None, {k: v for k, v in settings.items() if v is not None}, result, started)
        return result


def _setter(items: NDArray[np.int64], columns: dict[str, NDArray[Any]]) -> Callable[[Writer], dict[str, int]]:
    """Writes computed columns."""
    return lambda writer: {"items": item_changes.set_columns(writer, items, columns)}

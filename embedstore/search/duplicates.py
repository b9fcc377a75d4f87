"""Near-duplicates, clusters and outliers of a space, in memory that is bounded by a block and a few numbers an item."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.search.index import self_join
from embedstore.search.index.scan import Scanner
from embedstore.storage import filters as item_filter
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import VectorReader

_CHECKED = 200  # rows whose neighbours are searched exactly, to measure what was missed
_RELEASED = 200_000  # rows: at 512 dimensions 200 to 800 MB of pages
_MOST_PAIRS = 1000  # items of a group whose pairs across splits are listed


class DuplicateKeepPolicy(StrEnum):
    """Which item of a group stays."""

    FIRST = "first"  # the lowest id
    LARGEST = "largest"  # the most pixels, then the most bytes, then the lowest id


@dataclass(frozen=True)
class DuplicateGroups:
    """Groups of items that look alike.

    Attributes:
        rows: one mapping an item in a group: ``group, keep, item, uri, label, split, weakest``, by group, the kept
            one first. ``weakest`` is the lowest cosine that the group's best chain of pairs needs; 1 for equal bytes.
        across: pairs of items in different splits: ``group, score, item, split, other, other_split``.
        compared: contents compared. threshold: least cosine of a pair.
        recall: share of the neighbours above the threshold of 200 sampled rows that were found; 1 where exact.
    """

    rows: list[dict[str, Any]]
    across: list[dict[str, Any]]
    compared: int
    threshold: float
    recall: float

    @property
    def groups(self) -> int:
        """How many."""
        return len({r["group"] for r in self.rows})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "groups": self.groups, "items": len(self.rows), "extra": sum(not r["keep"] for r in self.rows),
            "compared": self.compared, "threshold": self.threshold, "recall": self.recall,
            "rows": self.rows, "across_splits": self.across,
        }  # fmt: skip


def duplicates(
    storage: Storage,
    space: SpaceRecord,
    *,
    threshold: float = 0.95,
    where: str | None = None,
    keep: DuplicateKeepPolicy = DuplicateKeepPolicy.FIRST,
    exact: bool | None = None,
) -> DuplicateGroups:
    """Groups of present items whose vectors are near, or whose bytes are the same.

    Args:
        storage, space: what to compare.
        threshold: least cosine of a pair; pairs join into groups in chains.
        where: only items that match. keep: which item of each group stays.
        exact: compare all with all; None does so up to 100,000 contents, beyond it compares within k-means cells
            and measures what that misses.

    Raises:
        QueryError: a threshold outside (0, 1]. BadFilter, UnknownColumn: the filter cannot be used.
    """
    if not 0 < threshold <= 1:
        raise QueryError(f"the threshold is a cosine above 0 and at most 1, not {threshold}")
    items, positions, vectors = matching_rows(storage, space, where)
    places, content = np.unique(positions, return_inverse=True)
    gather = _gatherer(vectors, places)
    is_exact = len(places) <= self_join.EXACT_MAX_ROWS if exact is None else exact
    limit = threshold - 1e-6  # float32 gives 0.9999999 for equal rows
    groups = self_join.connected_groups(
        self_join.similar_pairs(gather, len(places), limit, exact=is_exact), len(places)
    )
    recall = 1.0 if is_exact else _recall(vectors, places, groups, limit, unit=space.space.unit)
    label = np.full(len(places), -1, np.int64)
    label[groups.rows] = groups.group
    weakest = groups.min_cosine
    alone = np.flatnonzero((label < 0) & (np.bincount(content, minlength=len(places)) > 1))
    label[alone] = np.arange(len(alone)) + len(weakest)  # nothing is near, but several items have these bytes
    weakest = np.concatenate([weakest, np.ones(len(alone), np.float32)])
    inside = label[content] >= 0
    rows = _rows(storage, items[inside], label[content][inside], weakest, keep)
    place_of = dict(zip(items[inside].tolist(), content[inside].tolist(), strict=True))
    return DuplicateGroups(rows, _across(rows, place_of, gather, limit), len(places), threshold, recall)


def clusters(
    storage: Storage, space: SpaceRecord, k: int, *, where: str | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """K-means over unit vectors: ``(items, cluster int64 (n,), outlier float32 (n,))``.

    Clusters are numbered by size, the largest 0. An outlier score is 1 - cosine with the item's own centre: high is
    unlike all others.

    Raises:
        QueryError: k is below 1 or above the number of contents.
    """
    items, positions, vectors = matching_rows(storage, space, where)
    places, content = np.unique(positions, return_inverse=True)
    if not 1 <= k <= len(places):
        raise QueryError(f"k must be between 1 and the {len(places)} different contents, not {k}")
    gather = _gatherer(vectors, places)
    centres = self_join.spherical_kmeans(gather, len(places), k, samples_per_center=256, iterations=20)
    centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    cluster, outlier = np.empty(len(places), np.int64), np.empty(len(places), np.float32)
    for begin in range(0, len(places), self_join.BLOCK_ROWS):
        part = np.arange(begin, min(len(places), begin + self_join.BLOCK_ROWS))
        scores = gather(part) @ centres.T
        cluster[part], outlier[part] = scores.argmax(axis=1), 1 - scores.max(axis=1)
    rank = np.empty(k, np.int64)
    rank[np.argsort(-np.bincount(cluster[content], minlength=k), kind="stable")] = np.arange(k)
    return items, rank[cluster][content], outlier[content]


def matching_rows(
    storage: Storage, space: SpaceRecord, where: str | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], VectorReader]:
    """Present items that match and have a vector, by id, with the positions of their vectors."""
    with storage.catalog.read() as con, item_filter.filter_errors(where):
        condition = item_filter.compile_filter(con, where)
        vectors = storage.vector_reader_in(con, space.space).map_shards()
        found = con.execute(
            f'SELECT i.item, v.shard, v."row"::BIGINT AS r FROM (SELECT * FROM items WHERE present AND ({condition})) '
            "i JOIN vectors v ON v.content = i.content AND v.space = ? ORDER BY i.item",
            [space.key],
        ).fetchnumpy()
    positions = vectors.positions(np.asarray(found["shard"], np.int64), np.asarray(found["r"], np.int64))
    return np.asarray(found["item"], np.int64), positions, vectors


def _gatherer(vectors: VectorReader, places: NDArray[np.int64]) -> self_join.UnitRowReader:
    """Unit rows by their number among ``places``; the files' pages leave this process's memory now and then."""
    gathered = 0

    def gather(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        nonlocal gathered
        found = vectors.read_float32(places[rows])
        gathered += len(rows)
        if gathered > _RELEASED:
            vectors.release_memory()
            gathered = 0
        unit: NDArray[np.float32] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit

    return gather


def _recall(
    vectors: VectorReader, places: NDArray[np.int64], groups: self_join.RowGroups, limit: float, *, unit: bool
) -> float:
    """How many of the neighbours of some rows stand in the same group as they."""
    scanner = Scanner(vectors.shard_arrays(), unit=unit)
    mask = np.zeros(len(vectors), np.bool_)
    mask[places] = True
    group = np.full(len(vectors), -1, np.int64)
    group[places[groups.rows]] = groups.group
    near = found = 0
    for place in np.random.default_rng(1).permutation(places)[:_CHECKED]:
        row = vectors.read_float32(np.array([place]))[0]
        scores, others = scanner.top_k(row / np.linalg.norm(row), 100, mask=mask)
        others = others[(scores >= limit) & (others != place)]
        near += len(others)
        found += int(((group[others] == group[place]) & (group[place] >= 0)).sum())
    return round(found / near, 4) if near else 1.0


def _rows(
    storage: Storage,
    items: NDArray[np.int64],
    group: NDArray[np.int64],
    weakest: NDArray[np.float32],
    keep: DuplicateKeepPolicy,
) -> list[dict[str, Any]]:
    """What the catalog knows of the items, by group, the kept one first; groups numbered from 1 by their first item."""
    grouped = {"item": items, "g": group, "weakest": weakest[group].astype(np.float64)}  # noqa: F841 - read by SQL
    size = (
        "coalesce(c.width::BIGINT * c.height, 0) DESC, coalesce(c.bytes, i.size) DESC, "
        if keep is DuplicateKeepPolicy.LARGEST
        else ""
    )
    with storage.catalog.read() as con:
        found = con.execute(
            "WITH g AS (SELECT grouped.*, min(grouped.item) OVER (PARTITION BY g) AS head FROM grouped) "
            f"SELECT dense_rank() OVER (ORDER BY g.head), row_number() OVER (PARTITION BY g.g ORDER BY {size}i.item) "
            "AS place, i.item, i.uri, i.label, i.split, g.weakest FROM g JOIN items i USING (item) "
            "LEFT JOIN contents c USING (content) ORDER BY 1, 2"
        ).fetchall()
    return [
        {
            "group": n,
            "keep": place == 1,
            "item": item,
            "uri": uri,
            "label": label,
            "split": split,
            "weakest": round(w, 6),
        }
        for n, place, item, uri, label, split, w in found
    ]


def _across(
    rows: list[dict[str, Any]], place_of: dict[int, int], gather: self_join.UnitRowReader, limit: float
) -> list[dict[str, Any]]:
    """Pairs of one group in different splits."""
    out: list[dict[str, Any]] = []
    for group in _by_group(rows):
        members = [m for m in group if m["split"] is not None][:_MOST_PAIRS]
        if len({m["split"] for m in members}) < 2:
            continue
        unit = gather(np.array([place_of[m["item"]] for m in members]))
        scores = unit @ unit.T
        for i, j in zip(*np.nonzero(np.triu(scores >= limit, 1)), strict=True):
            one, other = members[i], members[j]
            if one["split"] != other["split"]:
                out.append(
                    {
                        "group": one["group"], "score": round(float(min(scores[i, j], 1)), 6), "item": one["item"],
                        "split": one["split"], "other": other["item"], "other_split": other["split"],
                    }
                )  # fmt: skip
    return out


def _by_group(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows of one group after another."""
    run: list[dict[str, Any]] = []
    for row in rows:
        if run and run[0]["group"] != row["group"]:
            yield run
            run = []
        run.append(row)
    if run:
        yield run

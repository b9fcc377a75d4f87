"""Near-duplicates of a space. Memory is bounded by a block and a few numbers per item."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.errors import QueryError
from embedstore.search.index import self_join
from embedstore.search.index.kmeans import UnitRowReader
from embedstore.search.index.scan import Scanner
from embedstore.search.index.self_join import RowGroups
from embedstore.search.space_rows import MatchingRows
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.tables import Record, Table
from embedstore.text_form import clean_split

_RECALL_ROWS = 200  # rows whose neighbors are searched exactly, to measure what was missed
_RECALL_NEIGHBORS = 100  # ... of each
_MAX_GROUP_ITEMS = 1000  # items of a group whose pairs across splits are listed
_ROUNDING = 1e-6  # float32 gives 0.9999999 for equal rows


class DuplicateKeepPolicy(StrEnum):
    """Which item of a group to keep."""

    FIRST = "first"  # the lowest id
    LARGEST = "largest"  # the most pixels, then the most bytes, then the lowest id


@dataclass(frozen=True)
class DuplicateItem:
    """One item of a group of duplicates.

    Attributes:
        group: number of the group, from 1.
        keep: whether this is the item of the group to keep.
        item: its id.
        uri: its uri.
        label: its label.
        split: its split.
        min_cosine: the lowest cosine that the group's best chain of pairs needs; 1 for equal bytes.
    """

    group: int
    keep: bool
    item: int
    uri: str
    label: str | None
    split: str | None
    min_cosine: float

    def to_json(self) -> Record:
        """Return plain values."""
        record = asdict(self)
        record["weakest"] = record.pop("min_cosine")
        return record


@dataclass(frozen=True)
class CrossSplitPair:
    """Two items of one group in different splits.

    Attributes:
        group: number of the group.
        score: their cosine.
        item: id of the one.
        split: its split.
        other_item: id of the other.
        other_split: its split.
    """

    group: int
    score: float
    item: int
    split: str
    other_item: int
    other_split: str

    def to_json(self) -> Record:
        """Return plain values."""
        return {
            "group": self.group, "score": self.score, "item": self.item, "split": self.split,
            "other": self.other_item, "other_split": self.other_split,
        }  # fmt: skip


@dataclass(frozen=True)
class DuplicateGroups(Table):
    """Groups of items that look alike.

    Attributes:
        items: the items of all groups, by group, the item to keep first.
        cross_split_pairs: pairs of items in different splits.
        content_count: number of contents compared.
        threshold: least cosine of a pair.
        recall: of the neighbors above the threshold of 200 sampled rows, the share that was found; 1 where exact.
    """

    items: tuple[DuplicateItem, ...]
    cross_split_pairs: tuple[CrossSplitPair, ...]
    content_count: int
    threshold: float
    recall: float

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return len({item.group for item in self.items})

    def records(self) -> list[Record]:
        """Return one mapping per item."""
        return [item.to_json() for item in self.items]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "groups": self.group_count, "items": len(self.items), "extra": sum(not i.keep for i in self.items),
            "compared": self.content_count, "threshold": self.threshold, "recall": self.recall,
            "rows": self.records(), "across_splits": [pair.to_json() for pair in self.cross_split_pairs],
        }  # fmt: skip


def find_duplicates(
    storage: Storage,
    space: SpaceRecord,
    *,
    threshold: float = 0.95,
    where: str | None = None,
    keep: DuplicateKeepPolicy = DuplicateKeepPolicy.FIRST,
    exact: bool | None = None,
) -> DuplicateGroups:
    """Find groups of present items whose vectors are near, or whose bytes are the same.

    Args:
        storage: the store.
        space: the space.
        threshold: least cosine of a pair; pairs join into groups in chains.
        where: only items that match this filter.
        keep: which item of each group to keep.
        exact: compare every content with every other; None does so up to 100,000 contents, and beyond compares within
            k-means cells and measures what that misses.

    Raises:
        QueryError: if the threshold is not above 0 and at most 1.
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the filter names a column that the items lack.
    """
    if not 0 < threshold <= 1:
        raise QueryError(f"the threshold is a cosine above 0 and at most 1, not {threshold}")
    matching = MatchingRows.load(storage, space, where)
    count, read_rows, limit = len(matching), matching.reader(), threshold - _ROUNDING
    is_exact = count <= self_join.EXACT_MAX_ROWS if exact is None else exact
    pairs = self_join.similar_pairs(read_rows, count, limit, exact=is_exact)
    groups = self_join.connected_groups(pairs, count)
    recall = 1.0 if is_exact else _recall(matching, groups, limit, unit=space.space.unit)
    group, min_cosine = _group_of_contents(matching, groups)
    items = _duplicate_items(storage, matching, group, min_cosine, keep)
    return DuplicateGroups(items, _cross_split_pairs(items, matching, read_rows, limit), count, threshold, recall)


def _group_of_contents(matching: MatchingRows, groups: RowGroups) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the group of each content, or -1, and the lowest cosine of each group.

    A content that is near no other is a group where several items have it.
    """
    group = np.full(len(matching), -1, np.int64)
    group[groups.rows] = groups.group
    shared = np.flatnonzero((group < 0) & (np.bincount(matching.content, minlength=len(matching)) > 1))
    group[shared] = np.arange(len(shared)) + len(groups.min_cosine)
    return group, np.concatenate([groups.min_cosine, np.ones(len(shared), np.float32)])


def _duplicate_items(
    storage: Storage,
    matching: MatchingRows,
    group_of_content: NDArray[np.int64],
    min_cosine: NDArray[np.float32],
    keep: DuplicateKeepPolicy,
) -> tuple[DuplicateItem, ...]:
    """Return the items that are in a group with what the catalog knows of them."""
    group = group_of_content[matching.content]
    is_duplicate = group >= 0
    with storage.catalog.read() as con:
        rows = queries.duplicate_rows(
            con,
            matching.items[is_duplicate],
            group[is_duplicate],
            largest_first=keep is DuplicateKeepPolicy.LARGEST,
        )
    return tuple(
        DuplicateItem(number, rank == 1, item, uri, label, split, round(float(min_cosine[g]), 6))
        for number, rank, item, uri, label, split, g in rows
    )


def _recall(matching: MatchingRows, groups: RowGroups, limit: float, *, unit: bool) -> float:
    """Return the share of the true neighbors of some rows that are in the same group as they."""
    vectors, positions = matching.vectors, matching.positions
    scanner = Scanner(vectors.shard_arrays(), unit=unit)
    mask = np.zeros(len(vectors), np.bool_)
    mask[positions] = True
    group = np.full(len(vectors), -1, np.int64)
    group[positions[groups.rows]] = groups.group
    near = same_group = 0
    for position in np.random.default_rng(1).permutation(positions)[:_RECALL_ROWS]:
        query = unit_rows(vectors.read_float32(np.array([position])))[0]
        scores, others = scanner.top_k(query, _RECALL_NEIGHBORS, mask=mask)
        others = others[(scores >= limit) & (others != position)]
        near += len(others)
        same_group += int(((group[others] == group[position]) & (group[position] >= 0)).sum())
    return round(same_group / near, 4) if near else 1.0


def _cross_split_pairs(
    items: tuple[DuplicateItem, ...], matching: MatchingRows, read_rows: UnitRowReader, limit: float
) -> tuple[CrossSplitPair, ...]:
    """Return the pairs of each group in different splits."""
    pairs: list[CrossSplitPair] = []
    for _, group in groupby(items, key=lambda i: i.group):
        members = [(i, split) for i in group if (split := clean_split(i.split)) is not None][:_MAX_GROUP_ITEMS]
        if len({split for _, split in members}) < 2:
            continue
        rows = read_rows(matching.content[np.searchsorted(matching.items, [i.item for i, _ in members])])
        scores = rows @ rows.T
        for a, b in zip(*np.nonzero(np.triu(scores >= limit, 1)), strict=True):
            (one, split), (other, other_split) = members[a], members[b]
            if split != other_split:
                score = round(float(min(scores[a, b], 1)), 6)
                pairs.append(CrossSplitPair(one.group, score, one.item, split, other.item, other_split))
    return tuple(pairs)

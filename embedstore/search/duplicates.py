"""Near-duplicates of a space. Memory is bounded by a block and a few numbers per item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.search.duplicate_groups import CrossSplitPair, DuplicateGroups, DuplicateItem, DuplicateKeepPolicy
from embedstore.search.index import self_join
from embedstore.search.index.pair_groups import RowGroups, connected_groups
from embedstore.search.index.self_join import Pairs, SelfJoin
from embedstore.search.index.short_rows import short_rows
from embedstore.search.space_rows import MatchingRows
from embedstore.search.split_pairs import NO_SPLIT, SplitPairs
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.text_form import clean_split

MAX_LISTED_PAIRS = 100_000  # pairs across splits that are listed; all are counted
_RECALL_ROWS = 1000  # rows whose pairs are searched among all rows, to measure what was missed
_MAX_RECALL_PAIRS = 1_000_000  # pairs of these rows that are looked at
_ROUNDING = 1e-6  # float32 gives 0.9999999 for equal rows


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
        exact: compare every content with every other; None does so up to 200,000 contents, and beyond compares within
            k-means cells and measures what that misses.

    Raises:
        QueryError: if the threshold is not above 0 and at most 1.
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the filter names a column that the items lack.
    """
    if not 0 < threshold <= 1:
        raise QueryError(f"the threshold is a cosine above 0 and at most 1, not {threshold}")
    matching = MatchingRows.load(storage, space, where)
    splits = _split_numbers(storage, matching)
    across = SplitPairs(matching, splits, MAX_LISTED_PAIRS)
    found = _join(matching, threshold - _ROUNDING, across, exact)
    group, min_cosine = _group_of_contents(matching, found.groups)
    items = _duplicate_items(storage, matching, group, min_cosine, keep)
    return DuplicateGroups(
        items=items,
        cross_split_pairs=_named_pairs(storage, across, items),
        cross_split_count=across.count,
        content_count=len(matching),
        pair_count=found.pair_count,
        threshold=threshold,
        recall=found.recall,
        recall_pairs=found.recall_pairs,
    )


@dataclass(frozen=True)
class _Found:
    """What a join of contents found.

    Attributes:
        groups: the groups of contents.
        pair_count: pairs of contents.
        recall: the share of the pairs of a sample that was found, None if it has no pair.
        recall_pairs: pairs of the sample; 0 where all pairs were compared.
    """

    groups: RowGroups
    pair_count: int
    recall: float | None
    recall_pairs: int


def _join(matching: MatchingRows, limit: float, across: SplitPairs, exact: bool | None) -> _Found:
    """Find the pairs of contents, and measure what is missed where not all are compared."""
    count, read_rows = len(matching), matching.reader()
    is_exact = count <= self_join.EXACT_MAX_ROWS if exact is None else exact
    with short_rows(read_rows, count) as short:
        join = SelfJoin(read_rows, short, limit)
        if is_exact or join.is_small:
            sample = None
            pairs = join.all_pairs()
        else:
            sample = _RecallSample.of(join, count)
            pairs = sample.watch(join.pairs_in_cells())
        counted = _Counter()
        groups = connected_groups(across.watch(counted.watch(pairs)), count)
    if sample is None:
        return _Found(groups, counted.count, 1.0, 0)
    return _Found(groups, counted.count, sample.recall, sample.true_count)


class _Counter:
    """Counts the pairs that pass."""

    def __init__(self) -> None:
        self.count = 0

    def watch(self, pairs: Iterable[Pairs]) -> Iterator[Pairs]:
        """Pass pairs on."""
        for more in pairs:
            self.count += len(more[0])
            yield more


class _RecallSample:
    """Some contents, whose pairs with all others are known, and how many of these pairs pass.

    Args:
        is_sampled: bool ``(N,)``.
        true_count: pairs with a sampled content.
    """

    def __init__(self, is_sampled: NDArray[np.bool_], true_count: int) -> None:
        self._is_sampled, self.true_count, self._found = is_sampled, true_count, 0

    @classmethod
    def of(cls, join: SelfJoin, count: int) -> _RecallSample:
        """Sample contents until there are enough, or their pairs are."""
        order = np.random.default_rng(1).permutation(count)[:_RECALL_ROWS]
        is_sampled, true_count = np.zeros(count, np.bool_), 0
        for part in np.array_split(order, 10):
            known = is_sampled.copy()
            is_sampled[part] = True
            for a, b, _ in join.pairs_with(np.sort(part)):
                true_count += int((~known[a] & ~known[b]).sum())
            if true_count > _MAX_RECALL_PAIRS:
                break
        return cls(is_sampled, true_count)

    @property
    def recall(self) -> float | None:
        """The share of the pairs that passed; None if there are none."""
        return round(self._found / self.true_count, 6) if self.true_count else None

    def watch(self, pairs: Iterable[Pairs]) -> Iterator[Pairs]:
        """Pass pairs on, and count those of sampled contents."""
        for a, b, cosine in pairs:
            self._found += int((self._is_sampled[a] | self._is_sampled[b]).sum())
            yield a, b, cosine


def _split_numbers(storage: Storage, matching: MatchingRows) -> NDArray[np.int64]:
    """Return a number for the split of each item; words for one split have one number."""
    with storage.catalog.read() as con:
        number, words = queries.item_splits(con, matching.items)
    splits = [clean_split(word) for word in words]
    names = sorted({split for split in splits if split is not None})
    meaning = np.array([names.index(s) if s is not None else NO_SPLIT for s in splits] + [NO_SPLIT], np.int64)
    return np.asarray(meaning[number])  # the number -1 takes the last entry


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
        rows = queries.duplicate_rows(con, matching.items[is_duplicate], group[is_duplicate], keep.value)
    content = matching.content[np.searchsorted(matching.items, np.array([row[2] for row in rows], np.int64))]
    is_kept = np.array([row[1] == 1 for row in rows], np.bool_)
    kept = content[np.maximum.accumulate(np.where(is_kept, np.arange(len(rows)), 0))] if rows else content
    cosine = _cosines(matching, content, kept)
    return tuple(
        DuplicateItem(
            number, rank == 1, item, uri, label, split, round(float(min_cosine[g]), 6), round(c, 6), bool(same)
        )
        for (number, rank, item, uri, label, split, g), c, same in zip(rows, cosine, content == kept, strict=True)
    )


def _cosines(matching: MatchingRows, a: NDArray[np.int64], b: NDArray[np.int64]) -> list[float]:
    """Return the cosine of each content of one list with that of the other."""
    read_rows, cosine = matching.reader(), np.ones(len(a), np.float32)
    differ = np.flatnonzero(a != b)
    for begin in range(0, len(differ), self_join.BLOCK_ROWS):
        rows = differ[begin : begin + self_join.BLOCK_ROWS]
        cosine[rows] = np.einsum("ij,ij->i", read_rows(a[rows]), read_rows(b[rows]))
    return [float(c) for c in np.minimum(cosine, 1)]


def _named_pairs(storage: Storage, across: SplitPairs, items: tuple[DuplicateItem, ...]) -> tuple[CrossSplitPair, ...]:
    """Return the most similar pairs across splits with what is known of their items."""
    known = {i.item: i for i in items}
    return tuple(
        CrossSplitPair(
            (a := known[one]).group, cosine, one, a.uri, a.label, clean_split(a.split) or "",
            other, (b := known[other]).uri, b.label, clean_split(b.split) or "",
        )
        for one, other, cosine in across.item_pairs()
    )  # fmt: skip

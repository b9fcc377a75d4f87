"""Near-duplicates of a space. Memory is bounded by a block and a few numbers per item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.copy_threshold import (
    MIN_ROWS,
    ONLY_EQUAL,
    SAMPLE_ROWS,
    choose_copy_threshold,
    equal_row_pairs,
)
from embedstore.errors import QueryError
from embedstore.search.content_images import read_content_thumbnails
from embedstore.search.duplicate_groups import CrossSplitPair, DuplicateGroups, DuplicateItem, DuplicateKeepPolicy
from embedstore.search.index import self_join
from embedstore.search.index.pair_groups import RowGroups, connected_groups
from embedstore.search.index.self_join import Pairs, SelfJoin
from embedstore.search.index.short_rows import short_rows
from embedstore.search.pixel_pairs import CheckedPairs, PixelCheck, Thumbnails, check_pairs
from embedstore.search.space_rows import MatchingRows
from embedstore.search.split_pairs import NO_SPLIT, SplitPairs
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.text_form import clean_split

MAX_LISTED_PAIRS = 100_000  # pairs across splits that are listed; all are counted
FEW_ROWS_THRESHOLD = 0.95  # where there are too few vectors to choose it from
_MIN_NUMBERS = 8  # of a vector, for that threshold: of 19 random vectors of 4 numbers, one pair in a set is above it
_RECALL_ROWS = 1000  # rows whose pairs are searched among all rows, to measure what was missed
_MAX_RECALL_PAIRS = 1_000_000  # pairs of these rows that are looked at
_ROUNDING = 1e-6  # float32 gives 0.9999999 for equal rows


@dataclass(frozen=True)
class DuplicateOptions:
    """How duplicates are found.

    Attributes:
        threshold: least cosine of a pair; None chooses it from the vectors. Pairs join into groups in chains.
        where: only items that match this filter.
        keep: which item of each group to keep.
        exact: compare every content with every other; None does so up to 200,000 contents, and beyond compares within
            k-means cells and measures what that misses.
        check_pixels: let the pixels of the nearest contents decide instead of the cosine.
    """

    threshold: float | None = None
    where: str | None = None
    keep: DuplicateKeepPolicy = DuplicateKeepPolicy.FIRST
    exact: bool | None = None
    check_pixels: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise QueryError(f"the threshold is a cosine above 0 and at most 1, not {self.threshold}")


def find_duplicates(storage: Storage, space: SpaceRecord, options: DuplicateOptions) -> DuplicateGroups:
    """Find groups of present items that look alike, or whose bytes are the same.

    Raises:
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the filter names a column that the items lack.
    """
    matching = MatchingRows.load(storage, space, options.where)
    threshold = choose_threshold(matching) if options.threshold is None else options.threshold
    across = SplitPairs(matching, _split_numbers(storage, matching), MAX_LISTED_PAIRS)
    if options.check_pixels:
        found = _join_by_pixels(storage, matching, threshold, across)
    elif options.threshold is None and threshold == ONLY_EQUAL:
        found = _join_equal(matching, across)
    else:
        found = _join(matching, threshold - _ROUNDING, across, options.exact)
    items = _duplicate_items(storage, matching, found, options.keep)
    return DuplicateGroups(
        items=items,
        cross_split_pairs=_named_pairs(matching, across, items, found.pixels),
        cross_split_count=across.count,
        content_count=len(matching),
        pair_count=found.pair_count,
        threshold=threshold,
        is_threshold_chosen=options.threshold is None,
        recall=found.recall,
        recall_pairs=found.recall_pairs,
        pixels=found.pixels.check if found.pixels else None,
    )


@dataclass(frozen=True)
class _Found:
    """What a join of contents found.

    Attributes:
        groups: the groups of contents.
        pair_count: pairs of contents.
        recall: the share of the pairs of a sample that was found, None if it has no pair.
        recall_pairs: pairs of the sample; 0 where all pairs were compared.
        pixels: the pairs by their pixels; None where only cosines were compared.
    """

    groups: RowGroups
    pair_count: int
    recall: float | None
    recall_pairs: int = 0
    pixels: _PixelScores | None = None


def choose_threshold(matching: MatchingRows) -> float:
    """Return the cosine of copies in these vectors; that of a fixed default where they are too few to say.

    It is 1, and only equal vectors count, where the vectors cannot tell copies from items that look alike.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(matching))[:SAMPLE_ROWS])
    sample = matching.reader()(rows)
    if len(matching) < MIN_ROWS:
        return FEW_ROWS_THRESHOLD if sample.shape[1] >= _MIN_NUMBERS else ONLY_EQUAL
    return round(choose_copy_threshold(sample, len(matching)), 6)


def _join_by_pixels(storage: Storage, matching: MatchingRows, threshold: float, across: SplitPairs) -> _Found:
    """Find the pairs of contents that show one picture."""

    def thumbnails(contents: NDArray[np.int64]) -> Thumbnails:
        return read_content_thumbnails(storage, matching, contents)

    checked = check_pairs(matching.reader(), len(matching), thumbnails, threshold - _ROUNDING)
    groups = connected_groups(across.watch([checked.pairs]), len(matching))
    scores = _PixelScores.of(checked, len(matching))
    return _Found(groups, len(checked.pixels), None, pixels=scores)


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
        return _Found(groups, counted.count, 1.0)
    return _Found(groups, counted.count, sample.recall, sample.true_count)


def _join_equal(matching: MatchingRows, across: SplitPairs) -> _Found:
    """Find the contents of equal vectors."""
    count, read_rows = len(matching), matching.reader()
    starts = range(0, count, self_join.BLOCK_ROWS)
    blocks = (read_rows(np.arange(n, min(n + self_join.BLOCK_ROWS, count))) for n in starts)
    a, b = equal_row_pairs(blocks)
    groups = connected_groups(across.watch([(a, b, np.ones(len(a), np.float32))]), count)
    return _Found(groups, len(a), 1.0)


@dataclass(frozen=True)
class _PixelScores:
    """The scores of the pairs of contents whose pixels show one picture.

    Attributes:
        check: counts.
        keys: int64 ``(P,)`` ascending, lower content * count + higher content.
        scores: float32 ``(P,)``; NaN where an image could not be read.
        count: number of contents.
    """

    check: PixelCheck
    keys: NDArray[np.int64]
    scores: NDArray[np.float32]
    count: int

    @classmethod
    def of(cls, checked: CheckedPairs, count: int) -> _PixelScores:
        """Sort the pairs that were accepted."""
        keys = checked.pairs[0] * count + checked.pairs[1]
        order = np.argsort(keys)
        return cls(checked.check, keys[order], checked.pixels[order], count)

    def of_pair(self, a: int, b: int) -> float | None:
        """Return the score of two contents; 1 for the same one, None for a pair that is not among them."""
        if a == b:
            return 1.0
        key = min(a, b) * self.count + max(a, b)
        place = int(np.searchsorted(self.keys, key))
        if place == len(self.keys) or self.keys[place] != key or np.isnan(self.scores[place]):
            return None
        return round(float(self.scores[place]), 4)


class _Counter:
    """Counts the pairs that pass."""

    def __init__(self) -> None:
        self.count = 0

    def watch(self, pairs: Iterable[Pairs]) -> Iterator[Pairs]:
        """Yield the pairs, and count them."""
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
    storage: Storage, matching: MatchingRows, found: _Found, keep: DuplicateKeepPolicy
) -> tuple[DuplicateItem, ...]:
    """Return the items that are in a group with what the catalog knows of them."""
    group_of_content, min_cosine = _group_of_contents(matching, found.groups)
    group = group_of_content[matching.content]
    is_duplicate = group >= 0
    with storage.catalog.read() as con:
        rows = queries.duplicate_rows(con, matching.items[is_duplicate], group[is_duplicate], keep.value)
    content = matching.content[np.searchsorted(matching.items, np.array([row[2] for row in rows], np.int64))]
    is_kept = np.array([row[1] == 1 for row in rows], np.bool_)
    kept = content[np.maximum.accumulate(np.where(is_kept, np.arange(len(rows)), 0))] if rows else content
    scores = zip(_cosines(matching, content, kept), content.tolist(), kept.tolist(), strict=True)
    return tuple(
        DuplicateItem(
            number, rank == 1, item, uri, label, split, round(float(min_cosine[g]), 6), round(cosine, 6), one == other,
            found.pixels.of_pair(one, other) if found.pixels else None,
        )
        for (number, rank, item, uri, label, split, g), (cosine, one, other) in zip(rows, scores, strict=True)
    )  # fmt: skip


def _cosines(matching: MatchingRows, a: NDArray[np.int64], b: NDArray[np.int64]) -> list[float]:
    """Return the cosine of each content of one list with that of the other."""
    read_rows, cosine = matching.reader(), np.ones(len(a), np.float32)
    differ = np.flatnonzero(a != b)
    for begin in range(0, len(differ), self_join.BLOCK_ROWS):
        rows = differ[begin : begin + self_join.BLOCK_ROWS]
        cosine[rows] = np.einsum("ij,ij->i", read_rows(a[rows]), read_rows(b[rows]))
    return [float(c) for c in np.minimum(cosine, 1)]


def _named_pairs(
    matching: MatchingRows, across: SplitPairs, items: tuple[DuplicateItem, ...], pixels: _PixelScores | None
) -> tuple[CrossSplitPair, ...]:
    """Return the most similar pairs across splits with what is known of their items; those of the best pixels first."""
    known = {i.item: i for i in items}

    def content(item: int) -> int:
        return int(matching.content[np.searchsorted(matching.items, item)])

    pairs = [
        CrossSplitPair(
            (a := known[one]).group, cosine, one, a.uri, a.label, clean_split(a.split) or "",
            other, (b := known[other]).uri, b.label, clean_split(b.split) or "",
            pixels.of_pair(content(one), content(other)) if pixels else None,
        )
        for one, other, cosine in across.item_pairs()
    ]  # fmt: skip
    return tuple(sorted(pairs, key=lambda pair: -(pair.pixels or 0)))

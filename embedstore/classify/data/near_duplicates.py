"""Near-duplicates: other bytes, the same picture. They inflate a classifier's scores and its confidence.

They are found once, by one join of the rows with themselves, and joined into the groups of the rows. So they stay
together wherever rows are split: in a split that is drawn, in every fold, and among the rows that stop, tune or
calibrate. A split that the items bring along is not changed: near-duplicates across it are reported, and left out of
training on request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.class_examples import groups_per_class
from embedstore.classify.data.copy_groups import DisjointSets, group_copies
from embedstore.classify.data.copy_threshold import (
    EXPECTED_FALSE_PAIRS,
    ONLY_EQUAL,
    choose_copy_threshold,
    equal_row_pairs,
)
from embedstore.classify.data.features import Features
from embedstore.classify.data.self_join import is_exact, nearest_pairs
from embedstore.errors import LabelError, did_you_mean

MAX_LISTED_PAIRS = 1000  # the most similar pairs are listed by item
_NEIGHBORS = 32  # nearest rows of each row that are looked at; more copies are joined through each other


class NearDuplicatePolicy(StrEnum):
    """What is done with near-duplicates."""

    GROUP = "group"  # keep them together in every split that is drawn; report them across a given split
    IGNORE = "ignore"  # do not search for them
    DROP = "drop"  # as group, and leave near-duplicates of held-out items out of training


@dataclass(frozen=True, slots=True)
class NearDuplicatePair:
    """Two items that look alike, and their cosine."""

    item: int
    other_item: int
    cosine: float


@dataclass(frozen=True)
class NearDuplicates:
    """The near-duplicates among labeled items.

    Attributes:
        thresholds: cosine from which a pair counts, by name of the space; 1 where its vectors cannot tell copies from
            items that look alike, and only equal vectors count.
        expected_false_pairs: pairs of different pictures that are expected among the pairs, from the distances of all
            rows; None where the threshold was given.
        items: int64 ``(P, 2)``, the items of each pair, the most similar first.
        cosine: float32 ``(P,)``.
        n_groups: groups of near-duplicates.
        n_grouped: items in them.
        n_across_labels: pairs with different labels: wrong labels, or pairs of different pictures.
        separated_classes: classes of nothing but near-duplicates; they are not joined, so that they can be split.
        exact: whether every item was compared with every other, or only within k-means cells.
    """

    thresholds: dict[str, float]
    expected_false_pairs: float | None
    items: NDArray[np.int64]
    cosine: NDArray[np.float32]
    n_groups: int
    n_grouped: int
    n_across_labels: int
    separated_classes: tuple[str, ...] = ()
    exact: bool = True

    @property
    def threshold(self) -> float:
        """Return the lowest threshold of the spaces."""
        return min(self.thresholds.values())

    @property
    def pairs(self) -> list[NearDuplicatePair]:
        """Return the most similar pairs, at most 1,000."""
        rows = zip(self.items[:MAX_LISTED_PAIRS].tolist(), self.cosine.tolist(), strict=False)
        return [NearDuplicatePair(a, b, cosine) for (a, b), cosine in rows]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "thresholds": {name: round(t, 6) for name, t in self.thresholds.items()},
            "expected_false_pairs": self.expected_false_pairs,
            "pairs": len(self.cosine),
            "groups": self.n_groups,
            "items": self.n_grouped,
            "pairs_with_different_labels": self.n_across_labels,
            "separated_classes": list(self.separated_classes),
            "exact": self.exact,
            "most_similar": [[p.item, p.other_item, round(p.cosine, 6)] for p in self.pairs],
        }


@dataclass(frozen=True)
class NearDuplicateOptions:
    """How near-duplicates are found, and what is done with them.

    Attributes:
        policy: one of :class:`NearDuplicatePolicy`.
        threshold: cosine in [0, 1] from which two rows count as near-duplicates; None chooses it from the vectors of
            each space; 0 is ``ignore``.
    """

    policy: str = NearDuplicatePolicy.GROUP.value
    threshold: float | None = None

    def __post_init__(self) -> None:
        policies = [p.value for p in NearDuplicatePolicy]
        if self.policy not in policies:
            raise LabelError(
                f"near_duplicates must be {', '.join(policies[:-1])} or {policies[-1]}, not {self.policy!r}"
                f"{did_you_mean(str(self.policy), policies)}"
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise LabelError(f"near_duplicate_threshold must be a cosine in [0, 1], not {self.threshold:g}")

    @property
    def drops(self) -> bool:
        """Return whether near-duplicates of held-out rows are left out of training."""
        return self.policy == NearDuplicatePolicy.DROP

    def join(self, data: Features) -> Features:
        """Return the rows with near-duplicates joined into their groups, unless they are ignored."""
        return self.join_shared([data])[0]

    def join_shared(self, spaces: Sequence[Features]) -> list[Features]:
        """Return the rows of several spaces with the near-duplicates of all of them joined, unless they are ignored.

        Args:
            spaces: the same items in every space.
        """
        if self.policy == NearDuplicatePolicy.IGNORE or (self.threshold == 0 and not self.drops):
            return list(spaces)
        return join_shared_near_duplicates(spaces, self.threshold or None)


def join_shared_near_duplicates(spaces: Sequence[Features], threshold: float | None = None) -> list[Features]:
    """Return the rows of several spaces with the same groups: near-duplicates in any space are joined in all of them.

    Args:
        spaces: the same items in every space.
        threshold: cosine from which a pair counts; None chooses it for every space.
    """
    if all(data.near_duplicates is not None for data in spaces):
        return list(spaces)
    first = spaces[0]
    joins = [_join(data, threshold) for data in spaces]
    groups = _merge_groups([first.groups, *(join.group for join in joins)])
    separated = _classes_of_one_group(first, groups)
    if separated:
        apart = np.isin(first.y.astype(str), separated)
        groups = _merge_groups([first.groups, *(np.where(apart, -1, join.group) for join in joins)])
    result = _result(first, joins, groups, separated, given=threshold is not None)
    return [replace(data, groups=groups, exact_groups=first.groups, near_duplicates=result) for data in spaces]


@dataclass(frozen=True)
class _Join:
    """Pairs of rows ``a`` and ``b`` of one space, and the group of each row that has a copy, else -1."""

    space: str
    threshold: float
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    cosine: NDArray[np.float32]
    group: NDArray[np.int64]
    exact: bool


def _join(data: Features, threshold: float | None) -> _Join:
    """Find the pairs of one space."""
    chosen = choose_copy_threshold(data.X, classes=_classes(data)) if threshold is None else threshold
    if threshold is None and chosen == ONLY_EQUAL:
        return _join_equal(data)
    pairs = nearest_pairs(data.X, _NEIGHBORS, min_cosine=chosen)
    group = group_copies(data.X, pairs, chosen)
    group[np.bincount(group, minlength=len(group))[group] < 2] = -1
    return _Join(data.space, chosen, pairs.a, pairs.b, pairs.cosine, group, is_exact(*data.X.shape))


def _join_equal(data: Features) -> _Join:
    """Find the rows of equal numbers of one space, whose rows cannot tell copies from what looks alike."""
    a, b = equal_row_pairs([data.X])
    group = np.full(len(data), -1, np.int64)
    group[a], group[b] = a, a
    return _Join(data.space, ONLY_EQUAL, a, b, np.ones(len(a), np.float32), group, exact=True)


def _classes(data: Features) -> NDArray[np.int64]:
    """Return the class of each row, int64 ``(N,)``: its set of labels; rows with numbers are of one class."""
    if data.is_numeric:
        return np.zeros(len(data), np.int64)
    codes: dict[Any, int] = {}
    return np.array([codes.setdefault(label, len(codes)) for label in data.y.tolist()], dtype=np.int64)


def _merge_groups(labelings: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return groups of rows that are together in any labeling, int64 ``(N,)``; -1 joins nothing.

    A merged group has the lowest number that its rows have in the first labeling.
    """
    first = labelings[0]
    names, code = np.unique(first, return_inverse=True)
    sets = DisjointSets(len(names))
    for labeling in labelings[1:]:
        rows = np.flatnonzero(labeling >= 0)
        rows = rows[np.argsort(labeling[rows], kind="stable")]
        same = labeling[rows[1:]] == labeling[rows[:-1]]
        for a, b in zip(code[rows[:-1][same]].tolist(), code[rows[1:][same]].tolist(), strict=True):
            sets.join(a, b)
    return np.asarray(names[sets.roots()][code], dtype=np.int64)


def _classes_of_one_group(data: Features, groups: NDArray[np.int64]) -> list[str]:
    """Return the classes that could be split before the near-duplicates were joined and cannot be split now."""
    if data.multilabel or data.is_numeric:
        return []
    names, before = groups_per_class(data.y, data.groups)
    _, after = groups_per_class(data.y, groups)
    return [str(name) for name in names[(before > 1) & (after < 2)].tolist()]


def _result(
    data: Features, joins: Sequence[_Join], groups: NDArray[np.int64], separated: list[str], *, given: bool
) -> NearDuplicates:
    a, b, cosine = (np.concatenate([getattr(j, name) for j in joins]) for name in ("a", "b", "cosine"))
    order = np.argsort(-cosine, kind="stable")
    order = order[np.sort(np.unique((a * len(data) + b)[order], return_index=True)[1])]
    a, b, cosine = a[order], b[order], cosine[order]
    changed = groups_with_near_duplicates(data.groups, groups)
    return NearDuplicates(
        thresholds={j.space: j.threshold for j in joins},
        expected_false_pairs=None if given else EXPECTED_FALSE_PAIRS * sum(j.threshold < ONLY_EQUAL for j in joins),
        items=np.stack([data.ids[a], data.ids[b]], axis=1),
        cosine=cosine,
        n_groups=len(np.unique(groups[changed])),
        n_grouped=int(changed.sum()),
        n_across_labels=sum(x != y for x, y in zip(data.y[a].tolist(), data.y[b].tolist(), strict=True)),
        separated_classes=tuple(separated),
        exact=all(j.exact for j in joins),
    )


def groups_with_near_duplicates(exact: NDArray[np.int64], joined: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows are in a group that near-duplicates enlarged, bool ``(N,)``.

    Args:
        exact: int64 ``(N,)``, groups of equal content or of a declared group.
        joined: int64 ``(N,)``, the same with near-duplicates joined.
    """
    names, code = np.unique(joined, return_inverse=True)
    pairs = np.unique(np.stack([code, np.unique(exact, return_inverse=True)[1]], axis=1), axis=0)
    parts = np.bincount(pairs[:, 0], minlength=len(names))
    return np.asarray(parts[code] > 1)

"""Which rows train a classifier and which evaluate it. Rows of one group are never on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.arrival import Sides, sides_by_arrival
from embedstore.classify.data.class_examples import check_two_classes, max_folds, single_examples
from embedstore.classify.data.features import Features
from embedstore.classify.data.folds import numeric_group_folds, stratified_group_folds
from embedstore.classify.data.hash_holdout import hash_holdout_mask, hash_keys, in_hash_fifth
from embedstore.classify.data.iterative_stratification import iterative_parts
from embedstore.classify.data.label_text import MAX_LISTED_NAMES, unknown_splits
from embedstore.classify.data.labels import label_indicators
from embedstore.errors import LabelError
from embedstore.text_form import split_words
from embedstore.types import Split
from embedstore.wording import counted

HASH_SPLIT = "hash"  # the name of the split of items that have none of their own
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class TrainTestSplit:
    """Disjoint sets of rows.

    Attributes:
        train: int64, the training rows, ascending.
        held_out: int64, the rows that evaluate, ascending.
        name: the held-out side: ``test`` or ``val`` of the items' own split, ``hash``, or ``fold 1`` and so on.
        n_leaks: training rows left out because their content or group is also held out.
        calibration: int64, rows on neither side (``val`` if ``test`` is held out) that share no group with either: they
            may choose a threshold or a temperature.
        leaks: int64, the training rows that were left out, ascending.
        n_joined: held-out rows of groups that were joined from both sides of the hashed split.
        n_swapped: rows that are not on the side of their hash, because a class needs rows on both sides.
        n_shared_validation: ``val`` rows on no side, because they share a group with a training or a held-out row.
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    name: str
    n_leaks: int
    calibration: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    leaks: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    n_joined: int = 0
    n_swapped: int = 0
    n_shared_validation: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a person should know about the side of some rows, one sentence each."""
        out = []
        if self.n_joined:
            one, several = "held-out item is in a group that joins", "held-out items are in groups that join"
            out.append(
                f"{counted(self.n_joined, one, several)} both sides of the split, such as a copy of two pictures; no "
                "item of such a group trains"
            )
        if self.n_swapped:
            one, several = "item is not on the side of its hash", "items are not on the side of their hash"
            out.append(
                f"{counted(self.n_swapped, one, several)}, because a small class needs both sides; this can change "
                "when the store grows: a `split` column keeps the sides"
            )
        if n := self.n_shared_validation:
            shares = counted(n, "item of the split val shares", "items of the split val share")
            left_out = "was left out" if n == 1 else "were left out"
            out.append(f"{shares} a picture or a group with training or held-out items and {left_out}")
        return tuple(out)

    def count_without_split(self, data: Features) -> int:
        """Return the training rows that have no split of their own, where the held-out rows have one."""
        if self.name not in [s.value for s in Split]:
            return 0
        return sum(s is None for s in data.splits[self.train].tolist())


def evaluation_splits(data: Features, *, n_folds: int = 0, seed: int = 0) -> list[TrainTestSplit]:
    """Return the splits that evaluate a head: one per fold, or the single train-test split.

    Args:
        data: labeled rows.
        n_folds: number of cross-validation folds; 0 takes the train-test split.
        seed: random seed of the hashed split or of the folds.

    Raises:
        LabelError: if the labels do not support the split.
    """
    if n_folds and data.multilabel:
        return multilabel_folds(data, n_folds, seed=seed)
    if n_folds and data.numbers is not None:
        return numeric_folds(data.numbers, data.groups, n_folds, seed=seed)
    if n_folds:
        return cross_validation_splits(data.y, data.groups, n_folds, seed=seed)
    return [train_test_split(data, seed=seed)]


def train_test_split(data: Features, *, seed: int = 0) -> TrainTestSplit:
    """Split the rows by their own split column, or hold out the groups whose hash is in the lowest fifth.

    Args:
        data: labeled rows; those with one label or several have every label on both sides, those with a number do not.
        seed: random seed of the hashed split.

    Raises:
        LabelError: if the labels do not support the split.
    """
    if not data.is_numeric:
        check_two_classes(data.y)
    if name := held_out_split(data.splits):
        exact = data.groups if data.exact_groups is None else data.exact_groups
        split = _given_split(name, data.splits, data.groups, exact)
    else:
        if not data.multilabel and not data.is_numeric:
            max_folds(data.y, data.groups)  # refuses labels of which fewer than two classes can be on both sides
        split = _hash_split(data, seed)
    if data.is_numeric:
        _check_not_empty(len(split.train), len(split.held_out), split.name)
    else:
        _check_sides(data.y[split.train], len(split.held_out), split.name)
    return split


def _hash_split(data: Features, seed: int) -> TrainTestSplit:
    """Hold out the groups whose hash is in the lowest fifth, as far as the classes allow it."""
    sides = hash_sides(data, seed=seed)
    held_out = hash_holdout_mask(data.y if not data.is_numeric else None, data.groups, sides.held_out, seed=seed)
    return TrainTestSplit(
        np.flatnonzero(~held_out),
        np.flatnonzero(held_out),
        HASH_SPLIT,
        0,
        n_joined=int((sides.joined & held_out).sum()),
        n_swapped=int((sides.held_out != held_out).sum()),
    )


def hash_sides(data: Features, *, seed: int = 0) -> Sides:
    """Return the side of each row by its hash, and by what it is linked to; a group is on one side.

    Args:
        data: labeled rows, numbered in the order in which they came.
        seed: random seed.
    """
    units = data.units
    if units is None:
        units = data.groups if data.exact_groups is None else data.exact_groups
    order = np.argsort(data.ids, kind="stable")
    links = _row_pairs(data, order)
    own = in_hash_fifth(hash_keys(units, seed=seed))
    held_out, joined = (np.empty(len(data), bool) for _ in range(2))
    held_out[order], joined[order] = sides_by_arrival(units[order], links, own[order])
    together = np.isin(data.groups, data.groups[held_out])  # a group whose links are not known is on one side, too
    return Sides(together, joined | (together & ~held_out))


def _row_pairs(data: Features, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the linked rows and the near-duplicates of one group as places in an order of the rows, ``(L, 2)``."""
    near = data.near_duplicates
    pairs = data.links if near is None else np.concatenate([data.links, near.items])
    ids = data.ids[order]
    pairs = pairs[np.isin(pairs, ids).all(axis=1)]
    places = np.searchsorted(ids, pairs)
    groups = data.groups[order][places]
    return np.asarray(places[groups[:, 0] == groups[:, 1]], dtype=np.int64)


def split_rows(
    y: NDArray[np.object_],
    groups: NDArray[np.int64],
    splits: NDArray[np.object_],
    *,
    exact_groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> TrainTestSplit:
    """Split by the items' own split if they have one, else by the hash of their groups.

    Args:
        y: labels ``(N,)``.
        groups: int64 ``(N,)``; a group stays on one side.
        splits: the items' own split ``(N,)``; None without one.
        exact_groups: int64 ``(N,)``, the groups without near-duplicates; by default ``groups``. Only these are left
            out of training where the items' own split cuts them.
        seed: random seed of the hash; the items' own split does not depend on it.

    Returns:
        The split. Rows of the held-out side's exact groups never train. The ``test`` rows are held out if there are
        any, else the ``val`` rows; with ``test``, the ``val`` rows are on neither side.

    Raises:
        LabelError: if a word does not name a split, one side is empty, the training side has fewer than two classes, or
            (without a split of their own) fewer than two classes are in two groups.
    """
    check_two_classes(y)
    if name := held_out_split(splits):
        split = _given_split(name, splits, groups, groups if exact_groups is None else exact_groups)
    else:
        max_folds(y, groups)  # refuses labels of which fewer than two classes can be on both sides
        held_out = hash_holdout_mask(y, groups, seed=seed)
        split = TrainTestSplit(np.flatnonzero(~held_out), np.flatnonzero(held_out), HASH_SPLIT, 0)
    _check_sides(y[split.train], len(split.held_out), split.name)
    return split


def _given_split(
    name: str, splits: NDArray[np.object_], groups: NDArray[np.int64], exact: NDArray[np.int64]
) -> TrainTestSplit:
    """Split by the items' own split; training rows of a held-out exact group are left out."""
    held_out = splits == name
    train = np.array([s in (None, Split.TRAIN) for s in splits.tolist()], dtype=bool)
    val = (splits == Split.VAL) & ~held_out
    leaks = train & np.isin(exact, exact[held_out])
    train &= ~leaks
    calibration = val & ~np.isin(groups, groups[held_out | train])
    rows = [np.flatnonzero(mask) for mask in (train, held_out, calibration, leaks)]
    n_shared = int(val.sum()) - len(rows[2])
    return TrainTestSplit(rows[0], rows[1], name, len(rows[3]), rows[2], rows[3], n_shared_validation=n_shared)


def held_out_split(splits: NDArray[np.object_]) -> str | None:
    """Return the split that evaluates: ``test`` if there is any, else ``val``, else None.

    Raises:
        LabelError: if a word does not name a split: its items would train or evaluate without anybody knowing.
    """
    names = set(splits.tolist())
    if unknown := unknown_splits(names):
        listed = ", ".join(map(repr, unknown[:MAX_LISTED_NAMES]))
        raise LabelError(
            f"the items have the split {listed}, which is not understood; use {split_words()}: `embedstore edit STORE "
            f'--set "split=\'test\'" --where "split={_sql_text(unknown[0])}"`, or use --folds 5 of `probe` instead'
        )
    return next((s.value for s in (Split.TEST, Split.VAL) if s in names), None)


def _sql_text(word: str) -> str:
    """Return a word as SQL text."""
    return "'" + word.replace("'", "''") + "'"


def cross_validation_splits(
    y: NDArray[np.object_], groups: NDArray[np.int64], n_folds: int, *, seed: int = 0
) -> list[TrainTestSplit]:
    """Return stratified folds over all rows; a group is never cut, and every row is held out once.

    A class of one group cannot be on both sides: it trains and is never held out.

    Args:
        y: labels ``(N,)``; tuples of labels are not stratified.
        groups: int64 ``(N,)``.
        n_folds: at least 2.
        seed: random seed of the folds.

    Raises:
        LabelError: if there are fewer than two folds, or a class is in fewer groups than folds, but not in one.
    """
    if n_folds < 2:
        raise LabelError(f"cross-validation needs at least 2 folds, not {n_folds}")
    if any(isinstance(v, tuple) for v in y.tolist()):
        n_groups = len(np.unique(groups))
        if n_groups < n_folds:
            raise LabelError(f"{n_groups} groups of items cannot be cut into {n_folds} folds; give a smaller --folds")
        return _splits_of_folds(stratified_group_folds(np.zeros(len(y), np.int64), groups, n_folds, seed=seed), n_folds)
    check_two_classes(y)
    most = max_folds(y, groups, limit=n_folds)
    if most < n_folds:
        raise LabelError(f"the smallest class has {most} separate items; `--folds {most}` at most, or label more")
    codes = np.unique(y.astype(str), return_inverse=True)[1]
    part = stratified_group_folds(codes, groups, n_folds, seed=seed)
    return _splits_of_folds(part, n_folds, np.isin(y.astype(str), single_examples(y, groups)), groups)


def _splits_of_folds(
    part: NDArray[np.integer[Any]],
    n_folds: int,
    single: NDArray[np.bool_] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> list[TrainTestSplit]:
    """Return the split of each fold.

    Args:
        part: int ``(N,)``, the fold of each row.
        n_folds: the number of folds.
        single: bool ``(N,)``, rows that are not held out; they train in every fold that does not hold out their group.
        groups: int64 ``(N,)``, where there are such rows.
    """
    held_out = train = part
    if single is not None and groups is not None:
        held_out = np.where(single, -1, part)
        train = np.where(single & ~np.isin(groups, groups[~single]), -1, part)
    return [
        TrainTestSplit(np.flatnonzero(train != i), np.flatnonzero(held_out == i), f"fold {i + 1}", 0)
        for i in range(n_folds)
    ]


def multilabel_folds(data: Features, n_folds: int, *, seed: int = 0) -> list[TrainTestSplit]:
    """Return folds with about equal shares of every label and of pairs of labels; a group is never cut.

    Args:
        data: rows with several labels.
        n_folds: at least 2.
        seed: random seed of the order in which groups are given out.

    Raises:
        LabelError: if all items have the same labels, or there are fewer than two folds, or fewer groups than folds.
    """
    check_two_classes(data.y)
    _check_group_folds(data.groups, n_folds)
    order = np.random.default_rng(seed).permutation(len(data))
    shares = np.full(n_folds, 1 / n_folds)
    part = iterative_parts(_indicators(data), data.groups, shares, order=order)
    return _splits_of_folds(part, n_folds)


def _indicators(data: Features) -> NDArray[np.bool_]:
    """Return which labels each row has, bool ``(N, K)``."""
    return label_indicators(data.y, sorted({label for row in data.y.tolist() for label in row}))


def _check_group_folds(groups: NDArray[np.int64], n_folds: int) -> None:
    """Refuse fewer than two folds, or fewer groups than folds."""
    if n_folds < 2:
        raise LabelError(f"cross-validation needs at least 2 folds, not {n_folds}")
    n_groups = len(np.unique(groups))
    if n_groups < n_folds:
        raise LabelError(f"{n_groups} groups of items cannot be cut into {n_folds} folds; give a smaller --folds")


def numeric_folds(
    numbers: NDArray[np.float64], groups: NDArray[np.int64], n_folds: int, *, seed: int = 0
) -> list[TrainTestSplit]:
    """Return folds with about equal shares of low, middle and high numbers; a group is never cut.

    Args:
        numbers: float64 ``(N,)``, the labels.
        groups: int64 ``(N,)``.
        n_folds: at least 2.
        seed: random seed of the folds.

    Raises:
        LabelError: if there are fewer than two folds, or fewer groups than folds.
    """
    _check_group_folds(groups, n_folds)
    return _splits_of_folds(numeric_group_folds(numbers, groups, n_folds, seed=seed), n_folds)


def _check_not_empty(n_train: int, n_held_out: int, name: str) -> None:
    """Refuse a side without rows."""
    if not n_held_out or not n_train:
        side = f"split {name!r} has" if not n_held_out else "training has"
        raise LabelError(
            f"{side} no labeled rows; label some, give the items a `split` column of train and val, or use "
            "--folds 5 of `probe`, which needs no split"
        )


def _check_sides(y: NDArray[np.object_], n_held_out: int, name: str) -> None:
    """Refuse a split that cannot train or evaluate a classifier."""
    _check_not_empty(len(y), n_held_out, name)
    classes = sorted({", ".join(v) if isinstance(v, tuple) else str(v) for v in y.tolist()})
    if len(classes) < 2:
        what = "the same labels for all items" if isinstance(y[0], tuple) else "one class only"
        raise LabelError(
            f"training has {what} ({classes[0]!r}); a classifier needs at least two: label more of the "
            "training items, or use --folds 5 of `probe`, which needs no split"
        )

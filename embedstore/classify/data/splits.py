"""Which rows train a classifier and which evaluate it. Rows of one group are never on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.data.folds import numeric_group_folds, stratified_group_folds
from embedstore.classify.data.iterative_stratification import iterative_parts
from embedstore.classify.data.label_text import MAX_LISTED_NAMES, unknown_splits
from embedstore.classify.data.labels import label_indicators
from embedstore.errors import LabelError
from embedstore.text_form import split_words
from embedstore.types import Split

SINGLE_EXAMPLE_CURE = "label more, or leave out what has too few with --where"
HELD_OUT_FRACTION = 0.2  # of each class, if the items have no split of their own
HASH_SPLIT = "hash"  # the name of that split
DEFAULT_FOLDS = 5
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
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    name: str
    n_leaks: int
    calibration: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    leaks: NDArray[np.int64] = field(default_factory=lambda: _NONE)


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
    """Split the rows by their own split column, or hold out a deterministic fifth of every class.

    Args:
        data: labeled rows; those with several labels are stratified by every label, those with a number are not.
        seed: random seed of the hashed split.

    Raises:
        LabelError: if the labels do not support the split.
    """
    y = data.y
    name = held_out_split(data.splits)
    if data.multilabel and name is None:
        return _multilabel_holdout(data, seed)
    if data.multilabel or data.is_numeric:
        y = np.where(np.arange(len(data)) % 2, "a", "b").astype(object)  # placeholder classes: nothing is stratified
    return split_rows(y, data.groups, data.splits, exact_groups=data.exact_groups, seed=seed)


def split_rows(
    y: NDArray[np.object_],
    groups: NDArray[np.int64],
    splits: NDArray[np.object_],
    *,
    exact_groups: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> TrainTestSplit:
    """Split by the items' own split if they have one, else hold out a deterministic fifth of every class.

    Args:
        y: labels ``(N,)``.
        groups: int64 ``(N,)``; a group stays on one side.
        splits: the items' own split ``(N,)``; None without one.
        exact_groups: int64 ``(N,)``, the groups without near-duplicates; by default ``groups``. Only these are left
            out of training where the items' own split cuts them.
        seed: random seed of the fifth; the items' own split does not depend on it.

    Returns:
        The split. Rows of the held-out side's exact groups never train. The ``test`` rows are held out if there are
        any, else the ``val`` rows; with ``test``, the ``val`` rows are on neither side.

    Raises:
        LabelError: if a word does not name a split, one side is empty, the training side has fewer than two classes, or
            (without a split of their own) a class has one example only.
    """
    name = held_out_split(splits) or HASH_SPLIT
    calibration = np.zeros(len(y), dtype=bool)
    if name == HASH_SPLIT:
        max_folds(y, groups)  # refuses a class of one example
        held_out = hash_holdout_mask(y, groups, seed=seed)
        train = ~held_out
    else:
        held_out = splits == name
        train = np.array([s in (None, Split.TRAIN) for s in splits.tolist()], dtype=bool)
        calibration = (splits == Split.VAL) & ~held_out
    exact = groups if exact_groups is None else exact_groups
    leaks = train & np.isin(exact, exact[held_out])
    train &= ~leaks
    calibration &= ~np.isin(groups, groups[held_out | train])
    _check_sides(y[train], int(held_out.sum()), name)
    rows = [np.flatnonzero(mask) for mask in (train, held_out, calibration, leaks)]
    return TrainTestSplit(rows[0], rows[1], name, len(rows[3]), rows[2], rows[3])


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
            f'--set "split=\'test\'" --where "split={_sql_text(unknown[0])}"`, or use --folds 5 instead'
        )
    return next((s.value for s in (Split.TEST, Split.VAL) if s in names), None)


def _sql_text(word: str) -> str:
    """Return a word as SQL text."""
    return "'" + word.replace("'", "''") + "'"


def cross_validation_splits(
    y: NDArray[np.object_], groups: NDArray[np.int64], n_folds: int, *, seed: int = 0
) -> list[TrainTestSplit]:
    """Return stratified folds over all rows; a group is never cut, and every row is held out once.

    Args:
        y: labels ``(N,)``; tuples of labels are not stratified.
        groups: int64 ``(N,)``.
        n_folds: at least 2.
        seed: random seed of the folds.

    Raises:
        LabelError: if there are fewer than two folds, or a class is in fewer groups than folds.
    """
    if n_folds < 2:
        raise LabelError(f"cross-validation needs at least 2 folds, not {n_folds}")
    if any(isinstance(v, tuple) for v in y.tolist()):
        n_groups = len(np.unique(groups))
        if n_groups < n_folds:
            raise LabelError(f"{n_groups} groups of items cannot be cut into {n_folds} folds; give a smaller --folds")
        codes = np.zeros(len(y), np.int64)
    else:
        codes = np.unique(y.astype(str), return_inverse=True)[1]
        if len(np.unique(codes)) < 2:
            raise LabelError(f"the labels hold one class only ({y[0]!r}); a classifier needs at least two")
        most = max_folds(y, groups, limit=n_folds)
        if most < n_folds:
            raise LabelError(f"the smallest class has {most} separate items; `--folds {most}` at most, or label more")
    return _splits_of_folds(stratified_group_folds(codes, groups, n_folds, seed=seed), n_folds)


def _splits_of_folds(part: NDArray[np.integer[Any]], n_folds: int) -> list[TrainTestSplit]:
    """Return the split of each fold from the fold of each row, int ``(N,)``."""
    return [
        TrainTestSplit(np.flatnonzero(part != i), np.flatnonzero(part == i), f"fold {i + 1}", 0) for i in range(n_folds)
    ]


def multilabel_folds(data: Features, n_folds: int, *, seed: int = 0) -> list[TrainTestSplit]:
    """Return folds with about equal shares of every label and of pairs of labels; a group is never cut.

    Args:
        data: rows with several labels.
        n_folds: at least 2.
        seed: random seed of the order in which groups are given out.

    Raises:
        LabelError: if there are fewer than two folds, or fewer groups than folds.
    """
    _check_group_folds(data.groups, n_folds)
    order = np.random.default_rng(seed).permutation(len(data))
    shares = np.full(n_folds, 1 / n_folds)
    part = iterative_parts(_indicators(data), data.groups, shares, order=order)
    return _splits_of_folds(part, n_folds)


def _multilabel_holdout(data: Features, seed: int) -> TrainTestSplit:
    """Hold out a fifth of every label, group by group in the order of the groups' hashes."""
    order = np.argsort(np.argsort(_shuffle_keys(data.groups, seed), kind="stable"), kind="stable")
    shares = np.array([1 - HELD_OUT_FRACTION, HELD_OUT_FRACTION])
    part = iterative_parts(_indicators(data), data.groups, shares, order=order)
    train, held_out = np.flatnonzero(part == 0), np.flatnonzero(part == 1)
    if not len(train) or not len(held_out):
        raise LabelError("training or the held-out side has no labeled rows; label items of other groups")
    return TrainTestSplit(train, held_out, HASH_SPLIT, 0)


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


def hash_holdout_mask(y: NDArray[np.object_], groups: NDArray[np.int64], *, seed: int = 0) -> NDArray[np.bool_]:
    """Return a fifth of every class, bool ``(N,)``, group by group in the order of the groups' hashes.

    A group that is larger than what is left of the fifth is skipped, and at most a fifth of the groups is held out.

    Args:
        y: labels ``(N,)``.
        groups: int64 ``(N,)``.
        seed: random seed of the order; equal arguments give the same rows.
    """
    keys = _shuffle_keys(groups, seed)
    held_out = np.zeros(len(y), dtype=bool)
    codes = np.unique([str(v) for v in y.tolist()] if len(y) else [], return_inverse=True)[1]
    for code in np.unique(codes):
        members = codes == code
        names, sizes = np.unique(keys[members], return_counts=True)
        if len(names) > 1:
            held_out |= np.isin(keys, names[_fifth_of_groups(sizes)])
    return held_out


def _fifth_of_groups(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of groups with about a fifth of the rows: in order, those that fit; at least the smallest."""
    n_left, rows_left = max(1, int(HELD_OUT_FRACTION * len(sizes))), HELD_OUT_FRACTION * sizes.sum()
    chosen: list[int] = []
    for place, size in enumerate(sizes.tolist()):
        if size <= rows_left:
            chosen.append(place)
            rows_left -= size
        if len(chosen) == n_left:
            break
    return np.array(chosen or [int(sizes.argmin())], dtype=np.int64)


def _shuffle_keys(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return other numbers for the groups, one to one; the groups themselves for seed 0."""
    if seed == 0:
        return groups
    bits = groups.astype(np.uint64) ^ np.uint64((seed * 0x9E3779B97F4A7C15) % 2**64)
    with np.errstate(over="ignore"):  # the finalizer of SplitMix64 (Steele et al. 2014): a bijection of 64 bits
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (bits ^ (bits >> np.uint64(31))).view(np.int64)


def _check_sides(y: NDArray[np.object_], n_held_out: int, name: str) -> None:
    """Refuse a split that cannot train or evaluate."""
    classes = sorted({str(v) for v in y.tolist()})
    if not n_held_out or not len(y):
        side = f"split {name!r} has" if not n_held_out else "training has"
        raise LabelError(
            f"{side} no labeled rows; label some, give the items a `split` column of train and val, or use --folds 5, "
            "which needs no split"
        )
    if len(classes) < 2:
        raise LabelError(
            f"training has one class only ({classes[0]!r}); a classifier needs at least two: label more of the "
            "training items, or use --folds 5, which needs no split"
        )


def max_folds(
    y: NDArray[np.object_],
    groups: NDArray[np.int64],
    *,
    limit: int = DEFAULT_FOLDS,
    side: str = "",
    cure: str = SINGLE_EXAMPLE_CURE,
) -> int:
    """Return how many cross-validation folds the smallest class can fill.

    Args:
        y: labels ``(N,)``.
        groups: int64 ``(N,)``.
        limit: the most folds.
        side: where the rows are from, for the message.
        cure: what to do about a class of one example, for the message.

    Raises:
        LabelError: if a class is in one group only (one example): it cannot be on both sides.
    """
    names, counts = groups_per_class(y, groups)
    single = [str(name) for name in names[counts < 2].tolist()]
    if single:
        sizes = dict(zip(*np.unique(y.astype(str), return_counts=True), strict=True))
        counted = [f"{label!r}: {sizes[label]} items" if sizes[label] > 1 else repr(label) for label in single[:5]]
        listed = ", ".join(counted)
        raise LabelError(
            f"{len(single)} class{'es have' if len(single) > 1 else ' has'} one example only{side} ({listed}), copies "
            f"and groups counted once; {cure}"
        )
    return int(min(limit, counts.min()))


def groups_per_class(y: NDArray[np.object_], groups: NDArray[np.int64]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the classes, sorted, and the number of groups of each, int64 ``(K,)``."""
    names, codes = np.unique(y.astype(str), return_inverse=True)
    order = np.lexsort((groups, codes))
    is_first = np.diff(codes[order], prepend=-1) != 0
    is_first[1:] |= np.diff(groups[order]) != 0
    return names, np.bincount(codes[order][is_first], minlength=len(names))


def smaller_side(labels: NDArray[np.bool_], groups: NDArray[np.int64]) -> int:
    """Return the number of groups on the smaller side of a yes-or-no label; below 2 it cannot be cross-validated."""
    return min(len(np.unique(groups[labels == side])) for side in (True, False))

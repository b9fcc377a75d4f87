"""Which rows a classifier learns from and which judge it. Nothing that belongs together stands on both sides."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.data.folds import stratified_group_folds
from embedstore.errors import LabelError
from embedstore.types import Split

HELD_OUT_FRACTION = 0.2  # of each class, where the items have no split of their own
HASH_SPLIT = "hash"  # the name of such a split
DEFAULT_FOLDS = 5
_NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class TrainTestSplit:
    """Two disjoint sets of rows.

    Attributes:
        train, held: rows, ascending.
        name: of the held-out side: ``test`` or ``val`` of the items' own split, ``hash``, or ``fold 1`` ….
        leaks: training rows left out because their content or group is also held out.
        spare: rows that neither learn nor judge (``val`` where ``test`` judges) and share nothing with the
            held-out side: good for choosing a threshold or a temperature.
    """

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    name: str
    n_leaks: int
    calibration: NDArray[np.int64] = field(default_factory=lambda: _NONE)


def evaluation_splits(data: Features, *, n_folds: int = 0, seed: int = 0) -> list[TrainTestSplit]:
    """Return the splits that evaluate a head: one per fold, or the single train-test split.

    Args:
        data: labeled rows.
        n_folds: number of cross-validation folds; 0 takes the train-test split.
        seed: of the hashed split or of the folds.

    Raises:
        LabelError: when the labels do not support the split.
    """
    if n_folds:
        return cross_validation_splits(data.y, data.groups, n_folds, seed=seed)
    return [train_test_split(data, seed=seed)]


def train_test_split(data: Features, *, seed: int = 0) -> TrainTestSplit:
    """Split the rows by their own split column, or hold out a deterministic fifth of every class.

    Args:
        data: labeled rows; multilabel rows are not stratified.
        seed: of the hashed split.

    Raises:
        LabelError: when the labels do not support the split.
    """
    y = data.y
    if data.multilabel:
        y = np.where(np.arange(len(data)) % 2, "a", "b").astype(object)  # placeholder classes: nothing is stratified
    return split_rows(y, data.groups, data.splits, seed=seed)


def split_rows(
    y: NDArray[np.object_], groups: NDArray[np.int64], splits: NDArray[np.object_], *, seed: int = 0
) -> TrainTestSplit:
    """The items' own split where they have one, else a deterministic fifth of every class.

    Args:
        y: labels ``(N,)``. groups: int64 ``(N,)``, equal where rows must not be parted. splits: ``(N,)`` or None each.
        seed: another one gives another fifth; the items' own split stays what it is.

    Returns:
        The division; rows of the held-out side's groups never train. The ``test`` rows are held out if there are
        any, else the ``val`` rows; with ``test``, the ``val`` rows are used by neither side.

    Raises:
        LabelError: one side is empty, the training side has fewer than two classes, or (without a split of their own)
            a class has one example only.
    """
    names = set(splits.tolist())
    name = next((s.value for s in (Split.TEST, Split.VAL) if s in names), HASH_SPLIT)
    spare = np.zeros(len(y), dtype=bool)
    if name == HASH_SPLIT:
        max_folds(y, groups)  # a class of one example cannot be both learned and judged
        held = hash_holdout_mask(y, groups, seed=seed)
        train = ~held
    else:
        held = splits == name
        train = np.array([s in (None, Split.TRAIN) for s in splits.tolist()], dtype=bool)
        spare = (splits == Split.VAL) & ~held
    leaking = train & np.isin(groups, groups[held])
    train &= ~leaking
    spare &= ~np.isin(groups, groups[held | train])
    _check(y[train], int(held.sum()), name)
    return TrainTestSplit(np.flatnonzero(train), np.flatnonzero(held), name, int(leaking.sum()), np.flatnonzero(spare))


def cross_validation_splits(
    y: NDArray[np.object_], groups: NDArray[np.int64], n_folds: int, *, seed: int = 0
) -> list[TrainTestSplit]:
    """K stratified folds over all rows; a group is never cut, and every row is held out once.

    Args:
        y: labels ``(N,)``; tuples of labels are not stratified. groups: int64 ``(N,)``. k: at least 2. seed: of the
            shuffling.

    Raises:
        LabelError: fewer than two folds, or a class that lives in fewer groups than folds.
    """
    if n_folds < 2:
        raise LabelError(f"cross-validation needs at least 2 folds, not {n_folds}")
    multi = any(isinstance(v, tuple) for v in y.tolist())
    if multi:
        _, numbers = np.unique(groups, return_inverse=True)
        if numbers.max() + 1 < n_folds:
            raise LabelError(
                f"{numbers.max() + 1} groups of items cannot be cut into {n_folds} folds; give a smaller --folds"
            )
        codes = np.zeros(len(y), np.int64)
    else:
        codes = np.unique(y.astype(str), return_inverse=True)[1]
        if len(np.unique(codes)) < 2:
            raise LabelError(f"the labels hold one class only ({y[0]!r}); a classifier needs at least two")
        fit = max_folds(y, groups, limit=n_folds)
        if fit < n_folds:
            raise LabelError(f"the smallest class has {fit} separate items; `--folds {fit}` at most, or label more")
    part = stratified_group_folds(codes, groups, n_folds, seed=seed)
    return [
        TrainTestSplit(np.flatnonzero(part != i), np.flatnonzero(part == i), f"fold {i + 1}", 0) for i in range(n_folds)
    ]


def hash_holdout_mask(y: NDArray[np.object_], groups: NDArray[np.int64], *, seed: int = 0) -> NDArray[np.bool_]:
    """A fifth of every class, group by group in the order of the groups' hashes: the same rows at every call."""
    order = _shuffled(groups, seed)
    held = np.zeros(len(y), dtype=bool)
    codes = np.unique([str(v) for v in y.tolist()] if len(y) else [], return_inverse=True)[1]
    for code in np.unique(codes):
        own = codes == code
        names, sizes = np.unique(order[own], return_counts=True)
        wanted = HELD_OUT_FRACTION * own.sum()
        chosen = names[np.cumsum(sizes) <= max(wanted, sizes[0] if len(names) > 1 else 0)]
        held |= np.isin(order, chosen)
    return held


def _shuffled(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Other names for the groups, one to one; the names themselves for seed 0."""
    if seed == 0:
        return groups
    bits = groups.astype(np.uint64) ^ np.uint64((seed * 0x9E3779B97F4A7C15) % 2**64)
    with np.errstate(over="ignore"):  # the finaliser of SplitMix64 (Steele et al. 2014): a bijection of 64 bits
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (bits ^ (bits >> np.uint64(31))).view(np.int64)


def _check(y: NDArray[np.object_], held: int, name: str) -> None:
    """Refuse a division that cannot answer anything."""
    classes = sorted({str(v) for v in y.tolist()})
    if not held or not len(y):
        side = f"split {name!r} holds" if not held else "training has"
        raise LabelError(f"{side} no labelled rows; label some, or give the items a `split` column of train and val")
    if len(classes) < 2:
        raise LabelError(f"training has one class only ({classes[0]!r}); a classifier needs at least two")


def max_folds(y: NDArray[np.object_], groups: NDArray[np.int64], *, limit: int = DEFAULT_FOLDS) -> int:
    """How many cross-validation folds the smallest class can fill, at most ``wanted``.

    Raises:
        LabelError: a class lives in one group only (one example): it cannot be both learned and judged.
    """
    names, spread = groups_per_class(y, groups)
    lonely = [str(name) for name in names[spread < 2].tolist()]
    if lonely:
        named = ", ".join(repr(label) for label in lonely[:5])
        raise LabelError(
            f"{len(lonely)} class{'es have' if len(lonely) > 1 else ' has'} one example only ({named}), copies and "
            "groups counted once; label more, or leave out what has too few with --where"
        )
    return int(min(limit, spread.min()))


def groups_per_class(y: NDArray[np.object_], groups: NDArray[np.int64]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """The classes, sorted, and in how many groups each lives."""
    names, codes = np.unique(y.astype(str), return_inverse=True)
    order = np.lexsort((groups, codes))
    new = np.diff(codes[order], prepend=-1) != 0
    new[1:] |= np.diff(groups[order]) != 0
    return names, np.bincount(codes[order][new], minlength=len(names))


def smaller_side(labels: NDArray[np.bool_], groups: NDArray[np.int64]) -> int:
    """Return the number of groups on the smaller side of a yes-or-no label; below 2 it cannot be cross-validated."""
    return min(len(np.unique(groups[labels == side])) for side in (True, False))

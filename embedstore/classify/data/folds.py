"""Rows cut into parts of equal class shares."""

from __future__ import annotations

import numpy as np

from embedstore.arrays import Array, FloatArray, IntArray

_BINS = 10  # equally full ranges of a number that are stratified


def stratified_holdout(codes: IntArray, n_held_out: int, *, seed: int) -> tuple[IntArray, IntArray] | None:
    """Return the remaining and the held-out rows, with about equal shares of every class.

    Args:
        codes: int ``(N,)``, the column of each row's class.
        n_held_out: how many rows to hold out.
        seed: random seed.

    Returns:
        Two arrays of row numbers, or None if a class has one row or a side has fewer rows than classes.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    counts = np.bincount(codes)
    counts = counts[counts > 0]
    if counts.min() < 2 or n_held_out < len(counts) or len(codes) - n_held_out < len(counts):
        return None
    splitter = StratifiedShuffleSplit(1, test_size=n_held_out, random_state=seed)
    rest, held_out = next(splitter.split(codes, codes))
    return rest, held_out


def stratified_group_holdout(
    codes: IntArray, groups: Array | None, n_held_out: int, *, seed: int
) -> tuple[IntArray, IntArray] | None:
    """Return the remaining and the held-out rows as :func:`stratified_holdout`; a group is never cut.

    Of every class, groups are drawn until the class has its share of the held-out rows; at least one is held out and
    at least one remains.

    Args:
        codes: int ``(N,)``, the column of each row's class.
        groups: ``(N,)``; None if every row is a group of its own.
        n_held_out: about how many rows to hold out.
        seed: random seed.

    Returns:
        Two arrays of row numbers, or None if a class would be missing on one side.
    """
    if groups is None or len(np.unique(groups)) == len(codes):
        return stratified_holdout(codes, n_held_out, seed=seed)
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(codes), bool)
    for code in np.unique(codes):
        members = codes == code
        names, sizes = np.unique(groups[members], return_counts=True)
        order = rng.permutation(len(names))
        before = np.cumsum(sizes[order]) - sizes[order]
        chosen = order[: max(len(names) - 1, 0)][(before < members.mean() * n_held_out)[: len(names) - 1]]
        held_out |= np.isin(groups, names[chosen])
    classes = len(np.unique(codes))
    if any(len(np.unique(codes[side])) < classes for side in (held_out, ~held_out)):
        return None
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def stratified_group_folds(codes: IntArray, groups: Array, n_folds: int, *, seed: int) -> IntArray:
    """Cut the rows into folds with about equal shares of every class; a group is never cut.

    Groups of several rows come first, the largest first, each into the fold with the fewest rows of its classes. Then
    the rows of each class that are a group of their own fill up the folds. (scikit-learn's StratifiedGroupKFold stores
    a number per group and class and takes a millisecond per group: a minute and 0.8 GB at 100,000 rows of 1,000
    classes.)

    Args:
        codes: int ``(N,)``, the column of each row's class.
        groups: ``(N,)``.
        n_folds: at least 2.
        seed: random seed of ties and of which single rows fill up.

    Returns:
        The fold of each row, int64 ``(N,)``.
    """
    rng = np.random.default_rng(seed)
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    out, filled = np.zeros(len(codes), np.int64), np.zeros((n_folds, int(codes.max()) + 1), np.int64)
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(sizes)[:-1])
    shuffled = rng.permutation(np.flatnonzero(sizes > 1))
    for g in shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist():
        classes, counts = np.unique(codes[members[g]], return_counts=True)
        fold = int(np.lexsort((filled.sum(1), filled[:, classes] @ counts))[0])
        out[members[g]] = fold
        filled[fold, classes] += counts
    single = rng.permutation(np.flatnonzero(sizes[group_of] == 1))
    single = single[np.argsort(codes[single], kind="stable")]
    for rows in np.split(single, np.flatnonzero(np.diff(codes[single])) + 1):
        if len(rows):
            level = filled[:, codes[rows[0]], None] + np.arange(len(rows))
            folds = np.lexsort((np.repeat(filled.sum(1), len(rows)), level.ravel()))[: len(rows)] // len(rows)
            out[rows] = folds
            filled[:, codes[rows[0]]] += np.bincount(folds, minlength=n_folds)
    return out


def numeric_group_folds(numbers: FloatArray, groups: Array, n_folds: int, *, seed: int) -> IntArray:
    """Cut the rows into folds with about equal shares of low, middle and high numbers; a group is never cut.

    Args:
        numbers: ``(N,)``.
        groups: ``(N,)``.
        n_folds: at least 2.
        seed: random seed.

    Returns:
        The fold of each row, int64 ``(N,)``.
    """
    edges = np.quantile(numbers, np.linspace(0, 1, _BINS + 1)[1:-1])
    codes = np.unique(np.searchsorted(edges, numbers, side="right"), return_inverse=True)[1]
    return stratified_group_folds(codes, groups, n_folds, seed=seed)

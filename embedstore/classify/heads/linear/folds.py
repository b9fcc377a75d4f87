"""Which rows each fold of a search for C trains on."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from embedstore.arrays import Array, IntArray
from embedstore.classify.data.labels import stratified_group_folds
from embedstore.errors import LabelError

_FOLDS = 5
_SHARE = 0.1  # held out where five folds are too much work: what Oquab et al. 2023 pick C on
_LEAST = 2500  # rows held out: the noise of a mean loss is then a few per cent, and that of a difference far less
_MUCH = 5e10  # multiplications of a pass over five folds: 4 seconds of a thread, and a path takes about a hundred


def resolve_cv(cv: float | None, shape: tuple[int, ...], n_classes: int) -> float:
    """What ``cv`` stands for: itself, or the default for so many rows, features and classes."""
    if cv is not None:
        return cv
    much = float(shape[0]) * shape[1] * n_classes * _FOLDS > _MUCH
    return _SHARE if much and shape[0] * _SHARE >= max(n_classes, _LEAST) else _FOLDS


def fold_training_masks(y: IntArray, groups: Array | None, cv: float, *, seed: int, class_names: Array) -> Array:
    """The rows that each fold trains on, bool ``(F, N)``.

    Args:
        y: columns ``(N,)``. groups: ``(N,)``, never cut. cv: folds, or the share of a single hold-out. seed: of them.
        names: of the classes.

    Raises:
        LabelError: a class with one row, too few rows or groups, a fold that would train on one class.
    """
    counts = np.bincount(y)
    if counts.min() < 2:
        raise LabelError(
            f"class {str(class_names[counts.argmin()])!r} has 1 sample and cross-validation needs 2 of each; "
            f"label more, "
            "leave it out, or give one value of C"
        )
    if groups is not None and len(np.unique(groups)) == len(y):
        groups = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds is served all the same
        held = _held(y, groups, cv, seed)
    for fold in held:
        if len(np.unique(y[~fold])) < 2:
            raise LabelError("a fold would train on one class only; the groups are too uneven for cross-validation")
    return ~held


def _held(y: IntArray, groups: Array | None, cv: float, seed: int) -> Array:
    """The rows that each fold judges, bool ``(F, N)``."""
    if 0 < cv < 1 and groups is None:
        test = next(StratifiedShuffleSplit(1, test_size=cv, random_state=seed).split(y, y))[1]
        return np.isin(np.arange(len(y)), test)[None]
    n = min(int(cv), int(np.bincount(y).max())) if cv >= 1 else max(2, round(1 / max(cv, 1e-9)))
    if cv <= 0 or (cv >= 1 and int(cv) != cv) or n < 2:
        raise LabelError(f"cv must be a whole number of at least 2 folds or a share below 1, not {cv}")
    if groups is None:
        part: IntArray = np.zeros(len(y), np.int64)
        for i, (_, test) in enumerate(StratifiedKFold(n, shuffle=True, random_state=seed).split(y, y)):
            part[test] = i
    else:
        if len(np.unique(groups)) < n:
            raise LabelError(f"{len(np.unique(groups))} groups cannot be cut into {n} folds; give a smaller cv")
        part = stratified_group_folds(y, groups, n, seed=seed)
    held: Array = np.arange(n if cv >= 1 else 1)[:, None] == part
    return held

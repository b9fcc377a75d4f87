"""Which rows each fold of a search for C trains on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedKFold

from embedstore.arrays import Array, IntArray
from embedstore.classify.data.folds import stratified_group_folds, stratified_holdout
from embedstore.errors import LabelError

_FOLDS = 5
_MAX_FOLDS = 1000  # more take hours and gigabytes
_HOLDOUT_SHARE = 0.1  # where five folds are too much work: what Oquab et al. 2023 choose C on
_MIN_HOLDOUT = 2500  # rows: the noise of a mean loss is then a few percent, and that of a difference far less
_MAX_WORK = 1e9  # multiplications in a pass over five folds: 0.1 s of a thread, and a path takes about a hundred


Folds = Sequence[tuple[IntArray, IntArray]]
"""The training and the held-out rows of each fold, as scikit-learn gives them."""


def resolve_cv(cv: float | Folds | None, shape: tuple[int, ...], n_classes: int) -> float | Folds:
    """Return ``cv`` itself, or for None the default for so many rows, features and classes."""
    if cv is not None:
        return cv
    too_much = float(shape[0]) * shape[1] * n_classes * _FOLDS > _MAX_WORK
    return _HOLDOUT_SHARE if too_much and shape[0] * _HOLDOUT_SHARE >= max(n_classes, _MIN_HOLDOUT) else _FOLDS


def given_training_masks(y: IntArray, folds: Folds) -> Array:
    """Return the rows that each given fold trains on, bool ``(F, N)``; all other rows are held out.

    Raises:
        LabelError: if a fold does not divide all rows, or would train on one class.
    """
    masks = np.zeros((len(folds), len(y)), bool)
    for mask, (train, held_out) in zip(masks, folds, strict=True):
        mask[train] = True
        if not np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(len(y))):
            raise LabelError(f"a fold of cv must divide the {len(y)} rows into training and held-out rows")
        if len(np.unique(y[mask])) < 2:
            raise LabelError("a fold would train on one class only; give it rows of at least two")
    return masks


def fold_training_masks(y: IntArray, groups: Array | None, cv: float, *, seed: int, class_names: Array) -> Array:
    """Return the rows that each fold trains on, bool ``(F, N)``.

    Args:
        y: int ``(N,)``, the column of each row's class.
        groups: ``(N,)``; a group stays on one side.
        cv: the number of folds, or the share of a single hold-out.
        seed: random seed of the folds.
        class_names: the names of the classes.

    Raises:
        LabelError: if fewer than two classes have two rows, there are too few rows or groups, or a fold would train on
            one class.
    """
    counts = np.bincount(y)
    if (counts > 1).sum() < 2:
        raise LabelError(
            f"class {str(class_names[counts.argmin()])!r} has 1 sample, and cross-validation needs 2 of at least two "
            "classes; label more, or give one value of C"
        )
    if groups is not None and len(np.unique(groups)) == len(y):
        groups = None
    held_out = _held_out_masks(y, groups, cv, seed)
    if any(len(np.unique(y[~fold])) < 2 for fold in held_out):
        raise LabelError("a fold would train on one class only; the groups are too uneven for cross-validation")
    return ~held_out


def _held_out_masks(y: IntArray, groups: Array | None, cv: float, seed: int) -> Array:
    """Return the rows that each fold holds out, bool ``(F, N)``."""
    if isinstance(cv, bool) or not math.isfinite(cv):
        raise LabelError(f"cv must be a whole number of at least 2 folds or a share below 1, not {cv}")
    if 0 < cv < 1 and groups is None:
        several = np.flatnonzero(np.bincount(y)[y] > 1)  # the others train
        parts = stratified_holdout(y[several], int(np.ceil(cv * len(several))), seed=seed)
        if parts is None:
            raise LabelError(f"a hold-out of {cv} of {len(y)} rows has fewer rows than classes on one side; label more")
        return np.isin(np.arange(len(y)), several[parts[1]])[None]
    n = min(int(cv), int(np.bincount(y).max())) if cv >= 1 else max(2, round(1 / max(cv, 1e-9)))
    if cv <= 0 or (cv >= 1 and int(cv) != cv) or n < 2:
        raise LabelError(f"cv must be a whole number of at least 2 folds or a share below 1, not {cv}")
    if cv > _MAX_FOLDS:
        raise LabelError(f"cv must be at most {_MAX_FOLDS:,} folds, not {cv:,}; give a smaller cv")
    if groups is None:
        part = _stratified_folds(y, n, seed)
    elif len(np.unique(groups)) < n:
        raise LabelError(f"{len(np.unique(groups))} groups cannot be cut into {n} folds; give a smaller cv")
    else:
        part = stratified_group_folds(y, groups, n, seed=seed)
    masks: Array = np.arange(n if cv >= 1 else 1)[:, None] == part
    return masks


def _stratified_folds(y: IntArray, n: int, seed: int) -> IntArray:
    """Return the fold of each row, int64 ``(N,)``, as scikit-learn divides them."""
    part = np.zeros(len(y), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds is divided all the same
        for i, (_, test) in enumerate(StratifiedKFold(n, shuffle=True, random_state=seed).split(y, y)):
            part[test] = i
    return part

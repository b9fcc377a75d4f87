"""How each protocol finds C: over a whole grid, or by halving steps around the best value."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray
from embedstore.classify import heads
from embedstore.classify.protocols.choice_rows import ChoiceSplit
from embedstore.threads import single_threaded_algebra

DINO_GRID = np.logspace(-6, 5, 45)  # both published codes
CLIP_DECADES = (-6, -4, -2, 0, 2, 4, 6)  # Radford et al. 2021, A.3: where the search begins
CLIP_STEPS = (1.0, 0.5, 0.25, 0.125)  # then the steps around the peak, to 8 per decade
MAX_ITER = 1000  # of L-BFGS, in all protocols
_TOL = 1e-7  # relative distance from the optimum; the last fit is ten times nearer, and what decides C far nearer
_ONE_THREAD = 20_000_000  # numbers in the rows below which one thread fits them
_DOUBLE_BYTES = 8 << 30  # rows up to which float64, as published, is used


@dataclass(frozen=True)
class SelectedC:
    """What a search found.

    Attributes:
        C: the selected value; of equal accuracies the smallest, as published code takes the first.
        path: ``(C, accuracy on the rows that select)`` of every value that was tried, ascending.
        estimator: the head, fitted on all rows.
    """

    C: float
    path: tuple[tuple[float, float], ...]
    estimator: Any


def search_grid(split: ChoiceSplit, random_state: int = 0) -> SelectedC:
    """Try all 45 values, as DINOv2 and DINOv3 do, and fit all rows with the best one."""
    used = np.sort(np.concatenate([split.fitted, split.choice]))
    is_choice = np.isin(used, split.choice)
    folds = [(np.flatnonzero(~is_choice), np.flatnonzero(is_choice))]
    X, y = _double(split.data.X), split.data.y
    probe = heads.LogisticProbe(
        DINO_GRID.tolist(),
        folds,
        criterion="first_accuracy",
        patience=None,
        tol=_TOL,
        max_iter=MAX_ITER,
        random_state=random_state,
    ).fit(X[used], y[used])
    path = tuple((float(p.C), float(p.accuracy)) for p in probe.path_)
    if len(used) < len(y):
        probe = heads.LogisticProbe(C=probe.C_, tol=_TOL, max_iter=MAX_ITER).fit(X, y)
    else:
        probe.set_params(cv=None)  # the rows of the search are no part of the head
    return SelectedC(float(probe.C_), path, probe)


def search_by_halving(split: ChoiceSplit) -> SelectedC:
    """Find the peak over 7 values from 1e-6 to 1e6, then halve the step around it, as CLIP does.

    Every fit is scikit-learn's ``LogisticRegression`` with its defaults and 1,000 iterations, because it often stops
    before the optimum, and where it stops is part of the published figures.
    """
    X, y = split.data.X, split.data.y

    def accuracy(exponent: float) -> float:
        head = scikit_learn_fit(X[split.fitted], y[split.fitted], 10.0**exponent)
        return float((head.predict(X[split.choice]) == y[split.choice]).mean())

    tried = halving_search(accuracy)
    C = 10.0 ** _peak(tried)
    return SelectedC(C, tuple((10.0**e, a) for e, a in sorted(tried.items())), scikit_learn_fit(X, y, C))


def halving_search(accuracy: Callable[[float], float]) -> dict[float, float]:
    """Return the accuracy by exponent of C of all values that the search tries."""
    tried = {float(e): accuracy(float(e)) for e in CLIP_DECADES}
    for step in CLIP_STEPS:
        peak = _peak(tried)
        for exponent in (peak - step, peak + step):
            if CLIP_DECADES[0] <= exponent <= CLIP_DECADES[-1] and exponent not in tried:
                tried[exponent] = accuracy(exponent)
    return tried


def _peak(tried: dict[float, float]) -> float:
    """Return the exponent with the highest accuracy; of equal ones the smallest."""
    return max(sorted(tried), key=lambda e: tried[e])


def scikit_learn_fit(X: NDArray[np.float32], y: NDArray[np.object_], C: float) -> Any:
    """Return scikit-learn's logistic regression with a C, fitted on some rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # Threads that wait for each other after every small product take many times as long on a busy machine.
    threads = single_threaded_algebra() if X.size < _ONE_THREAD else nullcontext()
    with warnings.catch_warnings(), threads:
        warnings.simplefilter("ignore", ConvergenceWarning)  # to stop at 1,000 iterations is the protocol
        return LogisticRegression(C=C, max_iter=MAX_ITER, random_state=0).fit(X, y.astype(str))


def _double(X: NDArray[np.float32]) -> FloatArray:
    """Return the rows as float64; as they are where that would take more than 8 GiB."""
    return X if X.nbytes * 2 > _DOUBLE_BYTES else np.asarray(X, np.float64)

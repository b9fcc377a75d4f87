"""The interval of a point of a learning curve: the noise of the draws, and that of the held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray
from embedstore.classify.metrics.shares import accuracy_rows, independent_draws, wilson_interval

_QUANTILE = 0.975  # of a 95% interval
_Z = 1.959964  # the normal distribution's
_REPLICATES = 100
_ADDED_ROWS = 2  # of the largest variance, to those whose variance over several heads is estimated


@dataclass(frozen=True)
class HeldOutScore:
    """The score of one fitted head on the held-out rows.

    Attributes:
        value: the score.
        correct: bool ``(M,)``, the rows that are right, if the score is their share.
        standard_error: the standard error of the score over other held-out rows, if it is another one.
    """

    value: float
    correct: NDArray[np.bool_] | None = None
    standard_error: float | None = None


def mean_interval(scores: Sequence[HeldOutScore], groups: NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95% interval of the mean score over draws of the training rows and of the held-out rows.

    All draws are scored on the same held-out rows, so their noise does not fall with the number of draws.

    Args:
        scores: one per draw.
        groups: int64 ``(M,)``, of the held-out rows; rows of one group are one draw.
    """
    values = [s.value for s in scores]
    mean, of_draws = float(np.mean(values)), _draw_error(values)
    below, above = (_reach(of_rows / _Z, of_draws, len(values)) for of_rows in _held_out_noise(scores, mean, groups))
    return max(0.0, mean - below), min(1.0, mean + above)


def _draw_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean over draws of the training rows; 0 of a single draw."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _reach(of_rows: float, of_draws: float, n_draws: int) -> float:
    """Return how far the interval of a mean reaches that has the noise of held-out rows and of a few draws.

    The few draws show their noise with an error of its own: Student's quantile, with the degrees of freedom of
    Satterthwaite (1946) for a sum of two variances, of which that of the rows counts as known.

    Args:
        of_rows: standard error over held-out rows.
        of_draws: standard error over draws.
        n_draws: number of draws.
    """
    from scipy.special import stdtrit

    if of_draws == 0:
        return _Z * of_rows
    variance = of_rows**2 + of_draws**2
    degrees = (n_draws - 1) * (variance / of_draws**2) ** 2
    return float(stdtrit(degrees, _QUANTILE)) * math.sqrt(variance)


def _held_out_noise(scores: Sequence[HeldOutScore], mean: float, groups: NDArray[np.int64]) -> tuple[float, float]:
    """Return how far the interval of the held-out rows reaches below and above the mean."""
    correct = [s.correct for s in scores if s.correct is not None]
    if correct:
        rows = accuracy_rows(np.mean(correct, axis=0), groups)
        low, high = wilson_interval(mean, independent_draws(rows) * _shares_per_row(rows.correct))
        return mean - low, high - mean
    error = _Z * float(np.mean([s.standard_error or 0.0 for s in scores]))
    if error > 0:
        return error, error
    low, high = wilson_interval(mean, len(np.unique(groups)))  # rows that do not vary say no more than right ones do
    return mean - low, high - mean


def _shares_per_row(shares: FloatArray) -> float:
    """Return how many rows that are right or wrong say as much as one row whose share of right heads is known.

    A row that some of the heads get right varies less than one that is right or wrong, so that the mean over several
    heads is more certain than the accuracy of one. Two rows of the largest variance are added, since few rows show
    little of it.

    Args:
        shares: float64 ``(M,)``, the share of the heads that are right on each row.
    """
    mean = float(shares.mean())
    largest = mean * (1 - mean)
    if largest <= 0:
        return 1.0
    seen = (float(((shares - mean) ** 2).sum()) + _ADDED_ROWS * largest) / (len(shares) + _ADDED_ROWS - 1)
    return max(1.0, largest / seen)


def normal_reach(values: Sequence[float], error: float) -> float:
    """Return how far the 95% interval of a mean over draws reaches, with the noise of draws and of held-out rows.

    Args:
        values: the score of each draw.
        error: the standard error of the score over held-out rows.
    """
    return _reach(error, _draw_error(values), len(values))


def bootstrap_error(score: Callable[[NDArray[np.int64]], float], groups: NDArray[np.int64]) -> float:
    """Return the standard error of a score over held-out rows, from 100 draws of their groups.

    Args:
        score: the score of some rows, which may be repeated.
        groups: int64 ``(M,)``.
    """
    rng = np.random.default_rng(0)
    _, code, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(code, kind="stable"), np.cumsum(sizes)[:-1])
    draws = [
        score(np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))]))
        for _ in range(_REPLICATES)
    ]
    return float(np.nanstd(draws, ddof=1)) if np.isfinite(draws).sum() > 1 else 0.0

"""The interval of a point of a learning curve: the noise of the draws, and that of the held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.metrics.shares import accuracy_rows, share_interval

_Z = 1.959964  # the normal quantile of a 95% interval
_REPLICATES = 100


@dataclass(frozen=True)
class HeldOutScore:
    """The score of one fitted head on the held-out rows.

    Attributes:
        value: the score.
        correct: bool ``(M,)``, the rows that are right, if the score is their share.
        standard_error: of the score over other held-out rows, if it is another one.
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
    mean, n = float(np.mean(values)), len(values)
    of_draws = _Z * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    below, above = _held_out_noise(scores, mean, groups)
    return max(0.0, mean - math.hypot(below, of_draws)), min(1.0, mean + math.hypot(above, of_draws))


def _held_out_noise(scores: Sequence[HeldOutScore], mean: float, groups: NDArray[np.int64]) -> tuple[float, float]:
    """Return how far the interval of the held-out rows reaches below and above the mean."""
    correct = [s.correct for s in scores if s.correct is not None]
    if correct:
        low, high = share_interval(accuracy_rows(np.mean(correct, axis=0), groups))
        return mean - low, high - mean
    error = _Z * float(np.mean([s.standard_error or 0.0 for s in scores]))
    return error, error


def normal_reach(values: Sequence[float], error: float) -> float:
    """Return how far the 95% interval of a mean over draws reaches, with the noise of draws and of held-out rows.

    Args:
        values: the score of each draw.
        error: the standard error of the score over held-out rows.
    """
    of_draws = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return _Z * math.hypot(error, of_draws)


def bootstrap_error(score: Callable[[NDArray[np.int64]], float], groups: NDArray[np.int64]) -> float:
    """Return the standard error of a score over held-out rows, from 100 draws of their groups.

    Args:
        score: of some rows, which may be repeated.
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

"""The numbers that a head predicted for held-out rows, and those that miss the most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_LISTED_ERRORS = 60  # in a report


@dataclass(frozen=True, slots=True)
class NumericError:
    """A held-out item with its true number, its predicted number and the interval of that."""

    item: int
    true: float
    predicted: float
    low: float
    high: float


@dataclass(frozen=True)
class NumericPredictions:
    """The predictions for all held-out rows.

    Attributes:
        ids: int64 ``(M,)`` items.
        y: float64 ``(M,)``, true numbers.
        predicted: float64 ``(M,)``.
        low: float64 ``(M,)``, lower ends of the prediction intervals; infinite where too few rows calibrate them.
        high: float64 ``(M,)``, upper ends.
        groups: int64 ``(M,)``; items of one group are one draw.
        baseline: float64 ``(M,)``, the mean number of the rows that trained the head.
    """

    ids: NDArray[np.int64]
    y: NDArray[np.float64]
    predicted: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    groups: NDArray[np.int64]
    baseline: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Return which true numbers lie in their interval, bool ``(M,)``."""
        return np.asarray((self.low <= self.y) & (self.y <= self.high))

    @property
    def largest_errors(self) -> list[NumericError]:
        """Return the largest errors first, at most 60."""
        error = np.abs(self.y - self.predicted)
        order = np.lexsort((self.ids, -error))[:MAX_LISTED_ERRORS]
        columns = (self.ids, self.y, self.predicted, self.low, self.high)
        rows = zip(*(column[order].tolist() for column in columns), strict=True)
        return [NumericError(*row) for row in rows]


def concatenate_predictions(parts: list[NumericPredictions]) -> NumericPredictions:
    """Return the predictions of all parts, in order."""
    names = ("ids", "y", "predicted", "low", "high", "groups", "baseline")
    return NumericPredictions(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

"""Intervals around predicted numbers that hold the true number as often as promised (conformal prediction).

The residuals of rows that were left out say how far a prediction misses. On rows that trained nothing this is split
conformal prediction (Papadopoulos et al. 2002); on the training rows, each with a head that was not fitted on its fold,
it is CV+ (Barber et al. 2021), which uses the prediction of the fold's head for a new row, too. Where only the head of
all rows is kept, its prediction stands for theirs: that has no guarantee, but holds for heads that a fold changes
little. Rows of one group share the weight of one draw (Lee et al. 2023, hierarchical conformal prediction).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from embedstore.arrays import Array, FloatArray
from embedstore.classify.heads.numerics import blocks

_BLOCK = 4096
_SLACK = 1e-9
_STEPS = 60  # halvings of the range of an end


class PredictionInterval(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted head that predicts numbers, and an interval of each number.

    Args:
        head: the fitted head; its predictions are unchanged.
        alpha: the share of new numbers that may lie outside, in (0, 0.5].

    Attributes:
        fold_heads_: the heads that were fitted without one fold; empty if ``head`` stands for them.
        residuals_: for each of them (or for ``head``) the absolute residuals of its left-out rows, ascending.
        masses_: the cumulated weight of these residuals; over all rows they sum to G / (G + 1) for G groups.
        n_calibration_: rows with a residual.
        n_groups_: G.
    """

    def __init__(self, head: Any, alpha: float = 0.1) -> None:
        self.head = head
        self.alpha = alpha

    @property
    def n_features_in_(self) -> int:
        """The number of features of the head."""
        return int(self.head.n_features_in_)

    @property
    def rows_needed(self) -> int:
        """Return how many groups of rows give intervals of a finite length."""
        return int(np.ceil(1 / self.alpha - 1 - 1e-9))

    def set_residuals(
        self, residuals: FloatArray, groups: Array, folds: Array | None = None, fold_heads: Sequence[Any] = ()
    ) -> PredictionInterval:
        """Keep the residuals of rows that were left out.

        Args:
            residuals: true minus predicted numbers ``(M,)``.
            groups: ``(M,)``; rows of one group are one draw.
            folds: int ``(M,)``, the head in ``fold_heads`` that predicted each row.
            fold_heads: fitted heads; without them all rows count as predicted by ``head``.
        """
        code, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
        mass = 1 / (sizes[code] * (len(sizes) + 1))
        of_head = np.zeros(len(residuals), np.int64) if folds is None or not fold_heads else folds
        self.fold_heads_ = list(fold_heads)
        self.residuals_, self.masses_ = [], []
        for number in range(max(1, len(fold_heads))):
            rows = np.flatnonzero(of_head == number)
            rows = rows[np.argsort(np.abs(residuals[rows]), kind="stable")]
            self.residuals_.append(np.abs(residuals[rows]))
            self.masses_.append(np.cumsum(mass[rows]))
        self.n_calibration_, self.n_groups_ = len(residuals), len(sizes)
        return self

    def predict(self, X: Array) -> FloatArray:
        """Return numbers, float64 ``(N,)``."""
        return np.asarray(self.head.predict(X), np.float64)

    def predict_interval(self, X: Array) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the intervals, two float64 ``(N,)``; infinite where there are too few groups."""
        low, high = np.empty(len(X)), np.empty(len(X))
        for s in blocks(len(X), _BLOCK):
            centers = np.stack([h.predict(X[s]) for h in self.fold_heads_ or [self.head]])
            high[s], low[s] = self._upper_end(centers), -self._upper_end(-centers)
        return low, high

    def _upper_end(self, centers: FloatArray) -> FloatArray:
        """Return the smallest number with a share of 1 - alpha of (center + residual) at or below it, ``(B,)``.

        Args:
            centers: predictions ``(F, B)`` of the heads.
        """
        level = 1 - self.alpha - 1e-12
        if sum(float(m[-1]) for m in self.masses_ if len(m)) < level:
            return np.full(centers.shape[1], np.inf)
        largest = max(float(r[-1]) for r in self.residuals_ if len(r))
        low, high = centers.min(0), centers.max(0) + largest
        slack = _SLACK * (1 + np.abs(low) + np.abs(high))  # more than sums and differences round off
        low, high = low - slack, high + slack
        if len(centers) == 1:
            place = int(np.searchsorted(self.masses_[0], level))
            return np.asarray(centers[0] + self.residuals_[0][place])
        for _ in range(_STEPS):
            middle = (low + high) / 2
            enough = self._share_below(middle, centers) >= level
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return self._largest_end(high, centers)

    def _largest_end(self, ends: FloatArray, centers: FloatArray) -> FloatArray:
        """Return the largest (center + residual) at or below ``ends``, ``(B,)``: halving only comes close to it."""
        out = np.full(len(ends), -np.inf)
        for center, residuals in zip(centers, self.residuals_, strict=True):
            count = np.searchsorted(residuals, ends - center, side="right")
            known = np.concatenate([[-np.inf], residuals])[count]
            out = np.maximum(out, center + known)
        return out

    def _share_below(self, ends: FloatArray, centers: FloatArray) -> FloatArray:
        """Return the weight of the residuals that end at or below ``ends``, ``(B,)``."""
        total = np.zeros(len(ends))
        for center, residuals, masses in zip(centers, self.residuals_, self.masses_, strict=True):
            count = np.searchsorted(residuals, ends - center, side="right")
            total += np.concatenate([[0.0], masses])[count]
        return total

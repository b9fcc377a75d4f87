"""Ridge regression in closed form (Hoerl and Kennard 1970), with the penalty chosen on rows that were left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray
from embedstore.classify.data.folds import numeric_group_folds
from embedstore.classify.heads.numerics import blocks
from embedstore.classify.heads.options import check_positive, check_positives, check_random_state, check_tried_values
from embedstore.classify.heads.regression.centered_rows import CenteredRows
from embedstore.classify.heads.sample_weights import check_sample_weight, drop_unweighted
from embedstore.errors import BadHead

_GRID = (1e-7, 10.0)  # the ends of the grid, relative to the largest sum of squares along a direction
_FOLDS = 5
_BLOCK = 16_384
_DTYPES = (np.float32, np.float64, np.float16)


class RidgeHead(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Linear regression with an L2 penalty that spares the intercept, as scikit-learn's ``Ridge``.

    Args:
        alphas: the number of penalties to try, log-spaced relative to the scale of the features, or the values.
        alpha: one fixed penalty; then nothing is chosen.
        random_state: random seed of the folds.

    Attributes:
        alpha_: the chosen penalty. Without groups it has the lowest squared error of leave-one-out, computed exactly
            from one decomposition, as in scikit-learn's ``RidgeCV``. With groups of several rows it has the lowest
            error on five folds that cut no group.
        alphas_: the penalties tried, ascending.
        errors_: the mean squared error left out at each of them; empty if nothing was chosen.
        coef_: float64 ``(D,)``.
        intercept_: a number.
    """

    def __init__(
        self, alphas: int | Sequence[float] = 25, *, alpha: float | None = None, random_state: int = 0
    ) -> None:
        self.alphas = alphas
        self.alpha = alpha
        self.random_state = random_state

    def fit(self, X: Array, y: Array, sample_weight: Array | None = None, groups: Array | None = None) -> RidgeHead:
        """Choose the penalty and fit on all rows.

        Args:
            X: features ``(N, D)``; a memory map is read in blocks.
            y: numbers ``(N,)``.
            sample_weight: ``(N,)``, at least 0; a row of weight 2 counts as two rows.
            groups: ``(N,)``; rows of one group are left out together.

        Raises:
            BadHead: if a penalty is not above 0, or a weight is negative or not finite, or all are 0.
            ValueError: if X or y holds something else than finite numbers.
        """
        X, y = validate_data(self, X, y, dtype=_DTYPES, y_numeric=True)
        check_random_state(self.random_state)
        y = np.asarray(y, np.float64)
        sample_weight, X, y, groups = drop_unweighted(sample_weight, X, y, groups)
        weights = check_sample_weight(sample_weight, len(y))
        rows = CenteredRows.of(X, y, weights)
        self.alphas_ = self._grid(rows)
        self.errors_: FloatArray = np.zeros(0)
        if len(self.alphas_) > 1:
            self.errors_ = self._left_out_errors(rows, X, y, weights, groups)
        self.alpha_ = float(self.alphas_[self.errors_.argmin()] if len(self.errors_) else self.alphas_[0])
        self.coef_ = rows.basis @ rows.solve(np.array([self.alpha_]))[:, 0]
        self.intercept_ = rows.target_mean - float(rows.mean @ self.coef_)
        return self

    def predict(self, X: Array) -> FloatArray:
        """Return numbers, float64 ``(N,)``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=_DTYPES)
        parts = [np.asarray(X[s], np.float64) @ self.coef_ + self.intercept_ for s in blocks(len(X), _BLOCK)]
        return np.concatenate(parts)

    def _grid(self, rows: CenteredRows) -> FloatArray:
        """Return the penalties to try, ascending."""
        if self.alpha is not None:
            check_positive("alpha", self.alpha)
            return np.array([float(self.alpha)])
        if isinstance(self.alphas, int | np.integer) and not isinstance(self.alphas, bool):
            if self.alphas < 2:
                raise BadHead(
                    f"alphas must be at least 2 values to try, not {self.alphas}; for a fixed one give alpha=1"
                )
            check_tried_values("alphas", int(self.alphas))
            largest = float(rows.moments.max(initial=0)) or 1.0
            return np.geomspace(*_GRID, int(self.alphas)) * largest
        if isinstance(self.alphas, bool | str):
            raise BadHead(f"alphas must be numbers above 0, or how many to try, not {self.alphas!r}")
        values = np.unique(np.atleast_1d(np.asarray(self.alphas, np.float64)))
        check_positives("alphas", values.tolist())
        return values

    def _left_out_errors(
        self, rows: CenteredRows, X: Array, y: FloatArray, weights: FloatArray, groups: Array | None
    ) -> FloatArray:
        """Return the weighted mean squared error of left-out rows at each penalty, ``(A,)``."""
        if groups is None or len(np.unique(groups)) == len(y) or len(np.unique(groups)) < 2:
            residuals = rows.leave_one_out(X, y, weights, self.alphas_)
            return np.asarray(weights @ residuals**2 / weights.sum())
        n_folds = min(_FOLDS, len(np.unique(groups)))
        fold_of = numeric_group_folds(y, np.asarray(groups), n_folds, seed=self.random_state)
        total = np.zeros(len(self.alphas_))
        for fold in range(n_folds):
            train, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            if not weights[train].any():
                continue
            part = CenteredRows.of(X[train], y[train], weights[train])
            predicted = part.target_mean + part.project(X[held_out]) @ part.solve(self.alphas_)
            total += weights[held_out] @ (y[held_out, None] - predicted) ** 2
        return total / float(weights.sum())

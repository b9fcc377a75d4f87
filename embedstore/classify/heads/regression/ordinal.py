"""Levels on an ordered scale: a regression of the rank, cut where left-out rows agree best."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.data.folds import numeric_group_folds
from embedstore.classify.heads.regression import make_regressor
from embedstore.classify.heads.sample_weights import check_sample_weight, fit_weighted
from embedstore.classify.metrics.regression import quadratic_kappa
from embedstore.errors import LabelError

_FOLDS = 5
_CANDIDATES = 100  # places tried for a cut in each round
_ROUNDS = 3
MAX_LEVELS = 100


class OrdinalHead(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor of the rank of the level, with cut points between neighboring levels.

    Half way between two ranks is the first guess of a cut. It is moved where that raises the quadratic kappa of rows
    that were left out of five folds, one cut after the other: a regression pulls its predictions to the middle, and so
    rarely reaches the outer levels with cuts half way.

    Args:
        head: the regressor, one of :data:`embedstore.classify.heads.regression.REGRESSION_HEADS`.
        options: arguments of its constructor.
        random_state: random seed of the folds.

    Attributes:
        levels_: float64 ``(K,)``, the levels of the training rows, ascending.
        cut_points_: float64 ``(K - 1,)``, on the scale of ranks 0 to K - 1, ascending.
        head_: the fitted regressor of the rank.
    """

    def __init__(self, head: str = "ridge", options: dict[str, Any] | None = None, *, random_state: int = 0) -> None:
        self.head = head
        self.options = options
        self.random_state = random_state

    def fit(self, X: Array, y: Array, sample_weight: Array | None = None, groups: Array | None = None) -> OrdinalHead:
        """Fit the regressor, and choose the cut points on left-out rows.

        Args:
            X: features ``(N, D)``.
            y: levels ``(N,)``.
            sample_weight: ``(N,)``, at least 0.
            groups: ``(N,)``; rows of one group are left out together.

        Raises:
            LabelError: if there are more than 100 levels.
            BadHead: if an option or a weight is not valid.
        """
        X, y = validate_data(self, X, y, y_numeric=True)
        weights = None if sample_weight is None else check_sample_weight(sample_weight, len(y))
        self.levels_, ranks = np.unique(np.asarray(y, np.float64), return_inverse=True)
        if len(self.levels_) > MAX_LEVELS:
            raise LabelError(
                f"{len(self.levels_):,} different levels are more than {MAX_LEVELS}; give --task regression"
            )
        groups = np.arange(len(y)) if groups is None else np.asarray(groups)
        latent = self._left_out(X, ranks.astype(np.float64), weights, groups)
        self.cut_points_ = _best_cuts(latent, ranks, check_sample_weight(sample_weight, len(y)), len(self.levels_))
        self.head_ = fit_weighted(self._regressor(), X, ranks.astype(np.float64), weights=weights, groups=groups)
        return self

    def predict(self, X: Array) -> FloatArray:
        """Return levels, float64 ``(N,)``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return np.asarray(self.levels_[np.searchsorted(self.cut_points_, self.head_.predict(X), side="right")])

    def _regressor(self) -> Any:
        return make_regressor(self.head, **(self.options or {}))

    def _left_out(self, X: Array, ranks: FloatArray, weights: FloatArray | None, groups: Array) -> FloatArray:
        """Return the predicted rank of each row by a regressor that was not fitted on it; too few rows: their own."""
        n_folds = min(_FOLDS, len(np.unique(groups)))
        if n_folds < 2:
            return ranks
        out = ranks.copy()
        fold_of = numeric_group_folds(ranks, groups, n_folds, seed=self.random_state)
        for fold in range(n_folds):
            train, held_out = fold_of != fold, fold_of == fold
            if weights is not None and not weights[train].any():
                continue
            of_train = None if weights is None else weights[train]
            head = fit_weighted(self._regressor(), X[train], ranks[train], weights=of_train, groups=groups[train])
            out[held_out] = head.predict(X[held_out])
        return out


def _best_cuts(latent: FloatArray, ranks: IntArray, weights: FloatArray, n_levels: int) -> FloatArray:
    """Return the cut points with the highest quadratic kappa that moving one after the other finds."""
    cuts = np.arange(n_levels - 1) + 0.5
    candidates = np.unique(np.quantile(latent, np.linspace(0, 1, _CANDIDATES)))
    best = _kappa(latent, cuts, ranks, weights)
    for _ in range(_ROUNDS):
        before = best
        for k in range(len(cuts)):
            low = cuts[k - 1] if k else -np.inf
            high = cuts[k + 1] if k + 1 < len(cuts) else np.inf
            for place in candidates[(candidates > low) & (candidates < high)]:
                moved = cuts.copy()
                moved[k] = place
                kappa = _kappa(latent, moved, ranks, weights)
                if kappa > best + 1e-12:
                    best, cuts = kappa, moved
        if best <= before:
            break
    return cuts


def _kappa(latent: FloatArray, cuts: FloatArray, ranks: IntArray, weights: FloatArray) -> float:
    predicted = np.searchsorted(cuts, latent, side="right")
    return float(np.nan_to_num(quadratic_kappa(ranks, predicted, weights[None])[0], nan=-1.0))

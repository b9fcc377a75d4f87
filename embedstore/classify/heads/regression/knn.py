"""The mean number of the nearest neighbors."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray
from embedstore.classify.heads.knn import WeightedKNN


class KNNRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The k most similar rows, by cosine, predict the weighted mean of their numbers.

    Args:
        k: neighbors.
        weights: the weight of a neighbor: ``softmax`` (exp(cosine / temperature)), ``uniform`` or ``distance``.
        temperature: the temperature of ``softmax``.

    Attributes:
        neighbors_: the search for neighbors, a :class:`~embedstore.classify.heads.WeightedKNN` over the rows.
        numbers_: float64 ``(N,)``, the number of each row.
    """

    def __init__(self, k: int = 10, *, weights: str = "softmax", temperature: float = 0.07) -> None:
        self.k = k
        self.weights = weights
        self.temperature = temperature

    def fit(self, X: Array, y: Array) -> KNNRegressor:
        """Store the rows and their numbers.

        Args:
            X: features ``(N, D)``.
            y: numbers ``(N,)``.

        Raises:
            BadHead: if an option is not valid.
            ValueError: if X or y holds something else than finite numbers.
        """
        X, y = validate_data(self, X, y, y_numeric=True)
        self.numbers_ = np.asarray(y, np.float64)
        self.neighbors_ = WeightedKNN(self.k, weights=self.weights, temperature=self.temperature)
        self.neighbors_.fit(X, np.zeros(len(X), np.int64))
        return self

    def predict(self, X: Array) -> FloatArray:
        """Return numbers, float64 ``(N,)``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        cosines, rows = self.neighbors_.nearest_neighbors(X)
        votes = self.neighbors_.vote_weights(cosines)
        return np.asarray((votes * self.numbers_[rows]).sum(1) / votes.sum(1))

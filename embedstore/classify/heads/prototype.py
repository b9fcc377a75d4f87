"""The nearest class mean: one vector per class, no training, a strong baseline with few labels."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray, IntArray, unit_rows
from embedstore.classify.heads.base import LogitClassifier, check_classes
from embedstore.classify.heads.options import check_positive


def class_means(X: FloatArray, y: IntArray, n_classes: int) -> FloatArray:
    """Return the unit mean direction of each class's unit rows, float32 ``(K, D)``; zero for a class without rows."""
    sums = np.zeros((n_classes, X.shape[1]), np.float64)
    np.add.at(sums, y, X)
    return unit_rows(sums)


class NearestPrototype(LogitClassifier):
    """Each class is the mean direction of its unit rows; the score is the cosine (Snell et al. 2017, with cosine).

    Args:
        temperature: probabilities are softmax(cosine / temperature). 0.07 is DINO's (Caron et al. 2021).

    Attributes:
        classes_: labels ``(K,)``.
        prototypes_: float32 ``(K, D)``, unit rows.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        self.temperature = temperature

    def fit(self, X: Array, y: Array) -> NearestPrototype:
        """Average the unit rows of each class.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``.

        Raises:
            BadHead: if the temperature is not above 0.
        """
        check_positive("temperature", self.temperature)
        X, y = validate_data(self, X, y)
        check_classes(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.prototypes_ = class_means(unit_rows(X), codes, len(self.classes_))
        return self

    def _logits(self, X: Array) -> FloatArray:
        check_is_fitted(self)
        cosine = unit_rows(validate_data(self, X, reset=False)) @ self.prototypes_.T
        return np.asarray(cosine / np.float32(self.temperature))

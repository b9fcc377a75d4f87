"""What the classifiers with one logit per class have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from embedstore.arrays import Array, FloatArray, unit_rows
from embedstore.classify.heads.numerics import softmax
from embedstore.errors import DimensionMismatch


class LogitClassifier(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Labels and probabilities from ``_logits(X)``, ``(N, K)``. Subclasses set ``classes_``."""

    classes_: Array

    @abstractmethod
    def _logits(self, X: Array) -> FloatArray:
        """Return natural log odds up to a constant per row, ``(N, K)``."""

    def decision_function(self, X: Array) -> FloatArray:
        """Return logits ``(N, K)``; for two classes the second's minus the first's, ``(N,)``, as scikit-learn does."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Array) -> FloatArray:
        """Return probabilities ``(N, K)``."""
        return softmax(self._logits(X))

    def predict(self, X: Array) -> Array:
        """Return labels ``(N,)``; of equal logits the first class in order wins."""
        best = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])


def check_classes(y: Array) -> None:
    """Check that targets are classes. Text always is, however many different values there are.

    Raises:
        ValueError: if they are continuous numbers.
    """
    if y.dtype.kind == "U" or (y.dtype.kind == "O" and all(isinstance(value, str) for value in y.flat)):
        return
    check_classification_targets(y)


def unit_features(X: Array, dim: int) -> FloatArray:
    """Return features of an image-text space as unit rows, float32 ``(N, dim)``.

    Raises:
        DimensionMismatch: if the features are not ``(N, dim)``.
    """
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != dim:
        raise DimensionMismatch(f"the head's class vectors have {dim} dimensions, the features are {X.shape}")
    return unit_rows(X)

"""Any number of labels a row: one yes-or-no head a label."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from embedstore.arrays import Array, FloatArray
from embedstore.classify.data.labels import LABEL_THRESHOLD
from embedstore.classify.heads import make_head
from embedstore.errors import LabelError

_LONE_C = 1.0  # with examples of one kind in one group only, nothing can choose C
_NEED_TWO = ("lda", "mlp")  # heads that learn nothing from a single example


class OneVsRest(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """One two-class head a label; rows may have any number of labels.

    A label whose training rows all have it, or all lack it, has nothing to learn from and keeps that probability.

    Args:
        head: by name, one of :data:`embedstore.classify.heads.NAMES`. options: of its constructor.
        classes: the labels, in the order of the columns of Y; by default their numbers.

    Attributes:
        classes_: labels ``(K,)``. heads_: a fitted head or, where there was nothing to learn, a constant probability.
        unlearned_: the labels of such constants. multilabel_: False after one label a row, ``y (N,)``: then the labels
            exclude each other, and probabilities are scaled to sum to 1.
    """

    def __init__(self, head: str = "logistic", options: dict[str, Any] | None = None, classes: Any = None) -> None:
        self.head = head
        self.options = options
        self.classes = classes

    def fit(self, X: Array, y: Array, groups: Array | None = None) -> OneVsRest:
        """Fit every label.

        Args:
            X: features ``(N, D)``.
            y: bool or 0 and 1, ``(N, K)``: which labels each row has; or one label a row, ``(N,)``.
            groups: ``(N,)``; rows of one group stay together where the head cross-validates.

        Raises:
            LabelError: fewer than two labels, or another number of them than ``classes``.
        """
        X, y = validate_data(self, X, y, multi_output=True, dtype=(np.float32, np.float64))
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        check_classification_targets(y)
        self.multilabel_ = y.ndim == 2
        given = y.astype(bool) if self.multilabel_ else y[:, None] == np.unique(y)
        self.classes_ = self._named(given.shape[1]) if self.multilabel_ else np.unique(y)
        if len(self.classes_) < 2:
            raise LabelError(f"training has {len(self.classes_)} class; a classifier needs at least two")
        places = np.arange(len(X)) if groups is None else np.asarray(groups)
        self.heads_ = [self._one(X, column, places) for column in given.T]
        self.constant_labels_ = [
            str(c) for c, h in zip(self.classes_, self.heads_, strict=True) if isinstance(h, float)
        ]
        return self

    def predict_proba(self, X: Array) -> FloatArray:
        """Each label's own probability, float32 ``(M, K)``; rows do not sum to 1 where several labels may apply."""
        from embedstore.classify.heads.calibration import probabilities

        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=(np.float32, np.float64))
        columns = [np.full(len(X), h) if isinstance(h, float) else probabilities(h, X)[:, 1] for h in self.heads_]
        proba = np.stack(columns, axis=1).astype(np.float32)
        return proba if self.multilabel_ else proba / np.maximum(proba.sum(1, keepdims=True), 1e-30)

    def predict(self, X: Array) -> Array:
        """Which labels have a probability of at least one half, 0 or 1 ``(M, K)``; or the likeliest label ``(M,)``."""
        proba = self.predict_proba(X)
        return (proba >= LABEL_THRESHOLD).astype(np.int64) if self.multilabel_ else self.classes_[proba.argmax(1)]

    def _named(self, columns: int) -> Array:
        names = np.arange(columns) if self.classes is None else np.asarray(self.classes, dtype=object)
        if len(names) != columns:
            raise LabelError(f"there are {columns} columns of labels and {len(names)} names for them")
        return names

    def _one(self, X: Array, yes: Array, groups: Array) -> Any:
        spread = min(len(np.unique(groups[yes])), len(np.unique(groups[~yes])))
        if spread == 0 or (spread == 1 and self.head in _NEED_TWO):
            return float(yes.mean())
        options = dict(self.options or {})
        if self.head != "logistic":
            return make_head(self.head, **options).fit(X, yes.astype(np.int64))
        if spread == 1:
            options["Cs"] = [_LONE_C]
        options.setdefault("cv", min(5, spread))
        return make_head(self.head, **options).fit(X, yes.astype(np.int64), groups=groups)

    def __sklearn_tags__(self) -> Any:
        """It takes several labels a row."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

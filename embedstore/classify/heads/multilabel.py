"""Any number of labels per item: one two-class head per label."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from embedstore.arrays import Array, FloatArray
from embedstore.classify.data.labels import LABEL_THRESHOLD
from embedstore.classify.heads import make_head
from embedstore.classify.heads.base import check_classes
from embedstore.classify.heads.calibration import probabilities
from embedstore.classify.heads.sample_weights import drop_unweighted, fit_weighted
from embedstore.errors import LabelError

_SINGLE_GROUP_C = 1.0  # if one kind of example is in a single group, nothing can choose C
_NEED_TWO = ("lda", "mlp")  # heads that learn nothing from a single example
_DTYPES = (np.float32, np.float64)


class OneVsRest(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """One two-class head per label; rows may have any number of labels.

    A label that all training rows have, or that none has, cannot be learned; its share is predicted as a constant.

    Args:
        head: the name of the head of each label, one of :data:`embedstore.classify.heads.HEAD_NAMES`.
        options: arguments of the head's constructor.
        classes: the labels in the order of the columns of Y; by default their numbers.

    Attributes:
        classes_: labels ``(K,)``.
        heads_: for each label a fitted head or a constant probability.
        constant_labels_: the labels with a constant probability.
        multilabel_: False after ``y (N,)`` with one label per row: then the labels exclude each other, and
            probabilities are scaled to sum to 1.
    """

    def __init__(self, head: str = "logistic", options: dict[str, Any] | None = None, classes: Any = None) -> None:
        self.head = head
        self.options = options
        self.classes = classes

    def fit(self, X: Array, y: Array, groups: Array | None = None, sample_weight: Array | None = None) -> OneVsRest:
        """Fit every label.

        Args:
            X: features ``(N, D)``.
            y: bool or 0 and 1, ``(N, K)``, the labels of each row; or one label per row, ``(N,)``.
            groups: ``(N,)``; rows of one group stay together where the head cross-validates.
            sample_weight: ``(N,)``, at least 0, for heads that take weights of rows.

        Raises:
            BadHead: if weights are given and the head takes none, or one is negative or not finite.
            LabelError: if there are fewer than two labels, or another number of them than ``classes``.
        """
        X, y = validate_data(self, X, y, multi_output=True, dtype=_DTYPES)
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        check_classes(y)
        sample_weight, X, y, groups = drop_unweighted(sample_weight, X, y, groups)
        self.multilabel_ = y.ndim == 2
        members = y.astype(bool) if self.multilabel_ else y[:, None] == np.unique(y)
        self.classes_ = self._label_names(members.shape[1]) if self.multilabel_ else np.unique(y)
        if len(self.classes_) < 2:
            raise LabelError(f"training has {len(self.classes_)} class; a classifier needs at least two")
        groups = np.arange(len(X)) if groups is None else np.asarray(groups)
        self.heads_ = [self._fit_label(X, member, groups, sample_weight) for member in members.T]
        pairs = zip(self.classes_, self.heads_, strict=True)
        self.constant_labels_ = [str(label) for label, head in pairs if isinstance(head, float)]
        return self

    def predict_proba(self, X: Array) -> FloatArray:
        """Return each label's probability, float32 ``(M, K)``; rows sum to 1 only if labels exclude each other."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=_DTYPES)
        columns = [np.full(len(X), h) if isinstance(h, float) else probabilities(h, X)[:, 1] for h in self.heads_]
        proba = np.stack(columns, axis=1).astype(np.float32)
        return proba if self.multilabel_ else proba / np.maximum(proba.sum(1, keepdims=True), 1e-30)

    def predict(self, X: Array) -> Array:
        """Return 0 or 1 for each label, ``(M, K)``: 1 from a probability of 0.5; or the likeliest label, ``(M,)``."""
        proba = self.predict_proba(X)
        return (proba >= LABEL_THRESHOLD).astype(np.int64) if self.multilabel_ else self.classes_[proba.argmax(1)]

    def _label_names(self, columns: int) -> Array:
        names = np.arange(columns) if self.classes is None else np.asarray(self.classes, dtype=object)
        if len(names) != columns:
            raise LabelError(f"there are {columns} columns of labels and {len(names)} names for them")
        return names

    def _fit_label(self, X: Array, member: Array, groups: Array, weights: FloatArray | None) -> Any:
        n_groups = min(len(np.unique(groups[member])), len(np.unique(groups[~member])))
        if n_groups == 0 or (n_groups == 1 and self.head in _NEED_TWO):
            return float(np.average(member, weights=weights))
        options = dict(self.options or {})
        if self.head != "logistic":
            return fit_weighted(
                make_head(self.head, **options), X, member.astype(np.int64), weights=weights, groups=groups
            )
        if n_groups == 1:
            options["Cs"] = [_SINGLE_GROUP_C]
        options.setdefault("cv", min(5, n_groups))
        return make_head(self.head, **options).fit(X, member.astype(np.int64), groups=groups, sample_weight=weights)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that a row may have several labels."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

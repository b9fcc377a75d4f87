"""Heads that answer with sets of classes, which contain the true one at a stated rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.data.labels import LABEL_THRESHOLD, encode_labels
from embedstore.classify.heads.calibration import HeadWrapper, probabilities
from embedstore.errors import LabelError


class ConformalSets(HeadWrapper):
    """Sets of classes that contain the true one with probability 1 - alpha, for exchangeable rows.

    Split conformal prediction with the score 1 - p(true class): Vovk et al. 2005; Sadinle, Lei and Wasserman 2019.
    With ``by_class`` every class has a threshold of its own, chosen on its own rows ("Mondrian", Vovk et al. 2005): the
    rate then holds for the rows of each class, also of a rare one, and the sets are larger.

    Args:
        head: a fitted classifier.
        alpha: share of rows whose set may miss the true class.
        by_class: keep the share within every class.

    Attributes:
        threshold_: a class is in the set if its probability is at least this, one number or one per class ``(K,)``; 0
            (always) if there are too few held-out rows for the guarantee.
    """

    def __init__(self, head: Any, alpha: float = 0.1, *, by_class: bool = False) -> None:
        self.head = head
        self.alpha = alpha
        self.by_class = by_class

    def fit(self, X: Array, y: Array) -> ConformalSets:
        """Choose the threshold on rows that the head was not trained on.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``.

        Raises:
            LabelError: if there are no rows, or a label is not among the head's classes.
            ValueError: if alpha is outside (0, 1).
        """
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), not {self.alpha}")
        if len(y) == 0:
            raise LabelError("no held-out rows to calibrate on")
        columns: IntArray = encode_labels(y, self.classes_)
        scores = _stored(probabilities(self.head, X))[np.arange(len(columns)), columns]
        if self.by_class:
            by_column = [scores[columns == k] for k in range(len(self.classes_))]
            self.threshold_: Any = np.array([_threshold(s, self.alpha) for s in by_column], dtype=np.float32)
        else:
            self.threshold_ = _threshold(scores, self.alpha)
        return self

    def members(self, proba: FloatArray) -> Array:
        """Return which classes the set of each row contains, bool ``(N, K)``; the same for float32 and float64."""
        return np.asarray(_stored(proba) >= self.threshold_)

    def predict_set(self, X: Array) -> Array:
        """Return which classes each set contains, bool ``(N, K)``; a set may be empty."""
        return self.members(self.predict_proba(X))


def _threshold(scores: FloatArray, alpha: float) -> float:
    """Return the score that all but a share alpha of new rows reach; 0 if there are too few rows to know."""
    descending = np.sort(scores)[::-1]
    rank = math.ceil((len(descending) + 1) * (1 - alpha))
    return float(descending[rank - 1]) if rank <= len(descending) else 0.0


def _stored(proba: FloatArray) -> FloatArray:
    """Return probabilities in float32, in which they are stored."""
    return np.asarray(proba, dtype=np.float32)


def predicts_sets(head: Any) -> bool:
    """Return whether a head predicts any number of classes for a row."""
    return isinstance(head, ConformalSets) or bool(getattr(head, "multilabel_", False))


def set_members(head: Any, proba: FloatArray) -> Array:
    """Return which classes a head that predicts sets includes, bool ``(N, K)``.

    Args:
        head: a head of which :func:`predicts_sets` is true; one of several labels includes a class from 0.5.
        proba: its probabilities ``(N, K)``.
    """
    return head.members(proba) if isinstance(head, ConformalSets) else np.asarray(proba >= LABEL_THRESHOLD)

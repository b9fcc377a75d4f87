"""A threshold for each label, where an item may have several: the one with the highest F1 on held-out rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray
from embedstore.classify.data.labels import LABEL_THRESHOLD
from embedstore.classify.heads.calibration import HeadWrapper, probabilities
from embedstore.errors import LabelError

_EDGE = 1e-6  # a threshold stays this far from 0 and 1


class LabelThresholds(HeadWrapper):
    """A fitted head of several labels whose scores are scaled so that the threshold of each label is one half.

    Every use of the head takes a label from one half on, so the thresholds hold everywhere. The order of the rows by a
    label is unchanged; the scores are no probabilities.

    Args:
        head: a fitted head of several labels.

    Attributes:
        thresholds_: float64 ``(K,)``, on the scale of the head's probabilities.
    """

    def __init__(self, head: Any) -> None:
        self.head = head

    def fit(self, X: Array, y: Array) -> LabelThresholds:
        """Choose the thresholds.

        Args:
            X: features ``(N, D)`` of rows that did not train the head.
            y: 0 and 1, ``(N, K)``.

        Raises:
            LabelError: if the head predicts one label per item.
        """
        if not self.multilabel_:
            raise LabelError("thresholds of labels need a head that predicts several labels per item")
        proba = np.asarray(probabilities(self.head, X), np.float64)
        pairs = zip(proba.T, np.asarray(y).T, strict=True)
        self.thresholds_ = np.array([best_threshold(scores, labels > 0) for scores, labels in pairs])
        return self

    def predict_proba(self, X: Array) -> FloatArray:
        """Return scores ``(N, K)``, one half at the threshold of each label."""
        proba, t = super().predict_proba(X), self.thresholds_
        above = 0.5 + 0.5 * (proba - t) / (1 - t)
        return np.asarray(np.where(proba >= t, above, 0.5 * proba / t), proba.dtype)


def best_threshold(scores: FloatArray, labels: Array) -> float:
    """Return the threshold with the highest F1; of equal ones the one nearest to one half.

    It lies half way between two scores. Where no row or every row has the label it is one half.

    Args:
        scores: ``(N,)``.
        labels: bool ``(N,)``.
    """
    if not labels.any() or labels.all():
        return LABEL_THRESHOLD
    values, place = np.unique(scores, return_inverse=True)
    hits = np.bincount(place, labels)[::-1].cumsum()[::-1]  # of rows from each value on
    predicted = np.bincount(place)[::-1].cumsum()[::-1]
    f1 = 2 * hits / (labels.sum() + predicted)
    cuts = np.append(values[0] / 2, (values[1:] + values[:-1]) / 2)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    cut = float(cuts[best[np.abs(cuts[best] - LABEL_THRESHOLD).argmin()]])
    return min(max(cut, _EDGE), 1 - _EDGE)

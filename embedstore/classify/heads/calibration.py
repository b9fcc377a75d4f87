"""Calibrated probabilities, and what wrappers that are fitted on held-out rows have in common."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from embedstore.arrays import Array, FloatArray
from embedstore.classify.data.labels import LABEL_THRESHOLD, encode_labels
from embedstore.classify.heads.numerics import log_loss, softmax
from embedstore.classify.heads.options import parse_option
from embedstore.errors import LabelError

Curve = tuple[FloatArray, FloatArray]
"""Increasing scores and the probabilities at them; linear in between."""


def logits(head: Any, X: Array) -> FloatArray:
    """Return one logit per class from any fitted classifier, ``(N, K)``.

    They come from ``decision_function`` if there is one (for two classes half the margin each way), else they are the
    logarithm of ``predict_proba``.
    """
    if not hasattr(head, "decision_function"):
        proba = np.asarray(head.predict_proba(X))
        return np.asarray(np.log(np.maximum(proba, np.finfo(proba.dtype).eps)))
    margin = np.asarray(head.decision_function(X))
    return np.stack([-margin / 2, margin / 2], axis=1) if margin.ndim == 1 else margin


def probabilities(head: Any, X: Array) -> FloatArray:
    """Return probabilities from any fitted classifier, ``(N, K)``; rows sum to 1 unless it predicts several labels.

    A head without ``predict_proba`` (``svm``, ``ridge``) gives the softmax of its margins: good for ranking, not
    calibrated. Wrap it in :class:`CalibratedHead` to calibrate it.
    """
    if hasattr(head, "predict_proba"):
        return np.asarray(head.predict_proba(X))
    return softmax(logits(head, X))


class HeadWrapper(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted head and what was learned from held-out rows."""

    head: Any

    @property
    def classes_(self) -> Array:
        """Labels ``(K,)`` of the head."""
        return np.asarray(self.head.classes_)

    @property
    def n_features_in_(self) -> int:
        """The number of features of the head."""
        return int(self.head.n_features_in_)

    @property
    def multilabel_(self) -> bool:
        """Whether an item may have several labels."""
        return bool(getattr(self.head, "multilabel_", False))

    def predict_proba(self, X: Array) -> FloatArray:
        """Return the head's probabilities ``(N, K)``."""
        check_is_fitted(self)
        return probabilities(self.head, X)

    def predict(self, X: Array) -> Array:
        """Return labels ``(N,)``; for a head of several labels 0 or 1 for each, ``(N, K)``."""
        proba = self.predict_proba(X)
        if self.multilabel_:
            return (proba >= LABEL_THRESHOLD).astype(np.int64)
        return np.asarray(self.classes_[proba.argmax(axis=1)])


class CalibrationMethod(StrEnum):
    """How scores become calibrated probabilities."""

    TEMPERATURE = "temperature"  # one number for all classes (Guo et al. 2017); keeps every prediction
    ISOTONIC = "isotonic"  # a monotone curve per class (Zadrozny and Elkan 2002); needs about 1,000 rows


class CalibratedHead(HeadWrapper):
    """A fitted head with calibrated probabilities. The head itself is never refitted.

    Where an item may have several labels, each label is a decision of its own: one temperature for all of them, or one
    curve each.

    Args:
        head: a fitted classifier.
        method: ``temperature`` or ``isotonic``.

    Attributes:
        temperature_: logits are divided by it (``temperature``).
        curves_: for each class increasing scores and the probabilities at them (``isotonic``).
    """

    def __init__(self, head: Any, method: str = "temperature") -> None:
        self.head = head
        self.method = method

    def fit(self, X: Array, y: Array) -> CalibratedHead:
        """Fit on rows that the head was not trained on.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``; for a head of several labels 0 and 1, ``(N, K)``.

        Raises:
            LabelError: if there are no rows, or a label is not among the head's classes.
            ValueError: if there is no such method.
        """
        if len(y) == 0:
            raise LabelError("no held-out rows to calibrate on")
        target = np.asarray(y).astype(bool) if self.multilabel_ else encode_labels(y, self.classes_)
        match parse_option("method", self.method, CalibrationMethod):
            case CalibrationMethod.TEMPERATURE:
                self.temperature_ = _fit_temperature(self.head, X, target)
            case CalibrationMethod.ISOTONIC:
                self.curves_ = _fit_curves(self.head, X, target)
        return self

    def predict_proba(self, X: Array) -> FloatArray:
        """Return calibrated probabilities ``(N, K)``."""
        check_is_fitted(self)
        match parse_option("method", self.method, CalibrationMethod):
            case CalibrationMethod.TEMPERATURE:
                return _apply_temperature(self.head, X, self.temperature_, multilabel=self.multilabel_)
            case CalibrationMethod.ISOTONIC:
                return _apply_curves(self.head, X, self.curves_, multilabel=self.multilabel_)


def _fit_temperature(head: Any, X: Array, target: Array) -> float:
    """Return the temperature of the lowest log-loss, between 1e-3 and 1e3.

    Args:
        head: a fitted classifier.
        X: features ``(N, D)``.
        target: int ``(N,)``, the column of each row's class; or bool ``(N, K)``, the labels of each row.
    """
    from scipy.optimize import minimize_scalar

    if target.ndim == 2:
        half = _log_odds(probabilities(head, X)).ravel() / 2
        scores, codes = np.stack([-half, half], 1), target.ravel().astype(np.int64)
    else:
        scores, codes = logits(head, X).astype(np.float64), target
    optimum = minimize_scalar(
        lambda t: log_loss(scores * np.exp(-t), codes),
        bounds=(-math.log(1e3), math.log(1e3)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(optimum.x))


def _apply_temperature(head: Any, X: Array, temperature: float, *, multilabel: bool) -> FloatArray:
    if multilabel:
        return np.asarray(1 / (1 + np.exp(-_log_odds(probabilities(head, X)) / temperature)))
    return softmax(logits(head, X) / temperature)


def _fit_curves(head: Any, X: Array, target: Array) -> list[Curve]:
    """Return a curve per class; the identity where the rows are all of one kind. Arguments as above."""
    from sklearn.isotonic import IsotonicRegression

    proba = probabilities(head, X).astype(float)
    members = target if target.ndim == 2 else target[:, None] == np.arange(proba.shape[1])
    curves = []
    for scores, member in zip(proba.T, members.T, strict=True):
        if member.all() or not member.any():
            curves.append((np.array([0.0, 1.0]), np.array([0.0, 1.0])))
            continue
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, member)
        curves.append((fitted.X_thresholds_, fitted.y_thresholds_))
    return curves


def _apply_curves(head: Any, X: Array, curves: list[Curve], *, multilabel: bool) -> FloatArray:
    raw = probabilities(head, X).astype(np.float64)
    calibrated = np.stack([np.interp(raw[:, k], *curve) for k, curve in enumerate(curves)], axis=1)
    if multilabel:
        return calibrated
    total = calibrated.sum(axis=1, keepdims=True)
    return np.where(total > 0, calibrated / np.where(total > 0, total, 1), raw)  # all curves may be 0: keep the head's


def _log_odds(proba: FloatArray) -> FloatArray:
    """Return the logarithm of p / (1 - p), finite."""
    p = np.clip(proba.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p / (1 - p)))

"""Wrappers fitted on held-out rows: calibrated probabilities, "none of these", and prediction sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from embedstore.arrays import Array, FloatArray, IntArray
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


def membership_threshold(head: Any) -> float | None:
    """Return the probability from which a head that predicts sets of classes includes a class.

    Returns:
        The threshold of :class:`ConformalSets`, 0.5 for a head of several labels, or None for a head that predicts one
        class.
    """
    if isinstance(head, ConformalSets):
        return float(head.threshold_)
    return LABEL_THRESHOLD if getattr(head, "multilabel_", False) else None


class _HeadWrapper(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
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


class CalibratedHead(_HeadWrapper):
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


class SelectiveClassifier(_HeadWrapper):
    """Predict "none of these" below a threshold chosen for a target precision.

    Args:
        head: a fitted classifier.
        target_precision: share of the answered rows that shall be correct.
        abstain_label: what is predicted below the threshold.

    Attributes:
        threshold_: the lowest probability that is answered; above 1 if no threshold reaches the target.
        precision_: share correct among the answered rows of ``fit``.
        coverage_: share of the rows of ``fit`` that were answered.
    """

    def __init__(self, head: Any, target_precision: float = 0.95, abstain_label: Any = "none of these") -> None:
        self.head = head
        self.target_precision = target_precision
        self.abstain_label = abstain_label

    def fit(self, X: Array, y: Array) -> SelectiveClassifier:
        """Choose the threshold of the largest coverage that keeps the target precision on held-out rows.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``; a label that is not among the head's classes is allowed, and always a wrong answer.

        Raises:
            LabelError: if there are no rows.
            ValueError: if the precision is outside (0, 1].
        """
        if not 0 < self.target_precision <= 1:
            raise ValueError(f"target_precision must be in (0, 1], not {self.target_precision}")
        if len(y) == 0:
            raise LabelError("no held-out rows to choose a threshold on")
        proba = probabilities(self.head, X)
        correct = self.classes_[proba.argmax(1)] == np.asarray(y)
        chosen = choose_threshold(proba.max(1), correct, self.target_precision)
        self.threshold_, self.precision_, self.coverage_ = chosen.threshold, chosen.precision, chosen.coverage
        return self

    def predict(self, X: Array) -> Array:
        """Return labels ``(N,)``, ``abstain_label`` below the threshold; objects, so that any kind of label fits."""
        proba = self.predict_proba(X)
        out = self.classes_[proba.argmax(1)].astype(object)
        out[proba.max(1) < self.threshold_] = self.abstain_label
        return np.asarray(out)


@dataclass(frozen=True, slots=True)
class SelectiveThreshold:
    """A threshold for answering, and what it gives.

    Attributes:
        threshold: the lowest confidence that is answered.
        precision: share correct among the answered rows.
        coverage: share of the rows that are answered.
    """

    threshold: float
    precision: float
    coverage: float


def choose_threshold(confidence: FloatArray, correct: Array, target_precision: float) -> SelectiveThreshold:
    """Return the threshold of the largest coverage whose precision is at least the target.

    Args:
        confidence: float ``(N,)``.
        correct: bool ``(N,)``, whether the answer is correct.
        target_precision: the least precision.

    Returns:
        A threshold just above the highest confidence, with precision NaN and coverage 0, if none reaches the target.
    """
    order = np.argsort(-confidence, kind="stable")
    descending = confidence[order]
    is_last = np.r_[descending[1:] != descending[:-1], True]  # rows of equal confidence are answered together
    precision = np.cumsum(correct[order]) / np.arange(1, len(descending) + 1)
    candidates = np.flatnonzero(is_last & (precision >= target_precision))
    if len(candidates) == 0:
        return SelectiveThreshold(float(np.nextafter(descending[0], np.inf)), math.nan, 0.0)
    at = candidates[-1]
    return SelectiveThreshold(float(descending[at]), float(precision[at]), float((at + 1) / len(descending)))


class ConformalSets(_HeadWrapper):
    """Sets of classes that contain the true one with probability 1 - alpha, for exchangeable rows.

    Split conformal prediction with the score 1 - p(true class): Vovk et al. 2005; Sadinle, Lei and Wasserman 2019.

    Args:
        head: a fitted classifier.
        alpha: share of rows whose set may miss the true class.

    Attributes:
        threshold_: a class is in the set if its probability is at least this; 0 (every class) if there are too few
            held-out rows for the guarantee.
    """

    def __init__(self, head: Any, alpha: float = 0.1) -> None:
        self.head = head
        self.alpha = alpha

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
        descending = np.sort(probabilities(self.head, X)[np.arange(len(columns)), columns])[::-1]
        rank = math.ceil((len(descending) + 1) * (1 - self.alpha))
        self.threshold_ = float(descending[rank - 1]) if rank <= len(descending) else 0.0
        return self

    def predict_set(self, X: Array) -> Array:
        """Return which classes each set contains, bool ``(N, K)``; a set may be empty."""
        return np.asarray(self.predict_proba(X) >= self.threshold_)

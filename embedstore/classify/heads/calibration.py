"""Scores that mean what they say: calibration, "none of these", and prediction sets, all on held-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.data.labels import encode_labels
from embedstore.classify.heads.numerics import log_loss, softmax
from embedstore.classify.heads.options import parse_option
from embedstore.errors import LabelError


class CalibrationMethod(StrEnum):
    """How scores become calibrated probabilities."""

    TEMPERATURE = "temperature"  # one number for all classes (Guo et al. 2017); keeps every prediction
    ISOTONIC = "isotonic"  # a monotone step curve a class (Zadrozny and Elkan 2002); wants about 1,000 rows


def logits(head: Any, X: Array) -> FloatArray:
    """One logit a class from any fitted classifier, ``(N, K)``.

    From ``decision_function`` where there is one (two classes: half the margin each way), else the logarithm of
    ``predict_proba``.
    """
    if not hasattr(head, "decision_function"):
        proba = np.asarray(head.predict_proba(X))
        return np.asarray(np.log(np.maximum(proba, np.finfo(proba.dtype).eps)))
    margin = np.asarray(head.decision_function(X))
    return np.stack([-margin / 2, margin / 2], axis=1) if margin.ndim == 1 else margin


def probabilities(head: Any, X: Array) -> FloatArray:
    """Rows that sum to 1 from any fitted classifier, ``(N, K)``.

    A head without ``predict_proba`` (``svm``, ``ridge``) gives the softmax of its margins: good for ranking, not
    calibrated; wrap it in :class:`Calibrated` for that.
    """
    if hasattr(head, "predict_proba"):
        return np.asarray(head.predict_proba(X))
    return softmax(logits(head, X))


def membership_threshold(head: Any) -> float | None:
    """The probability from which a class is in the answer of a head that answers with sets: one of several labels a
    row, or :class:`ConformalSets`; None for a head that names one class.
    """  # noqa: D205
    if isinstance(head, ConformalSets):
        return float(head.threshold_)
    return 0.5 if getattr(head, "multilabel_", False) else None


class _Wrapper(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted head and what held-out rows say of it."""

    head: Any

    @property
    def classes_(self) -> Array:
        """Labels ``(K,)``, the head's own."""
        return np.asarray(self.head.classes_)

    @property
    def n_features_in_(self) -> int:
        """D, the head's own."""
        return int(self.head.n_features_in_)

    def predict_proba(self, X: Array) -> FloatArray:
        """Probabilities ``(N, K)``, the head's own unless the wrapper changes them."""
        check_is_fitted(self)
        return probabilities(self.head, X)

    @property
    def multilabel_(self) -> bool:
        """Whether a row may have several labels, as the head says."""
        return bool(getattr(self.head, "multilabel_", False))

    def predict(self, X: Array) -> Array:
        """Labels ``(N,)``; of several labels a row, 0 or 1 each ``(N, K)``."""
        proba = self.predict_proba(X)
        if self.multilabel_:
            return (proba >= 0.5).astype(np.int64)
        return np.asarray(self.classes_[proba.argmax(axis=1)])


class CalibratedHead(_Wrapper):
    """A fitted head with calibrated probabilities. The head itself is never refitted.

    Args:
        head: fitted. method: ``temperature`` or ``isotonic``.

    Attributes:
        temperature_: logits are divided by it (``temperature``). curves_: for each class the increasing scores and
            the probabilities at them, straight in between (``isotonic``). Of several labels a row, each is a yes or no
            of its own: one temperature for all of them, or a curve each.
    """

    def __init__(self, head: Any, method: str = "temperature") -> None:
        self.head = head
        self.method = method

    def fit(self, X: Array, y: Array) -> CalibratedHead:
        """Fit on rows that the head has not seen.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``; for a head of several labels 0 and 1, ``(N, K)``.

        Raises:
            LabelError: no rows, or a label that the head does not know.
        """
        if self.multilabel_:
            return self._fit_labels(probabilities(self.head, X), np.asarray(y).astype(bool))
        column = _columns(y, self.classes_)
        match parse_option("method", self.method, CalibrationMethod):
            case CalibrationMethod.TEMPERATURE:
                self.temperature_ = _best_temperature(logits(self.head, X), column)
            case CalibrationMethod.ISOTONIC:
                self.curves_ = _isotonic(probabilities(self.head, X), column[:, None] == np.arange(len(self.classes_)))
        return self

    def _fit_labels(self, proba: FloatArray, yes: Array) -> CalibratedHead:
        if len(yes) == 0:
            raise LabelError("no held-out rows to calibrate on")
        match parse_option("method", self.method, CalibrationMethod):
            case CalibrationMethod.TEMPERATURE:
                half = _odds(proba).ravel() / 2
                self.temperature_ = _best_temperature(np.stack([-half, half], 1), yes.ravel().astype(np.int64))
            case CalibrationMethod.ISOTONIC:
                self.curves_ = _isotonic(proba, yes)
        return self

    def predict_proba(self, X: Array) -> FloatArray:
        """Calibrated probabilities ``(N, K)``."""
        check_is_fitted(self)
        if parse_option("method", self.method, CalibrationMethod) is CalibrationMethod.TEMPERATURE:
            if self.multilabel_:
                return np.asarray(1 / (1 + np.exp(-_odds(probabilities(self.head, X)) / self.temperature_)))
            return softmax(logits(self.head, X) / self.temperature_)
        raw = probabilities(self.head, X).astype(np.float64)
        each = np.stack([np.interp(raw[:, k], *curve) for k, curve in enumerate(self.curves_)], axis=1)
        if self.multilabel_:
            return each
        total = each.sum(axis=1, keepdims=True)
        return np.where(total > 0, each / np.where(total > 0, total, 1), raw)  # where all curves say 0, as it was


class SelectiveClassifier(_Wrapper):
    """Say "none of these" below a threshold chosen for a target precision.

    Args:
        head: fitted. precision: share of the answers that shall be right. other: what is said instead.

    Attributes:
        threshold_: the least probability that is answered; above 1 when no threshold meets the target.
        precision_, coverage_: share right among the answered and share answered, on the rows of ``fit``.
    """

    def __init__(self, head: Any, target_precision: float = 0.95, abstain_label: Any = "none of these") -> None:
        self.head = head
        self.target_precision = target_precision
        self.abstain_label = abstain_label

    def fit(self, X: Array, y: Array) -> SelectiveClassifier:
        """Choose the threshold of the largest coverage that keeps the target precision on held-out rows.

        Labels that the head does not know are allowed: such a row can only be answered wrongly.

        Raises:
            LabelError: no rows.
            ValueError: a precision outside (0, 1].
        """
        if not 0 < self.target_precision <= 1:
            raise ValueError(f"precision must be in (0, 1], not {self.target_precision}")
        if len(y) == 0:
            raise LabelError("no held-out rows to choose a threshold on")
        proba = probabilities(self.head, X)
        right = self.classes_[proba.argmax(1)] == np.asarray(y)
        chosen = choose_threshold(proba.max(1), right, self.target_precision)
        self.threshold_, self.precision_, self.coverage_ = chosen.threshold, chosen.precision, chosen.coverage
        return self

    def predict(self, X: Array) -> Array:
        """Labels ``(N,)``, ``other`` where the head is not sure enough; objects, so that any kind of label fits."""
        proba = self.predict_proba(X)
        out = self.classes_[proba.argmax(1)].astype(object)
        out[proba.max(1) < self.threshold_] = self.abstain_label
        return np.asarray(out)


@dataclass(frozen=True, slots=True)
class SelectiveThreshold:
    """Answer at or above ``threshold``: ``precision`` of the answers are right, ``coverage`` of the rows answered."""

    threshold: float
    precision: float
    coverage: float


def choose_threshold(confidence: FloatArray, correct: Array, target_precision: float) -> SelectiveThreshold:
    """The threshold of the largest coverage whose precision is at least the target.

    Args:
        confidence: ``(N,)``. right: bool ``(N,)``. precision: the target.

    Returns:
        A threshold just above the highest confidence, with precision NaN and coverage 0, when none reaches it.
    """
    order = np.argsort(-confidence, kind="stable")
    sure = confidence[order]
    last = np.r_[sure[1:] != sure[:-1], True]  # rows of equal confidence are answered together
    share = np.cumsum(correct[order]) / np.arange(1, len(sure) + 1)
    good = np.flatnonzero(last & (share >= target_precision))
    if len(good) == 0:
        return SelectiveThreshold(float(np.nextafter(sure[0], np.inf)), math.nan, 0.0)
    at = good[-1]
    return SelectiveThreshold(float(sure[at]), float(share[at]), float((at + 1) / len(sure)))


class ConformalSets(_Wrapper):
    """Sets of classes that hold the true one with probability 1 - alpha, for exchangeable rows.

    Split conformal prediction with the score 1 - p(true class): Vovk et al. 2005; Sadinle, Lei and Wasserman 2019.

    Args:
        head: fitted. alpha: share of rows whose set may miss the true class.

    Attributes:
        threshold_: a class is in the set when its probability is at least this; 0 (every class) when there are too
            few held-out rows for the guarantee.
    """

    def __init__(self, head: Any, alpha: float = 0.1) -> None:
        self.head = head
        self.alpha = alpha

    def fit(self, X: Array, y: Array) -> ConformalSets:
        """Find the threshold on rows that the head has not seen.

        Raises:
            LabelError: no rows, or a label that the head does not know.
            ValueError: an alpha outside (0, 1).
        """
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), not {self.alpha}")
        column = _columns(y, self.classes_)
        true = np.sort(probabilities(self.head, X)[np.arange(len(column)), column])[::-1]
        rank = math.ceil((len(true) + 1) * (1 - self.alpha))
        self.threshold_ = float(true[rank - 1]) if rank <= len(true) else 0.0
        return self

    def predict_set(self, X: Array) -> Array:
        """Membership, bool ``(N, K)``; a set may be empty or hold several classes."""
        return np.asarray(self.predict_proba(X) >= self.threshold_)


def _columns(y: Array, classes: Array) -> IntArray:
    if len(y) == 0:
        raise LabelError("no held-out rows to calibrate on")
    return encode_labels(y, classes)


def _best_temperature(scores: FloatArray, y: IntArray) -> float:
    """The temperature of least log-loss, between 1e-3 and 1e3."""
    from scipy.optimize import minimize_scalar

    scores = scores.astype(np.float64)
    found = minimize_scalar(
        lambda t: log_loss(scores * np.exp(-t), y),
        bounds=(-math.log(1e3), math.log(1e3)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def _odds(proba: FloatArray) -> FloatArray:
    """Logarithms of p / (1 - p), finite."""
    p = np.clip(proba.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p / (1 - p)))


def _isotonic(proba: FloatArray, yes: Array) -> list[tuple[FloatArray, FloatArray]]:
    """A curve a column; where the rows are all of one kind, nothing is changed."""
    from sklearn.isotonic import IsotonicRegression

    curves = []
    for score, true in zip(proba.astype(float).T, yes.T, strict=True):
        if true.all() or not true.any():
            curves.append((np.array([0.0, 1.0]), np.array([0.0, 1.0])))
            continue
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, true)
        curves.append((fitted.X_thresholds_, fitted.y_thresholds_))
    return curves

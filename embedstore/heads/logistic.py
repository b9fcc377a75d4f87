"""Logistic regression whose C is chosen by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.errors import LabelError
from embedstore.heads._rows import Array, Floats, Ints


@dataclass(frozen=True, slots=True)
class CPoint:
    """One C of the path, judged out of fold.

    Attributes:
        C: inverse strength of the penalty. log_loss, accuracy: means over the folds.
        fold_log_loss, fold_accuracy: of each fold.
    """

    C: float
    log_loss: float
    accuracy: float
    fold_log_loss: tuple[float, ...]
    fold_accuracy: tuple[float, ...]


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """first version."""

    def __init__(
        self,
        Cs: int | Sequence[float] = 25,
        cv: int = 5,
        *,
        tol: float = 1e-5,
        max_iter: int = 1000,
        patience: int = 2,
        random_state: int = 0,
        device: str = "auto",
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.tol = tol
        self.max_iter = max_iter
        self.patience = patience
        self.random_state = random_state
        self.device = device

    def fit(self, X: Array, y: Array, groups: Array | None = None) -> LogisticProbe:
        X, y = validate_data(self, X, y, dtype=(np.float32, np.float64))
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise LabelError(f"labels hold one class, {self.classes_[0]!r}; a classifier needs at least two")
        Cs = np.logspace(-6, 6, self.Cs) if isinstance(self.Cs, int) else np.sort(np.asarray(self.Cs, float))
        folds = self._folds(X, codes, groups)
        self.path_ = []
        for C in Cs:
            losses, accs = [], []
            for train, test in folds:
                m = LogisticRegression(C=C, max_iter=self.max_iter).fit(X[train], codes[train])
                p = np.zeros((len(test), len(self.classes_)))
                p[:, m.classes_] = m.predict_proba(X[test])
                losses.append(float(-np.log(np.maximum(p[np.arange(len(test)), codes[test]], 1e-15)).mean()))
                accs.append(float((p.argmax(1) == codes[test]).mean()))
            self.path_.append(
                CPoint(float(C), float(np.mean(losses)), float(np.mean(accs)), tuple(losses), tuple(accs))
            )
            best = min(range(len(self.path_)), key=lambda i: self.path_[i].log_loss)
            if len(self.path_) - 1 - best >= self.patience:
                break
        self.C_ = self.path_[best].C
        self.estimator_ = LogisticRegression(C=self.C_, max_iter=self.max_iter).fit(X, y)
        self.coef_, self.intercept_ = self.estimator_.coef_, self.estimator_.intercept_
        return self

    def _folds(self, X: Array, y: Ints, groups: Array | None) -> list[tuple[Ints, Ints]]:
        n = min(self.cv, int(np.bincount(y).max()))
        splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(
            n, shuffle=True, random_state=self.random_state
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return list(splitter.split(np.zeros(len(y)), y, groups))

    def predict_proba(self, X: Array) -> Floats:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return self.estimator_.predict_proba(X)

    def predict(self, X: Array) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return self.estimator_.predict(X)

    def decision_function(self, X: Array) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return self.estimator_.decision_function(X)

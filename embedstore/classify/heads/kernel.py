"""Logistic regression with a radial kernel: classes that no plane separates, for up to a few thousand rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray, unit_rows
from embedstore.classify.heads.base import LogitClassifier
from embedstore.classify.heads.linear.folds import Folds
from embedstore.classify.heads.linear.probe import LogisticProbe
from embedstore.classify.heads.linear.regularization_path import RegularizationPoint
from embedstore.classify.heads.numerics import blocks
from embedstore.classify.heads.options import check_positives
from embedstore.errors import BadHead

MAX_ROWS = 3000  # the kernel of all pairs takes rows^2 numbers, and its eigenvectors rows^3 operations: some seconds
_MIN_EIGENVALUE = 1e-7  # relative to the largest: below it a coordinate is rounding
_MEDIAN_ROWS = 1000  # rows whose distances set the scale
_BLOCK = 2048


class KernelProbe(LogitClassifier):
    """Kernel logistic regression on unit vectors, with an L2 penalty.

    The kernel is exp(-gamma |x - y|^2) (Zhu and Hastie 2005). Its rows are written in coordinates whose inner products
    are the kernel's (kernel PCA, Schoelkopf et al. 1998), and :class:`LogisticProbe` is fitted to these. So C is chosen
    by the out-of-fold log-loss, with groups on one side, and gamma by the lowest of these losses.

    Args:
        gammas: values of gamma to try, in units of 1 / the median squared distance of the rows.
        Cs: as for :class:`LogisticProbe`.
        cv: as for :class:`LogisticProbe`.
        C: one fixed value; then gamma is the middle one of ``gammas``, and nothing is chosen.
        random_state: random seed of the folds.

    Attributes:
        classes_: labels ``(K,)``.
        gamma_: the chosen value, per squared distance of unit vectors.
        gammas_: float64 ``(G,)``, the values that were tried, ascending, in the same unit.
        C_: the chosen value.
        support_: float32 ``(N, D)``, the unit rows.
        dual_coef_: float64 ``(N, K)``, the weight of each row's kernel in each logit; one column for two classes.
        intercept_: float64 ``(K,)``, or ``(1,)`` for two classes.
        path_: the scores of each C that was tried with the chosen gamma.
    """

    def __init__(
        self,
        gammas: Sequence[float] = (0.1, 0.5, 2.0),
        *,
        Cs: float | Sequence[float] = 25,
        cv: float | Folds | None = None,
        C: float | None = None,
        random_state: int = 0,
    ) -> None:
        self.gammas = gammas
        self.Cs = Cs
        self.cv = cv
        self.C = C
        self.random_state = random_state

    def fit(self, X: Array, y: Array, groups: Array | None = None, sample_weight: Array | None = None) -> KernelProbe:
        """Choose gamma and C, and fit on all rows.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``.
            groups: ``(N,)``; rows of one group stay on one side of every fold.
            sample_weight: ``(N,)``, as for :class:`LogisticProbe`.

        Raises:
            BadHead: if there are more than 3,000 rows, there is no gamma, or one is not above 0.
            LabelError: as for :class:`LogisticProbe`.
        """
        X, y = validate_data(self, X, y)
        check_classification_targets(y)
        self._check(len(X))
        self.support_ = unit_rows(X)
        squared = _squared_distances(self.support_, self.support_)
        scale = _median_distance(squared)
        tried = self.gammas if self.C is None else [sorted(self.gammas)[len(self.gammas) // 2]]
        self.gammas_ = np.sort(np.asarray(tried, np.float64)) / scale
        fits = [self._fit_gamma(squared, g, y, groups, sample_weight) for g in self.gammas_.tolist()]
        probe, projection, self.gamma_ = min(fits, key=lambda fit: _loss(fit[0]))
        self.classes_, self.C_ = probe.classes_, probe.C_
        self.dual_coef_ = np.asarray(projection @ probe.coef_.T, np.float64)
        self.intercept_ = np.asarray(probe.intercept_, np.float64)
        self.path_: list[RegularizationPoint] = probe.path_
        return self

    @property
    def grid(self) -> list[float]:
        """The values of C that are tried, ascending; one value if nothing is chosen."""
        return LogisticProbe(self.Cs, C=self.C).grid

    def _check(self, n_rows: int) -> None:
        if n_rows > MAX_ROWS:
            raise BadHead(
                f"head kernel compares all pairs of rows, at most {MAX_ROWS:,} of them, and there are {n_rows:,}; use "
                "head logistic or mlp, or fewer training items by --where"
            )
        check_positives("gammas", self.gammas)

    def _fit_gamma(
        self, squared: FloatArray, gamma: float, y: Array, groups: Array | None, sample_weight: Array | None
    ) -> tuple[LogisticProbe, FloatArray, float]:
        """Return the probe of one gamma, and the projection of kernel rows onto its coordinates."""
        from scipy.linalg import eigh

        values, vectors = eigh(np.exp(-gamma * squared), driver="evd", check_finite=False)
        kept = values > _MIN_EIGENVALUE * values[-1]
        roots = np.sqrt(values[kept])
        probe = LogisticProbe(self.Cs, self.cv, C=self.C, random_state=self.random_state)
        probe.fit(vectors[:, kept] * roots, y, groups=groups, sample_weight=sample_weight)
        return probe, vectors[:, kept] / roots, float(gamma)

    def _logits(self, X: Array) -> FloatArray:
        check_is_fitted(self)
        rows = unit_rows(validate_data(self, X, reset=False))
        parts = [
            np.exp(-self.gamma_ * _squared_distances(rows[s], self.support_)) @ self.dual_coef_ + self.intercept_
            for s in blocks(len(rows), _BLOCK)
        ]
        logits = np.concatenate(parts)
        return np.hstack([np.zeros_like(logits), logits]) if logits.shape[1] == 1 else logits


def _squared_distances(rows: FloatArray, others: FloatArray) -> FloatArray:
    """Return the squared distances of unit rows, float64 ``(N, M)``."""
    return np.asarray(np.maximum(2 - 2 * (rows.astype(np.float64) @ others.T.astype(np.float64)), 0))


def _median_distance(squared: FloatArray) -> float:
    """Return the median squared distance of different rows, 1 if all are equal."""
    every = max(1, len(squared) // _MEDIAN_ROWS)
    sample = squared[::every, ::every]
    distances = sample[~np.eye(len(sample), dtype=bool)]
    median = float(np.median(distances)) if distances.size else 0.0
    return median if median > 0 else 1.0


def _loss(probe: LogisticProbe) -> float:
    """Return the out-of-fold log-loss at the chosen C; 0 where nothing was chosen."""
    return min((p.log_loss for p in probe.path_ if p.C == probe.C_), default=0.0)

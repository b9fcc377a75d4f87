"""Logistic regression whose C is chosen by cross-validation, all folds and the whole path in one go."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.heads import MAX_ITERATIONS
from embedstore.classify.heads.base import check_classes
from embedstore.classify.heads.class_weights import ClassWeight, class_weights
from embedstore.classify.heads.linear.backend import Backend, Tensor, compute_on, select_backend
from embedstore.classify.heads.linear.coordinates import prepare_rows
from embedstore.classify.heads.linear.folds import Folds, fold_training_masks, given_training_masks, resolve_cv
from embedstore.classify.heads.linear.lbfgs import Solution, SolverStart, StoppingCriteria, minimize
from embedstore.classify.heads.linear.regularization_path import (
    RegularizationPath,
    RegularizationPoint,
    SelectionCriterion,
)
from embedstore.classify.heads.linear.softmax import EigenBasis, SoftmaxProblem
from embedstore.classify.heads.numerics import blocks, softmax
from embedstore.classify.heads.options import (
    check_positive,
    check_random_state,
    check_tried_values,
    check_whole,
    parse_option,
)
from embedstore.classify.heads.sample_weights import drop_unweighted
from embedstore.errors import LabelError
from embedstore.threads import single_threaded_algebra

_REFIT = 0.1  # the tolerance of the last fit is this share of the path's
_PASSES = 50  # over the rows, of a search that ends behind the best C, with the last fit
_PASSES_PER_C = 4  # of a search that tries every C
_BLOCK = 16_384  # rows scored at once
_DTYPES = (np.float32, np.float64, np.float16)


class FeatureScaling(StrEnum):
    """What is done to the features before they are penalized."""

    NONE = "none"  # nothing: the protocol of the field
    STANDARD = "standard"  # divide each by its standard deviation; the learned weights are for the raw features


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The linear probe: softmax regression with an L2 penalty, C chosen by its out-of-fold log-loss.

    It is the problem of scikit-learn's ``LogisticRegressionCV(scoring="neg_log_loss")``, solved for all folds at once
    along the path of C, which ends when the loss has turned. Give ``groups`` to ``fit`` if rows belong together: they
    then stay on one side of every fold.

    Args:
        Cs: the number of values, log-spaced from 1e-6 to 1e6 (the range of Radford et al. 2021, A.3), or the values
            themselves. A single value (``[10]`` or ``10.0``) is used without cross-validation.
        C: one fixed value; then nothing is chosen and ``Cs`` is not used.
        cv: the number of folds (fewer if no class has that many rows), a share below 1 for one stratified hold-out, or
            the folds themselves as pairs of training and held-out rows. None is five folds; from 25,000 rows on, if
            rows x features x classes exceed 2e8, a hold-out of a tenth, as Oquab et al. 2023 choose C (``n_folds_`` is
            then 1).
        criterion: ``log_loss``, ``accuracy`` or ``first_accuracy``, what chooses among the values tried; of equal
            accuracies the second takes the lowest log-loss, the third the strongest penalty.
        scale: ``none`` or ``standard``.
        tol: relative distance from the optimum at which a fit on the path stops; the last fit is ten times tighter.
        max_iter: most passes over the rows per C.
        patience: how many values of C in a row must be worse than the best to end the path; None tries all of them.
        random_state: random seed of the folds.
        device: ``auto`` (CUDA if there is a GPU and enough to do, and its memory suffices), ``cpu``, or a torch device.
        keep_out_of_fold: keep ``out_of_fold_``, ``N x K`` numbers.
        class_weight: ``balanced``, or weights by class, as in scikit-learn; None weighs all rows alike. The weights are
            in the loss of the training rows and in that of the held-out rows that chooses C.

    Attributes:
        classes_: labels ``(K,)``.
        C_: the chosen value.
        path_: the scores of each C that was tried, in order.
        estimator_: a plain fitted scikit-learn ``LogisticRegression`` for the raw features.
        coef_: weights of ``estimator_``.
        intercept_: intercepts of ``estimator_``.
        n_iter_: passes over the rows in all.
        n_folds_: the number of folds.
        n_unscored_: rows without a part in the folds' losses because their class was not in the training part.
        out_of_fold_: probabilities of each row from the fold that did not train on it, NaN if there is none.
    """

    def __init__(  # noqa: PLR0913 - one argument per hyperparameter, as scikit-learn requires
        self,
        Cs: float | Sequence[float] = 25,
        cv: float | Folds | None = None,
        *,
        C: float | None = None,
        criterion: str = "log_loss",
        scale: str = "none",
        tol: float = 1e-6,
        max_iter: int = 1000,
        patience: int | None = 2,
        random_state: int = 0,
        device: str = "auto",
        keep_out_of_fold: bool = False,
        class_weight: ClassWeight = None,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.C = C
        self.criterion = criterion
        self.scale = scale
        self.tol = tol
        self.max_iter = max_iter
        self.patience = patience
        self.random_state = random_state
        self.device = device
        self.keep_out_of_fold = keep_out_of_fold
        self.class_weight = class_weight

    def fit(self, X: Array, y: Array, groups: Array | None = None, sample_weight: Array | None = None) -> LogisticProbe:
        """Choose C and fit on all rows.

        Args:
            X: features ``(N, D)``. float32 and float64 are computed in their own precision, float16 in float32. A
                memory map is read in blocks.
            y: labels ``(N,)``.
            groups: ``(N,)``; rows of one group stay together. ``GridSearchCV`` and ``cross_val_score`` of scikit-learn
                hand them on only with metadata routing, that is after ``set_config(enable_metadata_routing=True)`` and
                ``set_fit_request(groups=True)``; otherwise the inner folds do not know the groups.
            sample_weight: ``(N,)``, at least 0; a row of weight 2 counts as two rows, in the loss that is fitted and in
                the held-out loss that chooses C.

        Raises:
            BadHead: if ``tol``, ``max_iter`` or ``patience`` is not above 0; if ``max_iter`` is above 10,000 or ``Cs``
                more than 1,000 values; if ``class_weight`` is not ``balanced`` or
                a positive number for each class that it names; if a sample weight is negative or not finite; if the
                rows do not fit into the memory of the named device.
            LabelError: if there is one class; if C is to be chosen and fewer than two classes have two rows, or there
                are fewer rows or groups than folds; if ``cv`` is no number of 2 to 1,000 folds and no share below 1.
            ValueError: if a feature is not a finite number, a C is not positive, or ``Cs`` is a number of values
                below 2.
        """
        self._check_options()
        X, y = validate_data(self, X, y, dtype=_DTYPES)
        check_classes(y)
        if self.cv is None or isinstance(self.cv, int | float):  # given folds name the rows by their places
            sample_weight, X, y, groups = drop_unweighted(sample_weight, X, y, groups)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise LabelError(f"the labels hold 1 class, {str(self.classes_[0])!r}; a classifier needs at least two")
        weights = class_weights(self.class_weight, codes, self.classes_, sample_weight)
        grid = self.grid
        train = self._training_masks(codes, groups, X.shape) if len(grid) > 1 else np.zeros((0, len(codes)), bool)
        work = 4.0 * X.size * max(len(train), 1) * len(self.classes_)
        with single_threaded_algebra():  # threads of the library wait for each other a thousand times a second
            return compute_on(self.device, work, lambda device: self._solve(X, codes, grid, train, weights, device))

    @property
    def grid(self) -> list[float]:
        """The values of C that are tried, ascending; one value if nothing is chosen."""
        return _grid(self.Cs if self.C is None else [self.C])

    def _check_options(self) -> None:
        check_positive("tol", self.tol)
        check_whole("max_iter", self.max_iter, most=MAX_ITERATIONS)
        check_random_state(self.random_state)
        if self.patience is not None:
            check_whole("patience", self.patience)

    def _training_masks(self, y: IntArray, groups: Array | None, shape: tuple[int, ...]) -> Array:
        cv = resolve_cv(self.cv, shape, len(self.classes_))
        if not isinstance(cv, int | float):
            return given_training_masks(y, cv)
        return fold_training_masks(y, groups, cv, seed=self.random_state, class_names=self.classes_)

    def _solve(
        self, X: Array, codes: IntArray, grid: list[float], train: Array, weights: FloatArray | None, device: str
    ) -> LogisticProbe:
        """Search the path, then fit on all rows."""
        be = select_backend(device, np.dtype(np.float32) if X.dtype == np.float16 else X.dtype)
        standardize = parse_option("scale", self.scale, FeatureScaling) is FeatureScaling.STANDARD
        n_passes = _PASSES if self.patience is not None else _PASSES + _PASSES_PER_C * len(grid)
        rows, basis = prepare_rows(
            be, X, codes, len(self.classes_), n_folds=len(train), standardize=standardize, n_passes=n_passes
        )
        everything = SoftmaxProblem(rows, np.ones((1, len(codes)), bool), weights)
        self.n_folds_, self.n_unscored_, self.C_ = len(train), 0, grid[0]
        self.path_: list[RegularizationPoint] = []
        theta, fold_passes = everything.initial_parameters(basis), 0
        if len(train):
            theta, fold_passes = self._search_path(SoftmaxProblem(rows, train, weights), basis, grid, train)
        # The mean of the folds' parameters leaves out a share of each row's influence: the first step adds it.
        start = SolverStart(theta, direction=theta * float((~train).mean() if len(train) else 0))
        final = minimize(everything, basis, start, self.C_, self._tight())
        self.n_iter_ = everything.n_passes + fold_passes
        self._set_coefficients(be, basis, final)
        return self

    def _tight(self) -> StoppingCriteria:
        return StoppingCriteria(self.tol * _REFIT, self.max_iter)

    def _search_path(
        self, folds: SoftmaxProblem, basis: EigenBasis, grid: list[float], train: Array
    ) -> tuple[Tensor, int]:
        """Set C by the folds; return the mean of their parameters, ``(1, K, R + 1)``, and the number of passes."""
        criterion = parse_option("criterion", self.criterion, SelectionCriterion)
        result = RegularizationPath(self.tol, self.max_iter, self.patience, criterion).search(folds, basis, grid)
        self.path_, self.C_ = list(result.points), result.best
        self.n_unscored_ = int((~train).sum()) - folds.n_scored
        if self.keep_out_of_fold:
            start = SolverStart(result.solution.theta, result.solution.final_pass)
            self.out_of_fold_ = _out_of_fold(folds, basis, minimize(folds, basis, start, self.C_, self._tight()), train)
        return result.solution.theta.mean(0)[None], folds.n_passes

    def _set_coefficients(self, be: Backend, basis: EigenBasis, final: Solution) -> None:
        if final.gap.max() > self.tol:
            warnings.warn(
                f"the last fit stopped {final.gap.max():.1e} (relative) from the optimum after {final.n_passes} "
                "passes; raise max_iter (at most 10,000) or tol",
                ConvergenceWarning,
                stacklevel=4,
            )
        w, b = basis.coefficients(be, final.theta)
        if len(b) > 1:  # softmax ignores a common shift: take the one that sums to zero, as scikit-learn does
            w, b = w - w.mean(0), b - b.mean()
        self.estimator_ = LogisticRegression(C=self.C_, tol=self.tol * _REFIT, max_iter=self.max_iter)
        self.estimator_.classes_ = self.classes_
        self.estimator_.coef_ = self.coef_ = w.astype(be.dtype)
        self.estimator_.intercept_ = self.intercept_ = b.astype(be.dtype)
        self.estimator_.n_features_in_ = self.n_features_in_
        self.estimator_.n_iter_ = np.array([final.n_passes], dtype=np.int32)

    def decision_function(self, X: Array) -> FloatArray:
        """Return logits ``(N, K)``; for two classes the second's minus the first's, ``(N,)``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=_DTYPES)
        w, b = self.coef_.T, self.intercept_
        parts = [np.asarray(X[s], np.promote_types(X.dtype, np.float32)) @ w + b for s in blocks(len(X), _BLOCK)]
        logits = np.concatenate(parts)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X: Array) -> FloatArray:
        """Return probabilities ``(N, K)``."""
        return softmax(_two_columns(self.decision_function(X)))

    def predict(self, X: Array) -> Array:
        """Return labels ``(N,)``."""
        best = _two_columns(self.decision_function(X)).argmax(axis=1)
        return np.asarray(self.classes_[best])


def _grid(Cs: float | Sequence[float]) -> list[float]:
    """Return the values of C: a whole number is how many, log-spaced."""
    if isinstance(Cs, int) and not isinstance(Cs, bool):
        check_tried_values("Cs", Cs)
    if np.asarray(Cs).dtype.kind not in "iuf" or (isinstance(Cs, int | np.integer) and Cs < 2):
        raise ValueError(
            f"Cs must be the values of C, or how many to try (at least 2), not {Cs!r}; for one fixed value give C=1"
        )
    check_tried_values("Cs", int(Cs) if isinstance(Cs, np.integer) else np.size(Cs))
    values = np.logspace(-6, 6, int(Cs)) if isinstance(Cs, int | np.integer) else np.unique(np.asarray(Cs, np.float64))
    if len(values) == 0 or not (values > 0).all() or not np.isfinite(values).all():
        raise ValueError(f"C must be a positive number, and Cs positive numbers or how many of them, not {Cs!r}")
    return [float(C) for C in values]


def _out_of_fold(folds: SoftmaxProblem, basis: EigenBasis, solution: Solution, train: Array) -> FloatArray:
    """Return each row's probabilities from the fold that did not train on it, float32 ``(N, K)``."""
    out = np.full((train.shape[1], folds.rows.n_classes), np.nan, np.float32)
    for fold in range(len(train)):
        rows = np.flatnonzero(~train[fold])
        for s in blocks(len(rows), _BLOCK):
            logits = folds.logits(solution.theta[fold], basis, rows[s])
            if folds.absent_class_logits is not None:
                logits = logits + folds.be.to_numpy(folds.absent_class_logits)[fold, :, 0]
            out[rows[s]] = softmax(_two_columns(logits[:, 0] if logits.shape[1] == 1 else logits))
    return out


def _two_columns(logits: FloatArray) -> FloatArray:
    """Return a column per class, also for the single margin of two classes."""
    return np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits

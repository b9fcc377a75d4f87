"""Logistic regression whose C is chosen by cross-validation, all folds and the whole path in one go."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # comes with scikit-learn

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.heads.linear.backend import Backend, select_backend
from embedstore.classify.heads.linear.coordinates import prepare_rows
from embedstore.classify.heads.linear.folds import fold_training_masks, resolve_cv
from embedstore.classify.heads.linear.lbfgs import Incumbent, Solution, SolverStart, StoppingCriteria, minimize
from embedstore.classify.heads.linear.softmax import EigenBasis, SoftmaxProblem
from embedstore.classify.heads.numerics import blocks, softmax
from embedstore.classify.heads.options import parse_option
from embedstore.errors import LabelError

_TURNED = 1e-3  # a loss this much above the best (relative) is worse; less may be rounding on a plateau
_REFIT = 0.1  # the last fit is this much tighter than the path
_BESIDE = 10  # the values of C next to the best are this much less tight: within 1e-3 in loss where it is 1
_BLOCK = 16_384  # rows scored at once
# Operations of one pass below which one thread does it: threads that wait for each other a thousand times a second take
# 15 times as long on a busy machine (measured: 0.9 s became 13 s) and save little on an idle one.
_ONE_THREAD = 4e9


class FeatureScaling(StrEnum):
    """What is done to the features before the penalty sees them."""

    NONE = "none"  # as they are: the protocol of the field
    STANDARD = "standard"  # each divided by its standard deviation; the learned weights are for the raw features


class SelectionCriterion(StrEnum):
    """What the best C has out of fold."""

    LOG_LOSS = "log_loss"  # the lowest: smooth, and what the fit itself minimises
    ACCURACY = "accuracy"  # the highest, then the lowest log-loss: the field's protocol, noisy with few rows


@dataclass(frozen=True, slots=True)
class RegularizationPoint:
    """One C of the path, judged out of fold.

    Attributes:
        C: inverse strength of the penalty. log_loss, accuracy: means over the folds; good to a few per cent only where
            the C is certainly not the best and not next to it.
        fold_log_loss, fold_accuracy: of each fold.
    """

    C: float
    log_loss: float
    accuracy: float
    fold_log_loss: tuple[float, ...]
    fold_accuracy: tuple[float, ...]


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The linear probe: softmax regression with an L2 penalty, C by its out-of-fold log-loss.

    The same problem as scikit-learn's ``LogisticRegressionCV(scoring="neg_log_loss")``, solved for all folds at once
    along the path of C, which ends when the loss has turned. Give ``groups`` to ``fit`` when rows belong together:
    they then stay on one side of every fold.

    Args:
        Cs: how many, log-spaced in 1e-6 to 1e6 (the range of Radford et al. 2021, A.3), or the values themselves.
            A single value (``[10]`` or ``10.0``) is used without cross-validation.
        cv: folds (fewer when no class has that many rows), or a share below 1: one stratified hold-out of that size.
            None is five folds; from 25,000 rows on, where rows x features x classes are more than 1e10, a hold-out of
            a tenth, as Oquab et al. 2023 pick C (``folds_`` is then 1).
        criterion: ``log_loss`` or ``accuracy``: what chooses among the values tried.
        scale: ``none`` or ``standard``.
        tol: relative distance from the optimum at which a fit on the path stops; the last fit is ten times
            tighter.
        max_iter: passes over the rows for each C at most.
        patience: values of C in a row that are worse than the best before the path ends; None walks all of it.
        random_state: of the folds.
        device: ``auto`` (CUDA where there is one), ``cpu``, or a torch device.
        keep_out_of_fold: keep ``out_of_fold_``, ``N x K`` numbers.

    Attributes:
        classes_: labels ``(K,)``. C_: the chosen value. path_: what each C tried gave, in order.
        estimator_: a plain fitted scikit-learn ``LogisticRegression``, on the raw features.
        coef_, intercept_: its own. n_iter_: passes over the rows in all. folds_: how many there were.
        unjudged_: rows left out of the folds' losses because their class was not in the training part.
        out_of_fold_: probabilities of each row from the fold that did not see it, NaN where there is none.
    """

    def __init__(  # noqa: PLR0913 - one argument a hyper-parameter, as scikit-learn asks
        self,
        Cs: float | Sequence[float] = 25,
        cv: float | None = None,
        *,
        criterion: str = "log_loss",
        scale: str = "none",
        tol: float = 1e-6,
        max_iter: int = 1000,
        patience: int | None = 2,
        random_state: int = 0,
        device: str = "auto",
        keep_out_of_fold: bool = False,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.criterion = criterion
        self.scale = scale
        self.tol = tol
        self.max_iter = max_iter
        self.patience = patience
        self.random_state = random_state
        self.device = device
        self.keep_out_of_fold = keep_out_of_fold

    def fit(self, X: Array, y: Array, groups: Array | None = None) -> LogisticProbe:
        """Choose C and fit on all rows.

        Args:
            X: features ``(N, D)``; float32 and float64 are computed in their own precision, float16 in float32. A
                memory map is read in blocks.
            y: labels ``(N,)``.
            groups: ``(N,)``; rows of one group stay together.

        Raises:
            LabelError: one class; a class with one row, fewer rows or groups than folds (when C is to be chosen).
            ValueError: features that are not finite numbers, a C that is not positive.
        """
        X, y = validate_data(self, X, y, dtype=(np.float32, np.float64, np.float16))
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise LabelError(f"the labels hold 1 class, {str(self.classes_[0])!r}; a classifier needs at least two")
        grid = _grid(self.Cs)
        train = self._train(codes, groups, X.shape) if len(grid) > 1 else np.zeros((0, len(codes)), bool)
        work = 4.0 * X.size * max(len(train), 1) * len(self.classes_)
        with _threads().limit(limits=1 if work < _ONE_THREAD else None):
            return self._solve(X, codes, grid, train)

    def _solve(self, X: Array, codes: IntArray, grid: list[float], train: Array) -> LogisticProbe:
        """Walk the path, then fit on all rows."""
        be = select_backend(self.device, np.dtype(np.float32) if X.dtype == np.float16 else X.dtype)
        standard = parse_option("scale", self.scale, FeatureScaling) is FeatureScaling.STANDARD
        rows, basis = prepare_rows(be, X, codes, len(self.classes_), n_folds=len(train), standardize=standard)
        everything = SoftmaxProblem(rows, np.ones((1, len(codes)), bool))
        self.n_folds_, self.n_unscored_, self.C_ = len(train), 0, grid[0]
        self.path_: list[RegularizationPoint] = []
        start, folds = everything.initial_parameters(basis), SoftmaxProblem(rows, train) if len(train) else None
        if folds is not None:
            best = self._walk(folds, basis, grid)
            start = best.theta.mean(0)[None]
            self.n_unscored_ = int((~train).sum() - folds.held_out_counts.sum())
            if self.keep_out_of_fold:
                tight = StoppingCriteria(self.tol * _REFIT, self.max_iter)
                best = minimize(folds, basis, SolverStart(best.theta, best.final_pass), self.C_, tight)
                self.out_of_fold_ = self._out_of_fold(folds, basis, best, train)
        # an average of the folds leaves a share of each row's pull out: the first step tries to put it back
        start = SolverStart(start, direction=start * float((~train).mean() if len(train) else 0))
        final = minimize(everything, basis, start, self.C_, StoppingCriteria(self.tol * _REFIT, self.max_iter))
        self.n_iter_ = everything.n_passes + (folds.n_passes if folds else 0)
        self._finish(be, basis, final)
        return self

    def decision_function(self, X: Array) -> FloatArray:
        """Logits ``(N, K)``; for two classes the second's minus the first's, ``(N,)``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=(np.float32, np.float64, np.float16))
        w, b = self.coef_.T, self.intercept_
        found = [np.asarray(X[s], np.promote_types(X.dtype, np.float32)) @ w + b for s in blocks(len(X), _BLOCK)]
        logits = np.concatenate(found)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X: Array) -> FloatArray:
        """Probabilities ``(N, K)``."""
        return softmax(_two_sided(self.decision_function(X)))

    def predict(self, X: Array) -> Array:
        """Labels ``(N,)``."""
        best = _two_sided(self.decision_function(X)).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def _walk(self, folds: SoftmaxProblem, basis: EigenBasis, grid: list[float]) -> Solution:
        """Along C from the strongest penalty; each fit starts where the last step would lead. The best one's."""
        theta, seen, towards = folds.initial_parameters(basis), None, None
        near: dict[int, Solution] = {}  # the best, those beside it and the last, by their place on the path
        for place, C in enumerate(grid):
            stop = StoppingCriteria(self.tol, self.max_iter, self._rival(near))
            near[place] = found = minimize(folds, basis, SolverStart(theta, seen, towards), C, stop)
            towards = found.theta - theta if place else None  # the first step starts from nowhere
            theta, seen = found.theta, found.final_pass
            self.path_.append(_point(C, found))
            if place and found.gap.max() <= self.tol:  # it is a close race
                self._polish(folds, basis, near, self._best(near.keys() - {place}), self.tol)
            best = self._best(near)
            near = {i: s for i, s in near.items() if abs(i - best) < 2 or i == place}
            if self.patience is not None and _turned([p.log_loss for p in self.path_], self.patience):
                break
        return self._settled(folds, basis, near)

    def _settled(self, folds: SoftmaxProblem, basis: EigenBasis, near: dict[int, Solution]) -> Solution:
        """The best C solved to the tolerance, those beside it nearly so, and none of them better after all."""
        best = -1
        while best != self._best(near):
            best = self._best(near)
            for place in sorted(i for i in near if abs(i - best) < 2):
                self._polish(folds, basis, near, place, self.tol * (1 if place == best else _BESIDE))
        self.C_ = self.path_[best].C
        return near[best]

    def _best(self, places: Iterable[int]) -> int:
        """Which place on the path has the best C; of equals the strongest penalty."""
        better = _by(parse_option("criterion", self.criterion, SelectionCriterion))
        return max(sorted(places), key=lambda i: better(self.path_[i]))

    def _rival(self, near: dict[int, Solution]) -> Incumbent | None:
        """What the next C has to beat; None where all of them count to the last digit."""
        if (
            self.patience is None
            or parse_option("criterion", self.criterion, SelectionCriterion) is not SelectionCriterion.LOG_LOSS
        ):
            return None
        if not self.path_:
            return Incumbent()
        best = near[self._best(near)]
        return Incumbent(float(np.nanmean(best.final_pass.held_out_loss)), float(np.sqrt(best.gap.max())))

    def _polish(
        self, folds: SoftmaxProblem, basis: EigenBasis, near: dict[int, Solution], place: int, tol: float
    ) -> None:
        """Solve one C of the path to a tolerance, in place, from where it was left."""
        left, C = near[place], self.path_[place].C
        if left.gap.max() > tol:
            near[place] = minimize(
                folds, basis, SolverStart(left.theta, left.final_pass), C, StoppingCriteria(tol, self.max_iter)
            )
            self.path_[place] = _point(C, near[place])

    def _train(self, y: IntArray, groups: Array | None, shape: tuple[int, ...]) -> Array:
        cv = resolve_cv(self.cv, shape, len(self.classes_))
        return fold_training_masks(y, groups, cv, seed=self.random_state, class_names=self.classes_)

    def _out_of_fold(self, folds: SoftmaxProblem, basis: EigenBasis, best: Solution, train: Array) -> FloatArray:
        out = np.full((train.shape[1], len(self.classes_)), np.nan, np.float32)
        for fold in range(len(train)):
            rows = np.flatnonzero(~train[fold])
            for s in blocks(len(rows), _BLOCK):
                logits = folds.logits(best.theta[fold], basis, rows[s])
                if folds.absent_class_logits is not None:
                    logits = logits + folds.be.to_numpy(folds.absent_class_logits)[fold, :, 0]
                out[rows[s]] = softmax(_two_sided(logits[:, 0] if logits.shape[1] == 1 else logits))
        return out

    def _finish(self, be: Backend, basis: EigenBasis, final: Solution) -> None:
        if final.gap.max() > self.tol:
            warnings.warn(
                f"the last fit stopped {final.gap.max():.1e} (relative) from the optimum after {final.n_passes} "
                f"passes; "
                "raise max_iter",
                ConvergenceWarning,
                stacklevel=4,
            )
        w, b = basis.coefficients(be, final.theta)
        if len(b) > 1:  # softmax does not see a common shift: take the one that sums to zero, as scikit-learn's does
            w, b = w - w.mean(0), b - b.mean()
        self.estimator_ = LogisticRegression(C=self.C_, tol=self.tol * _REFIT, max_iter=self.max_iter)
        learned = {
            "classes_": self.classes_,
            "coef_": w.astype(be.dtype),
            "intercept_": b.astype(be.dtype),
            "n_features_in_": self.n_features_in_,
            "n_iter_": np.array([final.n_passes], dtype=np.int32),
        }
        for name, value in learned.items():
            setattr(self.estimator_, name, value)
        self.coef_, self.intercept_ = self.estimator_.coef_, self.estimator_.intercept_


@cache
def _threads() -> ThreadpoolController:
    """The thread pools of the linear algebra; to find them takes 5 ms, as long as a small fit."""
    return ThreadpoolController()


def _grid(Cs: float | Sequence[float]) -> list[float]:
    if isinstance(Cs, int | np.integer):
        values = np.logspace(-6, 6, max(Cs, 0))
    else:
        values = np.unique(np.asarray(Cs, np.float64))
    if len(values) == 0 or not (values > 0).all() or not np.isfinite(values).all():
        raise ValueError(f"Cs must be positive numbers, or how many of them, not {Cs!r}")
    return [float(C) for C in values]


def _by(criterion: SelectionCriterion) -> Callable[[RegularizationPoint], tuple[float, float]]:
    """A key that is largest for the best point; of equals ``max`` takes the first, the strongest penalty."""
    if criterion is SelectionCriterion.ACCURACY:
        return lambda point: (point.accuracy, -point.log_loss)
    return lambda point: (-point.log_loss, 0.0)


def _turned(losses: list[float], patience: int) -> bool:
    """Whether the last ``patience`` losses are all worse than the best."""
    worse = [loss > min(losses) * (1 + _TURNED) for loss in losses[-patience:]]
    return len(losses) > patience and all(worse)


def _point(C: float, found: Solution) -> RegularizationPoint:
    losses, rights = found.final_pass.held_out_loss, found.final_pass.held_out_accuracy
    loss, right = tuple(float(v) for v in losses), tuple(float(v) for v in rights)
    return RegularizationPoint(C, float(np.nanmean(losses)), float(np.nanmean(rights)), loss, right)


def _two_sided(logits: FloatArray) -> FloatArray:
    """Two columns from one margin."""
    return np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits

"""Fit a head that predicts numbers, with intervals around its predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.data.splits import numeric_folds
from embedstore.classify.data.task import Task
from embedstore.classify.heads.regression import make_regressor
from embedstore.errors import BadHead, EmbedstoreError, LabelError

if TYPE_CHECKING:
    from embedstore.classify.heads.regression.prediction_interval import PredictionInterval

DEFAULT_ALPHA = 0.1
MAX_FOLDS = 10
MAX_NESTED_ROWS = 1000  # up to so many rows the penalty is chosen anew inside each fold of the intervals
_KEPT_FOLD_HEADS = ("ridge",)  # a few numbers per head; others would keep copies of the vectors


def fit_numeric_head(head: str, train: Features, *, seed: int = 0, options: dict[str, Any] | None = None) -> Any:
    """Fit a regressor, or for an ordinal task a head that predicts levels.

    Args:
        head: one of :data:`embedstore.classify.heads.regression.REGRESSION_HEADS`.
        train: rows with numbers.
        seed: the random seed of the folds inside the head.
        options: the options of the head's constructor.

    Raises:
        LabelError: if the training rows hold one number only.
        UnknownHead: if no regressor has this name.
        BadHead: if an option or its value does not exist.
    """
    numbers = numbers_of(train)
    if len(np.unique(numbers)) < 2:
        raise LabelError(
            f"the {len(train)} training items all have the {train.label} {train.y[0]}; nothing can be learned from one "
            "number"
        )
    return _fit(head, train, seed, dict(options or {}))


def _fit(head: str, train: Features, seed: int, options: dict[str, Any]) -> Any:
    estimator = make_regressor(head, **options)
    if head == "ridge":
        estimator.set_params(random_state=options.get("random_state", seed))
    if train.task is Task.ORDINAL:
        estimator = heads.OrdinalHead(head, options, random_state=seed)
    try:
        return heads.fit_weighted(estimator, train.X, numbers_of(train), weights=train.weights, groups=train.groups)
    except (ValueError, TypeError) as e:
        if isinstance(e, EmbedstoreError):
            raise
        raise BadHead(f"head {head!r} cannot be fitted to {len(train)} rows: {' '.join(str(e).split())}") from e


def fit_with_intervals(
    head: str, train: Features, calibration: Features, *, alpha: float, seed: int, options: dict[str, Any]
) -> tuple[PredictionInterval, str]:
    """Fit a head and the intervals around its predictions.

    Args:
        head: name of the regressor.
        train: rows to fit on.
        calibration: rows that neither train nor evaluate; without any, folds of the training rows calibrate.
        alpha: the share of new numbers that may lie outside.
        seed: the random seed of the folds.
        options: the options of the head's constructor.

    Returns:
        The head with its intervals, and the method: ``split``, ``cv+`` or ``folds``.
    """
    estimator = fit_numeric_head(head, train, seed=seed, options=options)
    wrapper = heads.PredictionInterval(estimator, alpha)
    if len(calibration):
        residuals = numbers_of(calibration) - estimator.predict(calibration.X)
        return wrapper.set_residuals(residuals, calibration.groups), "split"
    fold_options = dict(options)
    if len(train) > MAX_NESTED_ROWS and hasattr(estimator, "alpha_"):
        fold_options |= {"alpha": estimator.alpha_}
    return _fit_folds(wrapper, head, train, seed, fold_options)


def _fit_folds(
    wrapper: PredictionInterval, head: str, train: Features, seed: int, options: dict[str, Any]
) -> tuple[PredictionInterval, str]:
    """Calibrate on the training rows, each predicted by a head that was not fitted on its fold."""
    n_folds = min(MAX_FOLDS, len(np.unique(train.groups)))
    numbers = numbers_of(train)
    residuals, fold_of, fold_heads = np.zeros(len(train)), np.zeros(len(train), np.int64), []
    for number, fold in enumerate(numeric_folds(numbers, train.groups, n_folds, seed=seed) if n_folds > 1 else []):
        fold_heads.append(_fit(head, train.take(fold.train), seed, options))
        residuals[fold.held_out] = numbers[fold.held_out] - fold_heads[-1].predict(train.take(fold.held_out).X)
        fold_of[fold.held_out] = number
    if not fold_heads:
        raise LabelError(
            f"the {len(train)} training items are copies of each other or one group; label items of other groups"
        )
    if head in _KEPT_FOLD_HEADS:
        return wrapper.set_residuals(residuals, train.groups, fold_of, fold_heads), "cv+"
    return wrapper.set_residuals(residuals, train.groups), "folds"


def numbers_of(data: Features) -> NDArray[np.float64]:
    """Return the labels as numbers.

    Raises:
        LabelError: if they are classes.
    """
    if data.numbers is None:
        raise LabelError(f"{data.label!r} holds classes, not numbers; give --task regression or --task ordinal")
    return data.numbers

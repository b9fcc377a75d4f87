"""Fit a head that is calibrated, abstains, or answers with sets of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data.class_examples import DEFAULT_FOLDS, max_folds, single_examples
from embedstore.classify.data.features import Features
from embedstore.classify.data.labels import label_indicators
from embedstore.classify.evaluation.fit import fit_head, out_of_fold_probabilities, selected_hyperparameters
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.errors import BadHead, LabelError

MAX_NESTED_ROWS = 1000  # up to so many training rows C is chosen anew inside each fold of calibration


def fit_calibrated_head(
    head: str,
    train: Features,
    calibration: Features,
    settings: EvaluationSettings,
    options: dict[str, Any] | None = None,
) -> tuple[Any, int]:
    """Fit a head and, where the settings ask for it, calibrate it, let it abstain or answer with sets.

    The calibration rows decide where there are some. Otherwise the training rows do, each with the probabilities of a
    head that was not fitted on it, as in scikit-learn's ``CalibratedClassifierCV(ensemble=False)``.

    Args:
        head: name of the head.
        train: rows to fit on.
        calibration: rows that neither train nor evaluate; may be empty.
        settings: calibration method, target precision or alpha, and the seed.
        options: the options of the head's constructor.

    Returns:
        The fitted classifier, and the number of rows that it was calibrated on (0 without calibration).

    Raises:
        LabelError: when the labels do not support the head, or no row is left to calibrate on.
        UnknownHead: when no head has this name.
        BadHead: when an option is wrong, or a multilabel head is to abstain or to answer with sets.
    """
    if train.multilabel and (settings.abstain_precision is not None or settings.conformal_alpha is not None):
        raise BadHead(
            "abstain_precision and conformal_alpha need one label per item; an item of a multilabel column may have no "
            "label anyway: leave them out, or use calibrate"
        )
    if settings.chooses_thresholds and not train.multilabel:
        raise BadHead(
            "label_thresholds are for several labels per item; leave them out: with one label per item the class with "
            "the highest score is predicted"
        )
    estimator = fit_head(head, train, seed=settings.seed, options=options)
    if not settings.needs_calibration:
        return estimator, 0
    names = [str(c) for c in estimator.classes_]
    if len(calibration):
        targets = _targets(calibration, names)
        rows = _CalibrationRows(calibration.X, targets, calibration.groups)
        return _wrap(estimator, estimator, rows, settings), len(calibration)
    n_folds = DEFAULT_FOLDS if train.multilabel else max_folds(train.y, train.groups)
    # A C that is chosen on the rows that calibrate makes their scores too good, which shows where they are few.
    proba = out_of_fold_probabilities(
        train,
        names,
        head=head,
        n_folds=n_folds,
        seed=settings.seed,
        options=options,
        nested=len(train) <= MAX_NESTED_ROWS,
        fallback_c=selected_hyperparameters(estimator).get("C"),
    )
    precomputed = _PrecomputedHead(estimator.classes_, len(names), train.multilabel)
    rows = _CalibrationRows(proba, _targets(train, names), train.groups)
    if not train.multilabel:  # no head that was not fitted on it knows a class of one example
        rows = rows.take(~np.isin(train.y.astype(str), single_examples(train.y, train.groups)))
    return _wrap(estimator, precomputed, rows, settings), len(rows.y)


@dataclass(frozen=True)
class _CalibrationRows:
    """Rows that calibrate: features, or probabilities that were computed before; labels; groups."""

    X: NDArray[np.float32]
    y: NDArray[Any]
    groups: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> _CalibrationRows:
        """Return a selection of rows."""
        return _CalibrationRows(self.X[rows], self.y[rows], self.groups[rows])


def _targets(rows: Features, names: list[str]) -> NDArray[Any]:
    """Return what a wrapper is fitted on: 0-1 indicators of several labels, else the labels."""
    return label_indicators(rows.y, names).astype(np.int64) if rows.multilabel else rows.y


def _wrap(estimator: Any, scored: Any, rows: _CalibrationRows, settings: EvaluationSettings) -> Any:
    """Fit the wrappers around ``scored``, which accepts the rows' X, and return them around ``estimator``."""
    names = np.asarray(estimator.classes_).astype(str)
    known = rows.take(np.isin(rows.y.astype(str), names)) if rows.y.ndim == 1 else rows
    if not len(known.y):
        raise LabelError(
            "no row is left to calibrate on; label more items, or leave out calibrate, abstain_precision and "
            "conformal_alpha"
        )
    if settings.calibrate is not None:
        scored = heads.CalibratedHead(scored, settings.calibrate).fit(known.X, known.y)
        estimator = _copy_fit(scored, heads.CalibratedHead(estimator, settings.calibrate))
    if settings.chooses_thresholds:
        fitted = heads.LabelThresholds(scored).fit(known.X, known.y)
        estimator = _copy_fit(fitted, heads.LabelThresholds(estimator))
    if settings.abstain_precision is not None:
        fitted = heads.SelectiveClassifier(scored, settings.abstain_precision).fit(rows.X, rows.y, rows.groups)
        estimator = _copy_fit(fitted, heads.SelectiveClassifier(estimator, settings.abstain_precision))
    if settings.conformal_alpha is not None:
        by_class = settings.conformal_by_class
        fitted = heads.ConformalSets(scored, settings.conformal_alpha, by_class=by_class).fit(known.X, known.y)
        estimator = _copy_fit(fitted, heads.ConformalSets(estimator, settings.conformal_alpha, by_class=by_class))
    return estimator


def _copy_fit(source: Any, target: Any) -> Any:
    """Copy the learned attributes, whose names end in ``_``, and return the target."""
    for name, value in vars(source).items():
        if name.endswith("_"):
            setattr(target, name, value)
    return target


@dataclass(frozen=True)
class _PrecomputedHead:
    """A head whose features are its own probabilities, computed before."""

    classes_: NDArray[Any]
    n_features_in_: int
    multilabel_: bool = False

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return X unchanged."""
        return X

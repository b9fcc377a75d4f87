"""Evaluate a head that predicts numbers on held-out rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.classify.data.features import Features
from embedstore.classify.data.split_leaks import (
    SplitNearDuplicates,
    merge_split_near_duplicates,
    split_near_duplicates,
)
from embedstore.classify.data.splits import TrainTestSplit, evaluation_splits
from embedstore.classify.data.task import Task
from embedstore.classify.evaluation.regression.evaluation import IntervalReport, RegressionEvaluation
from embedstore.classify.evaluation.regression.fit import DEFAULT_ALPHA, fit_with_intervals, numbers_of
from embedstore.classify.evaluation.regression.predictions import NumericPredictions, concatenate_predictions
from embedstore.classify.evaluation.regression.slice_report import numeric_slice_report
from embedstore.classify.evaluation.settings import ChoiceRows, EvaluationSettings, HeldOutFigures
from embedstore.classify.evaluation.validation_fit import concatenate_rows
from embedstore.classify.evaluation.weighted_metrics import weighted_metrics
from embedstore.classify.metrics import MetricEstimate, MetricName
from embedstore.classify.metrics.regression import NumericReport, ordinal_report, regression_report
from embedstore.classify.metrics.shares import accuracy_rows, share_interval
from embedstore.errors import BadHead, LabelError

if TYPE_CHECKING:
    from embedstore.classify.heads.regression.prediction_interval import PredictionInterval

DEFAULT_HEAD = "ridge"
_NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class _Round:
    """One fitted head and its predictions for the held-out rows of one split."""

    split: TrainTestSplit
    estimator: PredictionInterval
    method: str
    predictions: NumericPredictions
    n_unused_validation: int
    near_duplicates: SplitNearDuplicates | None


def evaluate_numeric_head(
    head: str, data: Features, settings: EvaluationSettings | None = None, **options: Any
) -> RegressionEvaluation:
    """Fit a head on the training rows and evaluate its numbers on the held-out rows.

    Args:
        head: ``ridge`` or ``knn``.
        data: rows with numbers.
        settings: folds, seed, near-duplicates; ``conformal_alpha`` is the share outside of the prediction intervals.
        options: the options of the head's constructor.

    Raises:
        LabelError: when the labels do not support the split or the head.
        UnknownHead: when no regressor has this name.
        BadHead: when an option is wrong, or a setting needs classes.
    """
    settings = settings or EvaluationSettings()
    check_numeric_settings(settings)
    start = time.perf_counter()
    data = settings.near_duplicate_options.join(data)
    splits = evaluation_splits(data, n_folds=settings.folds, seed=settings.seed)
    rounds = [_run_round(head, data, split, settings, options) for split in splits]
    estimator, method = rounds[0].estimator, rounds[0].method
    if settings.folds:
        estimator, method = _fit(head, data, data.take(_NO_ROWS), settings, options)
    pooled = concatenate_predictions([r.predictions for r in rounds])
    first, values = rounds[0], settings.figures.slice_values
    return RegressionEvaluation(
        head=head,
        label=data.label,
        space=data.space,
        task=data.task,
        split=f"{settings.folds} folds" if settings.folds else first.split.name,
        n_train=len(data) if settings.folds else len(first.split.train),
        n_leaks=first.split.n_leaks,
        n_unlabeled=data.n_unlabeled,
        n_unused_validation=first.n_unused_validation,
        n_train_without_split=first.split.count_without_split(data),
        label_notes=data.label_notes,
        split_notes=() if settings.folds else first.split.notes,
        seed=settings.seed,
        estimator=estimator,
        held_out_predictions=pooled,
        report=_report(pooled, data, settings.figures),
        interval=_interval_report(pooled, estimator, method),
        hyperparameters=_hyperparameters(estimator.head),
        grid_edges=_grid_edges(estimator.head),
        near_duplicates=merge_split_near_duplicates([r.near_duplicates for r in rounds]),
        fold_errors=_fold_errors(rounds) if settings.folds else (),
        seconds=time.perf_counter() - start,
        slices=None if values is None else numeric_slice_report(pooled, values),
    )


def check_numeric_settings(settings: EvaluationSettings) -> None:
    """Refuse settings that need classes.

    Raises:
        BadHead: if one is given.
        LabelError: if a figure of classes is to rank slices.
    """
    given = {
        "calibrate": settings.calibrate is not None,
        "abstain_precision": settings.abstain_precision is not None,
        "conformal_by_class": settings.conformal_by_class,
        "label_thresholds": settings.chooses_thresholds,
        "choose_on": settings.choose_on != ChoiceRows.FOLDS,
    }
    if names := [name for name, is_given in given.items() if is_given]:
        raise BadHead(
            f"{' and '.join(names)} {'need' if len(names) > 1 else 'needs'} classes, and numbers are predicted; leave "
            "it out (a prediction has an interval anyway, see conformal_alpha), or give --task classification"
        )
    if settings.figures.slice_metric != MetricName.ACCURACY:
        raise LabelError("slices of predicted numbers are ranked by their mean absolute error; leave out by_metric")


def _report(rows: NumericPredictions, data: Features, figures: HeldOutFigures) -> NumericReport:
    """Return the metrics of the held-out rows, weighted ones too if wanted."""
    report = numeric_report(rows, data.task)
    return replace(report, scores=report.scores | weighted_metrics(rows, data)) if figures.weighted else report


def numeric_report(rows: NumericPredictions, task: Task) -> NumericReport:
    """Return the metrics of the held-out rows."""
    report = ordinal_report if task is Task.ORDINAL else regression_report
    return report(rows.y, rows.predicted, rows.groups, baseline=rows.baseline)


def _run_round(
    head: str, data: Features, split: TrainTestSplit, settings: EvaluationSettings, options: dict[str, Any]
) -> _Round:
    """Fit on the training rows and predict the held-out rows."""
    rows, near = split_near_duplicates(data, split, drop=settings.near_duplicate_options.drops)
    if not len(rows):
        raise LabelError(
            "every training row is a near-duplicate of a held-out row; raise near_duplicate_threshold, or leave out "
            "drop_near_duplicates"
        )
    train, calibration = data.take(rows), data.take(split.calibration)
    if settings.refit and len(calibration):
        train, calibration = concatenate_rows(train, calibration), data.take(_NO_ROWS)
    elif settings.refit:
        raise LabelError("there are no val items besides the held-out ones; leave out refit")
    estimator, method = _fit(head, train, calibration, settings, options)
    held_out = data.take(split.held_out)
    return _Round(
        split=replace(split, train=np.union1d(rows, split.calibration) if settings.refit else rows),
        estimator=estimator,
        method=method,
        predictions=_predict(estimator, train, held_out),
        n_unused_validation=0,
        near_duplicates=near,
    )


def _fit(
    head: str, train: Features, calibration: Features, settings: EvaluationSettings, options: dict[str, Any]
) -> tuple[PredictionInterval, str]:
    alpha = DEFAULT_ALPHA if settings.conformal_alpha is None else settings.conformal_alpha
    return fit_with_intervals(head, train, calibration, alpha=alpha, seed=settings.seed, options=options)


def _predict(estimator: PredictionInterval, train: Features, held_out: Features) -> NumericPredictions:
    low, high = estimator.predict_interval(held_out.X)
    weights = np.ones(len(train)) if train.weights is None else train.weights
    mean = float(weights @ numbers_of(train) / weights.sum())
    return NumericPredictions(
        ids=held_out.ids,
        y=numbers_of(held_out),
        predicted=np.asarray(estimator.predict(held_out.X), np.float64),
        low=np.asarray(low, np.float64),
        high=np.asarray(high, np.float64),
        groups=held_out.groups,
        baseline=np.full(len(held_out), mean),
    )


def _interval_report(rows: NumericPredictions, estimator: PredictionInterval, method: str) -> IntervalReport:
    width = float((rows.high - rows.low).mean())
    covered = rows.covered
    return IntervalReport(
        target_coverage=1 - estimator.alpha,
        coverage=MetricEstimate(float(covered.mean()), *share_interval(accuracy_rows(covered, rows.groups))),
        mean_width=width if np.isfinite(width) else None,
        method=method,
        rows=estimator.n_calibration_,
        groups=estimator.n_groups_,
        groups_needed=estimator.rows_needed,
    )


def _fold_errors(rounds: Sequence[_Round]) -> tuple[float, ...]:
    return tuple(float(np.abs(r.predictions.y - r.predictions.predicted).mean()) for r in rounds)


def _regressor(head: Any) -> Any:
    """Return the regressor inside of an ordinal head."""
    return getattr(head, "head_", head)


def _hyperparameters(head: Any) -> dict[str, Any]:
    regressor = _regressor(head)
    out: dict[str, Any] = {"alpha": regressor.alpha_} if hasattr(regressor, "alpha_") else {}
    return out | ({"k": regressor.neighbors_.k_} if hasattr(regressor, "neighbors_") else {})


def _grid_edges(head: Any) -> dict[str, float]:
    """Return the penalty if it is the first or last of several that were tried."""
    regressor = _regressor(head)
    tried = getattr(regressor, "alphas_", np.zeros(0))
    is_edge = len(tried) > 1 and regressor.alpha_ in (tried[0], tried[-1])
    return {"alpha": regressor.alpha_} if is_edge else {}

"""Evaluate a head on held-out rows: split, fit, predict, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedstore.classify import heads, metrics
from embedstore.classify.data.features import Features
from embedstore.classify.data.split_leaks import merge_split_near_duplicates
from embedstore.classify.data.splits import TrainTestSplit, evaluation_splits
from embedstore.classify.evaluation import uncertainty_report
from embedstore.classify.evaluation.calibrated_fit import fit_calibrated_head
from embedstore.classify.evaluation.evaluation import Evaluation, HeldOutPredictions
from embedstore.classify.evaluation.fit import c_path, chooses_c, hyperparameters_at_grid_edge, selected_hyperparameters
from embedstore.classify.evaluation.multilabel import multilabel_report
from embedstore.classify.evaluation.rounds import (
    DescribeProtocol,
    FitHead,
    FittedRounds,
    HoldoutRound,
    ProtocolFacts,
    predict_held_out,
    run_round,
)
from embedstore.classify.evaluation.settings import ChoiceRows, EvaluationSettings, HeldOutFigures
from embedstore.classify.evaluation.single_example_notes import single_example_notes
from embedstore.classify.evaluation.slice_report import SliceReport
from embedstore.classify.evaluation.slices import slice_report
from embedstore.classify.evaluation.validation_fit import fit_with_validation
from embedstore.classify.evaluation.weighted_metrics import weighted_metrics
from embedstore.classify.metrics import ClassificationReport, MetricName

MAX_CLASSES_WITHOUT_TOP5 = 5  # up to so many classes top-5 accuracy is 1 by construction and is left out
_NO_ROWS = np.zeros(0, dtype=np.int64)


def evaluate_head(head: str, data: Features, settings: EvaluationSettings | None = None, **options: Any) -> Evaluation:
    """Fit a head on the training rows and evaluate it on the held-out rows.

    Args:
        head: ``logistic``, ``knn`` or another of :data:`embedstore.classify.heads.HEAD_NAMES`.
        data: labeled rows.
        settings: folds, seed, near-duplicates, calibration.
        options: the options of the head's constructor.

    Raises:
        LabelError: when the labels do not support the split or the head.
        UnknownHead: when no head has this name.
        BadHead: when an option is wrong.
    """
    settings = settings or EvaluationSettings()
    heads.make_head(head, **options)  # refuses a wrong name early, and its imports do not count as its time

    def fit(train: Features, calibration: Features) -> tuple[Any, int]:
        if settings.uses_validation:
            return fit_with_validation(head, train, calibration, settings, options), 0
        return fit_calibrated_head(head, train, calibration, settings, options)

    by_folds = settings.choose_on == ChoiceRows.FOLDS and chooses_c(head, options)
    return evaluate_fit(head, data, settings, fit, chooses_c_by_folds=by_folds)


def evaluate_fit(
    head: str,
    data: Features,
    settings: EvaluationSettings,
    fit: FitHead,
    *,
    chooses_c_by_folds: bool = False,
    describe_protocol: DescribeProtocol | None = None,
) -> Evaluation:
    """Fit anything on the training rows and evaluate it on the held-out rows.

    Args:
        head: name of the head, for the report.
        data: labeled rows.
        settings: folds, seed, near-duplicates.
        fit: fits a classifier on rows.
        chooses_c_by_folds: whether it chooses C by cross-validation on its training rows.
        describe_protocol: returns what a protocol reports; called once, after the last fit.

    Raises:
        LabelError: when the labels do not support the split or the head.
    """
    start = time.perf_counter()
    data = settings.near_duplicate_options.join(data)
    splits = evaluation_splits(data, n_folds=settings.folds, seed=settings.seed)
    rounds = [run_round(data, split, settings, fit) for split in splits]
    estimator = fit(data, data.take(_NO_ROWS))[0] if settings.folds else rounds[0].estimator
    train = data if settings.folds else data.take(rounds[0].split.train)
    notes = single_example_notes(data, _split_name(rounds, settings), train if chooses_c_by_folds else None)
    fitted = FittedRounds(rounds, estimator, notes)
    protocol = describe_protocol(fitted.pooled) if describe_protocol else None
    return build_evaluation(head, data, fitted, settings, start, protocol)


def evaluate_fitted(
    estimator: Any,
    data: Features,
    *,
    head: str,
    split: str,
    settings: EvaluationSettings | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Evaluate a fitted classifier on rows that did not train it.

    Args:
        estimator: a classifier with ``classes_`` and probabilities.
        data: labeled rows; all of them are evaluated.
        head: name of the head, for the report.
        split: name of the held-out side, for the report.
        settings: the seed of the split, for the report, and further figures.
        hyperparameters: reported in addition to those of the classifier.
    """
    start = time.perf_counter()
    every_row = TrainTestSplit(_NO_ROWS, np.arange(len(data)), split, 0)
    predictions = predict_held_out(estimator, data)
    only = HoldoutRound(every_row, estimator, predictions, hyperparameters=dict(hyperparameters or {}))
    return build_evaluation(head, data, FittedRounds([only], estimator), settings or EvaluationSettings(), start)


def build_evaluation(
    head: str,
    data: Features,
    fitted: FittedRounds,
    settings: EvaluationSettings,
    start: float,
    protocol: ProtocolFacts | None = None,
) -> Evaluation:
    """Build the evaluation of a head from its rounds.

    Args:
        head: name of the head.
        data: the rows that were split.
        fitted: the rounds, and the classifier to keep.
        settings: as for :func:`evaluate_head`.
        start: ``time.perf_counter()`` before the first fit.
        protocol: what a protocol reports; None where there is none.
    """
    rounds, estimator, pooled, first = fitted.rounds, fitted.estimator, fitted.pooled, fitted.rounds[0]
    hyperparameters = first.hyperparameters | selected_hyperparameters(estimator)
    edges = protocol.grid_edges if protocol else None
    learned = {c for r in rounds for c in r.predictions.classes}
    constant = {c for r in rounds for c in getattr(r.estimator, "constant_labels_", ())}
    fold_sizes = np.cumsum([len(r.predictions.ids) for r in rounds])[:-1]
    folds = np.split(pooled.correct, fold_sizes) if settings.folds else []
    return Evaluation(
        head=head,
        label=data.label,
        space=data.space,
        split=_split_name(rounds, settings),
        n_train=protocol.report.n_trained if protocol else len(data) if settings.folds else len(first.split.train),
        n_leaks=first.split.n_leaks,
        n_unlabeled=data.n_unlabeled,
        n_unused_validation=first.n_unused_validation,
        n_train_without_split=first.split.count_without_split(data),
        label_notes=data.label_notes,
        split_notes=(() if settings.folds else first.split.notes) + fitted.notes,
        seed=settings.seed,
        unlearned_classes=tuple(sorted(set(pooled.classes) - learned | constant)),
        estimator=estimator,
        held_out_predictions=pooled,
        report=_report(pooled, data, settings.figures),
        hyperparameters=hyperparameters | (protocol.hyperparameters if protocol else {}),
        grid_edges=hyperparameters_at_grid_edge(estimator) if edges is None else edges,
        c_path=c_path(estimator),
        near_duplicates=merge_split_near_duplicates([r.near_duplicates for r in rounds]),
        fold_accuracy=tuple(float(correct.mean()) for correct in folds),
        calibration=uncertainty_report.calibration_report(rounds, pooled, settings.calibrate),
        abstain=uncertainty_report.abstention_report(rounds, settings.abstain_precision),
        conformal=uncertainty_report.conformal_report(rounds, settings.conformal_alpha),
        seconds=time.perf_counter() - start,
        protocol=protocol.report if protocol else None,
        slices=_slices(pooled, settings.figures),
    )


def _split_name(rounds: Sequence[HoldoutRound], settings: EvaluationSettings) -> str:
    """Return the name of the held-out side, for the report."""
    return f"{settings.folds} folds" if settings.folds else rounds[0].split.name


def _slices(pooled: HeldOutPredictions, figures: HeldOutFigures) -> SliceReport | None:
    """Return the figures by the values of a column, if one was given."""
    values = figures.slice_values
    return None if values is None else slice_report(pooled, values, figures.slice_metric)


def _report(pooled: HeldOutPredictions, data: Features, figures: HeldOutFigures) -> ClassificationReport:
    """Return the metrics of the held-out rows, weighted ones too if wanted."""
    report = _plain_report(pooled)
    if not figures.weighted:
        return report
    return replace(report, scores=report.scores | weighted_metrics(pooled, data))


def _plain_report(pooled: HeldOutPredictions) -> ClassificationReport:
    """Return the metrics of the held-out rows, without top-5 accuracy where it is 1 by construction."""
    settings: dict[str, Any] = {"groups": pooled.groups, "has_probabilities": pooled.has_probabilities}
    if pooled.multilabel:
        return multilabel_report(pooled.y, pooled.proba, pooled.classes, **settings)
    report = metrics.classification_report(pooled.y, pooled.proba, pooled.classes, **settings)
    if len(pooled.classes) > MAX_CLASSES_WITHOUT_TOP5:
        return report
    return replace(report, scores={name: s for name, s in report.scores.items() if name != MetricName.TOP5_ACCURACY})

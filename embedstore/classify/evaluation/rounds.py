"""Fit a head per split, predict its held-out rows, and pool the predictions of all splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.data.split_leaks import SplitNearDuplicates, split_near_duplicates
from embedstore.classify.data.splits import TrainTestSplit
from embedstore.classify.evaluation.evaluation import HeldOutPredictions
from embedstore.classify.evaluation.fit import align_columns, has_probabilities, unwrap_head
from embedstore.classify.evaluation.protocol_report import ProtocolReport
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.errors import LabelError


@dataclass(frozen=True)
class HoldoutRound:
    """One fitted head and its predictions for the held-out rows of one split.

    Attributes:
        split: the rows that trained the head, and the held-out rows.
        estimator: the fitted classifier.
        predictions: the predictions of the held-out rows, in the order of the estimator's classes.
        uncalibrated: float32 ``(M, K)`` probabilities before calibration; None where nothing was calibrated.
        n_calibration: rows that the head was calibrated on.
        n_unused_validation: rows of the split ``val`` that were used for nothing.
        near_duplicates: across the split; None where nothing was searched for.
        hyperparameters: reported next to those that the head selected for itself.
    """

    split: TrainTestSplit
    estimator: Any
    predictions: HeldOutPredictions
    uncalibrated: NDArray[np.float32] | None = None
    n_calibration: int = 0
    n_unused_validation: int = 0
    near_duplicates: SplitNearDuplicates | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FittedRounds:
    """The rounds of one head.

    Attributes:
        rounds: one per split.
        estimator: the classifier to keep.
        notes: what a person should know about the training rows, one sentence each.
    """

    rounds: Sequence[HoldoutRound]
    estimator: Any
    notes: tuple[str, ...] = ()

    @cached_property
    def pooled(self) -> HeldOutPredictions:
        """The predictions of the held-out rows of all rounds."""
        return pool_rounds(self.rounds)


@dataclass(frozen=True)
class ProtocolFacts:
    """What a protocol reports in place of what rounds and estimator say.

    Attributes:
        report: what it tried and selected.
        hyperparameters: reported in addition to those of the estimator.
        grid_edges: those that are the first or the last value tried; None reports those of the estimator.
    """

    report: ProtocolReport
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    grid_edges: dict[str, float] | None = None


FitHead = Callable[[Features, Features], tuple[Any, int]]
"""Fit on the training rows and maybe calibrate on the others; return the classifier and how many calibrated it."""
DescribeProtocol = Callable[[HeldOutPredictions], ProtocolFacts]
"""Return what a protocol reports, which may depend on the predictions of the held-out rows."""


def run_round(data: Features, split: TrainTestSplit, settings: EvaluationSettings, fit: FitHead) -> HoldoutRound:
    """Fit on the training rows and predict the held-out rows.

    Raises:
        LabelError: when no training row is left, or the labels do not support the head.
        UnknownHead: when no head has this name.
        BadHead: when an option is wrong.
    """
    rows, near_duplicates = split_near_duplicates(data, split, drop=settings.near_duplicate_options.drops)
    if not len(rows):
        raise LabelError(
            "every training row is a near-duplicate of a held-out row; raise near_duplicate_threshold, or leave out "
            "drop_near_duplicates"
        )
    estimator, n_calibration = fit(data.take(rows), data.take(split.calibration))
    held_out = data.take(split.held_out)
    is_unused = not settings.uses_validation and n_calibration == 0
    return HoldoutRound(
        split=replace(split, train=np.union1d(rows, split.calibration) if settings.refit else rows),
        estimator=estimator,
        predictions=predict_held_out(estimator, held_out),
        uncalibrated=_probabilities(unwrap_head(estimator), held_out) if settings.calibrate else None,
        n_calibration=n_calibration,
        n_unused_validation=len(split.calibration) if is_unused else 0,
        near_duplicates=near_duplicates,
    )


def predict_held_out(estimator: Any, held_out: Features) -> HeldOutPredictions:
    """Predict held-out rows by a fitted classifier, in the order of its classes."""
    classes = tuple(str(c) for c in estimator.classes_)
    return HeldOutPredictions(
        held_out.ids,
        held_out.y,
        _probabilities(estimator, held_out),
        classes,
        held_out.groups,
        held_out.multilabel,
        has_probabilities(estimator),
    )


def _probabilities(estimator: Any, data: Features) -> NDArray[np.float32]:
    return np.asarray(heads.probabilities(estimator, data.X), dtype=np.float32)


def pool_rounds(rounds: Sequence[HoldoutRound]) -> HeldOutPredictions:
    """Concatenate the predictions of all rounds; the columns are all classes that were learned or occur."""
    parts = [r.predictions for r in rounds]
    multilabel = parts[0].multilabel
    learned = list(parts[0].classes) if len(parts) == 1 else sorted({c for p in parts for c in p.classes})
    occurring = {label for p in parts for y in p.y.tolist() for label in (y if multilabel else (y,))}
    names = [*learned, *sorted(occurring - set(learned))]
    if len(parts) > 1 and not multilabel:
        names = sorted(names)
    return HeldOutPredictions(
        ids=np.concatenate([p.ids for p in parts]),
        y=np.concatenate([p.y for p in parts]),
        proba=np.concatenate([align_columns(p.proba, p.classes, names) for p in parts]),
        classes=tuple(names),
        groups=np.concatenate([p.groups for p in parts]),
        multilabel=multilabel,
        has_probabilities=all(p.has_probabilities for p in parts),
    )

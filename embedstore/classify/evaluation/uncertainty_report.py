"""The effect of calibration, abstention and conformal sets on the held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.data.labels import encode_labels
from embedstore.classify.evaluation.evaluation import HeldOutPredictions
from embedstore.classify.evaluation.fit import align_columns
from embedstore.classify.evaluation.multilabel import binary_decisions
from embedstore.classify.evaluation.rounds import HoldoutRound
from embedstore.classify.evaluation.uncertainty import (
    AbstentionEffect,
    CalibrationEffect,
    ClassCoverage,
    ConformalEffect,
)
from embedstore.classify.metrics import MetricName
from embedstore.classify.metrics.shares import accuracy_rows, share_interval


def calibration_report(
    rounds: Sequence[HoldoutRound], pooled: HeldOutPredictions, method: str | None
) -> CalibrationEffect | None:
    """Return log-loss, Brier score and calibration error of the held-out rows, before and after calibration.

    Args:
        rounds: the rounds of evaluation of the head.
        pooled: the predictions of all rounds.
        method: the calibration method; None where the head is not calibrated.
    """
    if method is None:
        return None
    uncalibrated = [
        align_columns(r.uncalibrated, r.predictions.classes, pooled.classes)
        for r in rounds
        if r.uncalibrated is not None
    ]
    before = _calibration_metrics(pooled, np.concatenate(uncalibrated))
    return CalibrationEffect(method, rounds[0].n_calibration, *before, *_calibration_metrics(pooled, pooled.proba))


def _calibration_metrics(pooled: HeldOutPredictions, proba: NDArray[np.float32]) -> tuple[float, float, float | None]:
    """Return log-loss, Brier score and calibration error; None for the error where there are too few rows."""
    y, groups, scores = _columns_and_scores(pooled, proba)
    loss, brier = (metrics.compute_metric(m, y, scores) for m in (MetricName.LOG_LOSS, MetricName.BRIER_SCORE))
    error = metrics.calibration_error(scores.max(1), scores.argmax(1) == y, groups).value
    return round(loss, 6), round(brier, 6), round(error, 6) if np.isfinite(error) else None


def _columns_and_scores(
    pooled: HeldOutPredictions, proba: NDArray[np.float32]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64], NDArray[np.float32]]:
    """Return true columns, groups and probabilities: of every row, or with several labels of every decision."""
    if not pooled.multilabel:
        return encode_labels(pooled.y, pooled.classes), pooled.groups, proba
    y, scores = binary_decisions(pooled.y, proba, pooled.classes)
    return y, np.repeat(pooled.groups, proba.shape[1]), scores


def abstention_report(rounds: Sequence[HoldoutRound], target_precision: float | None) -> AbstentionEffect | None:
    """Return the threshold of a head that abstains, and its precision and coverage on the held-out rows.

    The threshold is None where no threshold keeps the target; ``rows_needed`` then says about how many rows would show
    one, if that is known.
    """
    if target_precision is None:
        return None
    answered = np.concatenate([r.estimator.answers(r.predictions.proba) for r in rounds])
    correct = np.concatenate([r.predictions.correct for r in rounds])
    groups = np.concatenate([r.predictions.groups for r in rounds])
    threshold = float(rounds[0].estimator.threshold_)
    return AbstentionEffect(
        target_precision=target_precision,
        threshold=threshold if math.isfinite(threshold) else None,
        precision=float(correct[answered].mean()) if answered.any() else None,
        precision_interval=_interval(correct[answered], groups[answered]),
        answered=int(answered.sum()),
        coverage=float(answered.mean()),
        rows=rounds[0].n_calibration,
        groups=rounds[0].estimator.n_draws_,
        rows_needed=rounds[0].estimator.rows_needed_,
    )


def conformal_report(rounds: Sequence[HoldoutRound], alpha: float | None) -> ConformalEffect | None:
    """Return how often the sets hold the true class of the held-out rows, in all and by class, and their size.

    The threshold is a number, or a mapping by class where each has its own.
    """
    if alpha is None:
        return None
    covered, sizes = (np.concatenate(parts) for parts in zip(*(_set_coverage(r) for r in rounds), strict=True))
    y = np.concatenate([r.predictions.y.astype(str) for r in rounds])
    first = rounds[0]
    return ConformalEffect(
        target_coverage=1 - alpha,
        threshold=_threshold(first),
        coverage=float(covered.mean()),
        coverage_interval=_interval(covered, np.concatenate([r.predictions.groups for r in rounds])),
        coverage_by_class=[
            ClassCoverage(str(c), int((y == c).sum()), float(covered[y == c].mean())) for c in np.unique(y)
        ],
        mean_size=float(sizes.mean()),
        empty=float((sizes == 0).mean()),
        single=float((sizes == 1).mean()),
        rows=first.n_calibration,
    )


def _interval(correct: NDArray[np.bool_], groups: NDArray[np.int64]) -> list[float] | None:
    """Return the 95% interval of a share of held-out rows; None without rows."""
    return list(share_interval(accuracy_rows(correct, groups))) if len(correct) else None


def _threshold(r: HoldoutRound) -> float | dict[str, float]:
    """Return the threshold of the sets of one round."""
    threshold = r.estimator.threshold_
    if np.ndim(threshold) == 0:
        return float(threshold)
    return dict(zip(r.predictions.classes, np.asarray(threshold).tolist(), strict=True))


def _set_coverage(r: HoldoutRound) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which sets of one round hold the true class, and the size of every set: both ``(M,)``."""
    member = r.estimator.members(r.predictions.proba)
    is_true = np.array(r.predictions.classes) == r.predictions.y.astype(str)[:, None]
    return (member & is_true).any(1), member.sum(1)

"""The effect of calibration, abstention and conformal sets on the held-out rows."""

from __future__ import annotations

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
from embedstore.classify.metrics import MetricName


def calibration_report(
    rounds: Sequence[HoldoutRound], pooled: HeldOutPredictions, method: str | None
) -> dict[str, Any] | None:
    """Return log-loss, Brier score and calibration error of the held-out rows, before and after calibration.

    Args:
        rounds: of the head.
        pooled: the predictions of all rounds.
        method: of the calibration; None where the head is not calibrated.
    """
    if method is None:
        return None
    uncalibrated = [
        align_columns(r.uncalibrated, r.predictions.classes, pooled.classes)
        for r in rounds
        if r.uncalibrated is not None
    ]
    out: dict[str, Any] = {"method": method, "rows": rounds[0].n_calibration}
    for name, proba in (("before", np.concatenate(uncalibrated)), ("after", pooled.proba)):
        out |= {f"{metric}_{name}": value for metric, value in _calibration_metrics(pooled, proba).items()}
    return out


def _calibration_metrics(pooled: HeldOutPredictions, proba: NDArray[np.float32]) -> dict[str, float | None]:
    """Return the metrics of calibration by name; None where there are too few rows."""
    y, groups, scores = _columns_and_scores(pooled, proba)
    out: dict[str, float | None] = {
        m.value: round(metrics.compute_metric(m, y, scores), 6) for m in (MetricName.LOG_LOSS, MetricName.BRIER_SCORE)
    }
    error = metrics.calibration_error(scores.max(1), scores.argmax(1) == y, groups).value
    return out | {metrics.CALIBRATION_ERROR: round(error, 6) if np.isfinite(error) else None}


def _columns_and_scores(
    pooled: HeldOutPredictions, proba: NDArray[np.float32]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64], NDArray[np.float32]]:
    """Return true columns, groups and probabilities: of every row, or with several labels of every decision."""
    if not pooled.multilabel:
        return encode_labels(pooled.y, pooled.classes), pooled.groups, proba
    y, scores = binary_decisions(pooled.y, proba, pooled.classes)
    return y, np.repeat(pooled.groups, proba.shape[1]), scores


def abstention_report(rounds: Sequence[HoldoutRound], target_precision: float | None) -> dict[str, Any] | None:
    """Return the threshold of a head that abstains, and its precision and coverage on the held-out rows."""
    if target_precision is None:
        return None
    answered = np.concatenate([r.predictions.proba.max(1) >= r.estimator.threshold_ for r in rounds])
    correct = np.concatenate([r.predictions.correct for r in rounds])
    return {
        "target_precision": target_precision,
        "threshold": float(rounds[0].estimator.threshold_),
        "precision": float(correct[answered].mean()) if answered.any() else None,
        "coverage": float(answered.mean()),
        "rows": rounds[0].n_calibration,
    }


def conformal_report(rounds: Sequence[HoldoutRound], alpha: float | None) -> dict[str, Any] | None:
    """Return how often the sets of classes hold the true class of the held-out rows, and how large they are."""
    if alpha is None:
        return None
    covered, sizes = zip(*(_set_coverage(r) for r in rounds), strict=True)
    size = np.concatenate(sizes)
    return {
        "target_coverage": 1 - alpha,
        "threshold": float(rounds[0].estimator.threshold_),
        "coverage": float(np.concatenate(covered).mean()),
        "mean_size": float(size.mean()),
        "empty": float((size == 0).mean()),
        "single": float((size == 1).mean()),
        "rows": rounds[0].n_calibration,
    }


def _set_coverage(r: HoldoutRound) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which sets of one round hold the true class, and the size of every set: both ``(M,)``."""
    member = r.predictions.proba >= r.estimator.threshold_
    is_true = np.array(r.predictions.classes) == r.predictions.y.astype(str)[:, None]
    return (member & is_true).any(1), member.sum(1)

"""Metrics of a head that predicts any number of labels per item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.data.labels import LABEL_THRESHOLD, label_indicators
from embedstore.classify.metrics import DEFAULT_REPLICATES, ClassificationReport, MetricEstimate, MetricName

LEARNING_CURVE_METRIC = MetricName.AVERAGE_PRECISION  # it needs no threshold


def multilabel_report(y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]) -> ClassificationReport:
    """Compute the metrics of multilabel predictions with 95% bootstrap intervals over items.

    ``accuracy`` is the share of items whose labels are all correct. Micro and macro F1 take labels at a probability of
    one half. Macro average precision and AUROC need no threshold. Log-loss and calibration error go over all
    yes-or-no decisions. There is no confusion matrix.

    Args:
        y: tuples of labels ``(M,)``.
        proba: float32 ``(M, K)``.
        names: the K labels.
    """
    true, predicted = label_indicators(y, names), proba >= LABEL_THRESHOLD
    ranks = metrics.ranking_metrics(true, proba)
    scores = _weighted_scores(true, proba)
    for metric, value in (
        (MetricName.AVERAGE_PRECISION, ranks.macro_average_precision),
        (MetricName.AUROC, ranks.macro_auroc),
    ):
        low, high = metrics.bootstrap_interval(metric, true.astype(np.int64), proba)
        scores[metric.value] = MetricEstimate(value, low, high, DEFAULT_REPLICATES)
    counts = zip((true & predicted).sum(0).tolist(), true.sum(0).tolist(), predicted.sum(0).tolist(), strict=True)
    return ClassificationReport(
        rows=len(y),
        classes=tuple(names),
        scores=scores,
        confusion=(),
        per_class=tuple(
            metrics.class_metrics(name, c, float(ranks.auroc[k]), float(ranks.average_precision[k]))
            for k, (name, c) in enumerate(zip(names, counts, strict=True))
        ),
    )


def exact_match(y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which items are predicted with all their labels and no other, bool ``(M,)``.

    An item with a label that is not among the names never matches.
    """
    known = np.array([set(row) <= set(names) for row in y.tolist()], dtype=bool)
    same: NDArray[np.bool_] = (label_indicators(y, names) == (proba >= LABEL_THRESHOLD)).all(1)
    return known & same


def binary_decisions(
    y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.float32]]:
    """Return every yes-or-no decision as a row of its own, for calibration metrics.

    Args:
        y: tuples of labels ``(M,)``.
        proba: float32 ``(M, K)``.
        names: the K labels.

    Returns:
        0 or 1, int64 ``(M * K,)``, and the probabilities of no and yes, float32 ``(M * K, 2)``.
    """
    yes = proba.ravel()
    below_half = np.nextafter(np.float32(LABEL_THRESHOLD), np.float32(0))
    no = np.where(yes == LABEL_THRESHOLD, below_half, 1 - yes)  # a probability of one half counts as yes
    return label_indicators(y, names).ravel().astype(np.int64), np.stack([no, yes], axis=1)


def macro_average_precision(y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]) -> float:
    """Return the mean average precision over the labels that occur."""
    return metrics.ranking_metrics(label_indicators(y, names), proba).macro_average_precision


def _weighted_scores(true: NDArray[np.bool_], proba: NDArray[np.float32]) -> dict[str, MetricEstimate]:
    """Compute the metrics that are ratios of sums over items, with intervals from reweighted items."""
    columns: dict[str, list[NDArray[np.float64]]] = {}
    ones = np.ones((1, len(true)), dtype=np.float32)
    for weights in (ones, *metrics.bootstrap_counts(len(true), DEFAULT_REPLICATES, 0)):
        for name, values in _weighted(true, proba, weights).items():
            columns.setdefault(name, []).append(values)
    return {name: _estimate(name, np.concatenate(values)) for name, values in columns.items()}


def _weighted(
    true: NDArray[np.bool_], proba: NDArray[np.float32], weights: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """Compute each metric once per row of weights, ``(B, M)``: arrays ``(B,)`` by name."""
    predicted = proba >= LABEL_THRESHOLD
    total = weights.sum(1)
    # F1 = 2 hits / (2 hits + misses + false alarms)
    hits, errors = weights @ (true & predicted), weights @ (true ^ predicted)
    f1 = _ratio(2 * hits, 2 * hits + errors)
    with np.errstate(invalid="ignore"):
        macro_f1 = np.nansum(f1, 1) / np.isfinite(f1).sum(1)
    p = np.clip(np.where(true, proba, 1 - proba).astype(np.float64), np.finfo(np.float32).eps, 1)
    return {
        MetricName.ACCURACY.value: weights @ (true == predicted).all(1) / total,
        "micro_f1": _ratio(2 * hits.sum(1), 2 * hits.sum(1) + errors.sum(1)),
        MetricName.MACRO_F1.value: macro_f1,
        MetricName.LOG_LOSS.value: weights @ -np.log(p).mean(1) / total,
        MetricName.EXPECTED_CALIBRATION_ERROR.value: np.abs(weights @ _calibration_gaps(true, proba)).sum(1) / total,
    }


def _calibration_gaps(true: NDArray[np.bool_], proba: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return correct minus confidence, averaged over the labels of an item, by bin of confidence: ``(M, bins)``."""
    confidence = np.maximum(proba, 1 - proba).astype(np.float64)
    bins = np.clip(np.ceil(confidence * metrics.ECE_BINS).astype(int) - 1, 0, metrics.ECE_BINS - 1)
    gap = (true == (proba >= LABEL_THRESHOLD)) - confidence
    out = np.zeros((len(true), metrics.ECE_BINS))
    np.add.at(out, (np.arange(len(true))[:, None], bins), gap / true.shape[1])
    return out


def _ratio(numerator: NDArray[np.floating[Any]], denominator: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan).astype(np.float64)


def _estimate(name: str, values: NDArray[np.float64]) -> MetricEstimate:
    """Return the first value with the interval of the others, its replicates."""
    value = float(values[0])
    center = value if name == MetricName.EXPECTED_CALIBRATION_ERROR else None
    return MetricEstimate(value, *metrics.percentile_interval(values[1:], center=center), DEFAULT_REPLICATES)

"""Metrics of a head that predicts any number of labels per item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.data.labels import LABEL_THRESHOLD, label_indicators
from embedstore.classify.metrics import (
    CALIBRATION_ERROR,
    DEFAULT_REPLICATES,
    ClassificationReport,
    ClassMetrics,
    MetricEstimate,
    MetricName,
    ReliabilityBin,
)
from embedstore.classify.metrics.intervals import FEW_ERRORS, MOST, ScoredRows, loss_interval, metric_intervals
from embedstore.classify.metrics.ranking import RankingMetrics
from embedstore.classify.metrics.shares import accuracy_rows, share_interval, wilson_interval
from embedstore.classify.metrics.voc import voc_estimates

LEARNING_CURVE_METRIC = MetricName.AVERAGE_PRECISION  # it needs no threshold


def multilabel_report(
    y: NDArray[np.object_],
    proba: NDArray[np.float32],
    names: Sequence[str],
    *,
    groups: NDArray[np.int64] | None = None,
    has_probabilities: bool = True,
) -> ClassificationReport:
    """Compute the metrics of multilabel predictions with 95% intervals; items of one group are one draw.

    ``accuracy`` is the share of items whose labels are all correct. Micro and macro F1 take labels at a probability of
    one half. Macro average precision (a step sum, and as the VOC challenges count it) and AUROC need no threshold.
    Log-loss, Brier score and calibration error go over all yes-or-no decisions. There is no confusion matrix.

    Args:
        y: tuples of labels ``(M,)``.
        proba: float32 ``(M, K)``.
        names: the K labels.
        groups: int64 ``(M,)``; by default every item is one group.
        has_probabilities: False for scores that only rank: log-loss, Brier score and calibration error are left out.
    """
    groups = np.arange(len(y)) if groups is None else groups
    rows = ScoredRows(label_indicators(y, names).astype(np.int64), proba, groups)
    true, predicted = rows.y.astype(bool), proba >= LABEL_THRESHOLD
    ranks = metrics.ranking_metrics(true, proba)
    scores = _scores(rows, has_probabilities)
    values = {MetricName.AVERAGE_PRECISION: ranks.macro_average_precision, MetricName.AUROC: ranks.macro_auroc}
    intervals = metric_intervals(list(values), rows)
    scores |= {m.value: MetricEstimate(value, *intervals[m]) for m, value in values.items()}
    scores |= voc_estimates(true, proba, groups, has_interval=rows.n_groups > 1 and rows.share_of_rare_classes <= MOST)
    reliability: tuple[ReliabilityBin, ...] = ()
    if has_probabilities:
        confidence, correct = np.maximum(proba, 1 - proba).ravel(), (true == predicted).ravel()
        error = metrics.calibration_error(confidence, correct, np.repeat(groups, proba.shape[1]))
        scores[CALIBRATION_ERROR], reliability = metrics.calibration_estimate(error), error.bins
    return ClassificationReport(
        rows=len(y),
        classes=tuple(names),
        scores=scores,
        confusion=(),
        per_class=tuple(_label_metrics(k, name, rows, ranks) for k, name in enumerate(names)),
        reliability=reliability,
    )


def _label_metrics(k: int, name: str, rows: ScoredRows, ranks: RankingMetrics) -> ClassMetrics:
    """Return the metrics of one label."""
    true, predicted = rows.y[:, k] > 0, rows.proba[:, k] >= LABEL_THRESHOLD
    counts = int((true & predicted).sum()), int(true.sum()), int(predicted.sum())
    recall = share_interval(accuracy_rows(predicted[true], rows.groups[true]))
    auroc, precision = float(ranks.auroc[k]), float(ranks.average_precision[k])
    return metrics.class_metrics(name, counts, recall, auroc=auroc, average_precision=precision)


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


def _scores(rows: ScoredRows, has_probabilities: bool) -> dict[str, MetricEstimate]:
    """Compute the metrics that are ratios of sums over items, with intervals from resampled groups of items."""
    true = rows.y.astype(bool)
    value = {n: float(v[0]) for n, v in _f1_scores(true, rows.proba, np.ones((1, len(true)), np.float32)).items()}
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in value}
    for weights in metrics.bootstrap_counts(len(true), DEFAULT_REPLICATES, 0, groups=rows.groups):
        for name, values in _f1_scores(true, rows.proba, weights).items():
            drawn[name].append(values)
    out = {MetricName.ACCURACY.value: _accuracy(rows)}
    for name, figure in value.items():
        low, high = metrics.logit_interval(figure, np.concatenate(drawn[name]), rows.n_groups)
        if rows.n_groups_with_errors < FEW_ERRORS or np.isnan(low):
            wilson = wilson_interval(figure, rows.independent_draws)
            low, high = float(np.fmin(low, wilson[0])), float(np.fmax(high, wilson[1]))
        out[name] = MetricEstimate(figure, max(low, 0.0), min(high, 1.0))
    return out | (_losses(rows) if has_probabilities else {})


def _accuracy(rows: ScoredRows) -> MetricEstimate:
    """Return the share of items whose labels are all correct."""
    return MetricEstimate(float(rows.correct.mean()), *share_interval(accuracy_rows(rows.correct, rows.groups)))


def _losses(rows: ScoredRows) -> dict[str, MetricEstimate]:
    """Return log-loss and Brier score over all decisions, averaged over the labels of each item."""
    true, proba = rows.y.astype(bool), rows.proba.astype(np.float64)
    of_truth = np.where(true, proba, 1 - proba)
    losses = {
        MetricName.LOG_LOSS: -np.log(np.clip(of_truth, np.finfo(np.float32).eps, 1)).mean(1),
        MetricName.BRIER_SCORE: 2 * ((1 - of_truth) ** 2).mean(1),  # of both columns, no and yes
    }
    return {m.value: MetricEstimate(float(loss.mean()), *loss_interval(m, loss, rows)) for m, loss in losses.items()}


def _f1_scores(
    true: NDArray[np.bool_], proba: NDArray[np.float32], weights: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    """Compute micro and macro F1 once per row of weights, ``(B, M)``: arrays ``(B,)`` by name."""
    predicted = proba >= LABEL_THRESHOLD
    # F1 = 2 hits / (2 hits + misses + false alarms)
    hits, errors = weights @ (true & predicted), weights @ (true ^ predicted)
    f1 = _ratio(2 * hits, 2 * hits + errors)
    with np.errstate(invalid="ignore"):
        macro_f1 = np.nansum(f1, 1) / np.isfinite(f1).sum(1)
    return {
        "micro_f1": _ratio(2 * hits.sum(1), 2 * hits.sum(1) + errors.sum(1)),
        MetricName.MACRO_F1.value: macro_f1,
    }


def _ratio(numerator: NDArray[np.floating[Any]], denominator: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan).astype(np.float64)

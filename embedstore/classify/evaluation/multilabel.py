"""Any number of labels an item: the figures that are honest for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.data.labels import LABEL_THRESHOLD, label_indicators
from embedstore.classify.metrics import DEFAULT_REPLICATES, ClassificationReport, MetricEstimate, MetricName

LEARNING_CURVE_METRIC = MetricName.AVERAGE_PRECISION  # of a learning curve: it needs no threshold


def multilabel_report(y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]) -> ClassificationReport:
    """Figures with 95% bootstrap intervals over items: ``accuracy`` (all labels of an item right), micro and macro F1
    at a probability of one half, macro average precision and AUROC, and over all yes-or-no decisions log-loss and
    calibration error; no confusion matrix, for there is none.

    Args:
        y: tuples of labels ``(M,)``. proba: ``(M, K)``. names: the K labels.
    """  # noqa: D205 - the list is the sentence
    true, said = label_indicators(y, names), proba >= LABEL_THRESHOLD
    ranks = metrics.ranking_metrics(true, proba)
    scores = _counted(true, proba)
    for metric, found in (
        (MetricName.AVERAGE_PRECISION, ranks.macro_average_precision),
        (MetricName.AUROC, ranks.macro_auroc),
    ):
        low, high = metrics.bootstrap_interval(metric, true.astype(np.int64), proba)
        scores[metric.value] = MetricEstimate(found, low, high, DEFAULT_REPLICATES)
    counted = zip((true & said).sum(0).tolist(), true.sum(0).tolist(), said.sum(0).tolist(), strict=True)
    return ClassificationReport(
        rows=len(y),
        classes=tuple(names),
        scores=scores,
        confusion=(),
        per_class=tuple(
            metrics.class_metrics(name, c, float(ranks.auroc[k]), float(ranks.average_precision[k]))
            for k, (name, c) in enumerate(zip(names, counted, strict=True))
        ),
    )


def exact_match(y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.bool_]:
    """Which items have all their labels and no other: ``(M,)``; a label beyond the names is never given."""
    known = np.array([set(row) <= set(names) for row in y.tolist()], dtype=bool)
    same: NDArray[np.bool_] = (label_indicators(y, names) == (proba >= LABEL_THRESHOLD)).all(1)
    return known & same


def binary_decisions(
    y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.float32]]:
    """Every yes or no as a row of its own, for calibration figures: 0 or 1 ``(M * K,)``, ``(M * K, 2)``."""
    yes = proba.ravel()
    no = np.where(
        yes == LABEL_THRESHOLD, np.nextafter(np.float32(LABEL_THRESHOLD), np.float32(0)), 1 - yes
    )  # one half is a yes
    return label_indicators(y, names).ravel().astype(np.int64), np.stack([no, yes], axis=1)


def macro_average_precision(y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]) -> float:
    """Mean over the labels that occur."""
    return metrics.ranking_metrics(label_indicators(y, names), proba).macro_average_precision


def _counted(true: NDArray[np.bool_], proba: NDArray[np.float32]) -> dict[str, MetricEstimate]:
    """The figures that are ratios of sums over items: first their values, then their replicates."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    ones = np.ones((1, len(true)), dtype=np.float32)
    for weights in (ones, *metrics.bootstrap_counts(len(true), DEFAULT_REPLICATES, 0)):
        for name, values in _weighted(true, proba, weights).items():
            found.setdefault(name, []).append(values)
    return {name: _score(name, np.concatenate(values)) for name, values in found.items()}


def _weighted(
    true: NDArray[np.bool_], proba: NDArray[np.float32], weights: NDArray[Any]
) -> dict[str, NDArray[np.float64]]:
    said = proba >= LABEL_THRESHOLD
    total = weights.sum(1)
    hits, wrong = weights @ (true & said), weights @ (true ^ said)  # F1 = 2 hits / (2 hits + misses + false alarms)
    each = _ratio(2 * hits, 2 * hits + wrong)
    with np.errstate(invalid="ignore"):
        macro = np.nansum(each, 1) / np.isfinite(each).sum(1)
    p = np.clip(np.where(true, proba, 1 - proba).astype(np.float64), np.finfo(np.float32).eps, 1)
    return {
        "accuracy": weights @ (true == said).all(1) / total,
        "micro_f1": _ratio(2 * hits.sum(1), 2 * hits.sum(1) + wrong.sum(1)),
        "macro_f1": macro,
        MetricName.LOG_LOSS.value: weights @ -np.log(p).mean(1) / total,
        MetricName.EXPECTED_CALIBRATION_ERROR.value: np.abs(weights @ _gaps(true, proba)).sum(1) / total,
    }


def _gaps(true: NDArray[np.bool_], proba: NDArray[np.float32]) -> NDArray[np.float64]:
    """Right minus confidence of an item's decisions, by bin of confidence, over the labels: ``(M, bins)``."""
    sure = np.maximum(proba, 1 - proba).astype(np.float64)
    bins = np.clip(np.ceil(sure * metrics.ECE_BINS).astype(int) - 1, 0, metrics.ECE_BINS - 1)
    gap = (true == (proba >= LABEL_THRESHOLD)) - sure
    out = np.zeros((len(true), metrics.ECE_BINS))
    np.add.at(out, (np.arange(len(true))[:, None], bins), gap / true.shape[1])
    return out


def _ratio(top: NDArray[np.floating[Any]], bottom: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan).astype(np.float64)


def _score(name: str, values: NDArray[np.float64]) -> MetricEstimate:
    centre = float(values[0]) if name == MetricName.EXPECTED_CALIBRATION_ERROR else None
    return MetricEstimate(float(values[0]), *metrics.percentile_interval(values[1:], center=centre), DEFAULT_REPLICATES)

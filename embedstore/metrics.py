"""How good predictions are: named metrics, each with a bootstrap interval.

Every metric is one function of weighted rows: weights of ones give the value, multinomial counts give its bootstrap
replicates (Efron 1979), all replicates in one matrix. The name always says which metric it is: accuracy and mean
per-class recall differ by six points on Caltech-101.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import LabelError

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Weighted = Callable[[Ints, Floats, Floats], Floats]
"""``(y, proba (N, K), weights (B, N)) -> (B,)``."""

ECE_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2
_BLOCK = 4_000_000  # weights held at once: 16 MB of float32
_RANK_BUDGET = 30_000_000  # rows x classes x replicates that a ranking metric may cost: about a second
_FEWEST = 50  # with fewer replicates the 2.5% and 97.5% points mean nothing: then there is no interval


class Metric(StrEnum):
    """The names under which figures are reported."""

    ACCURACY = "accuracy"
    TOP5 = "top5_accuracy"
    RECALL = "mean_per_class_recall"
    MACRO_F1 = "macro_f1"
    LOG_LOSS = "log_loss"
    ECE = "expected_calibration_error"
    AUROC = "auroc_ovr_macro"
    AVERAGE_PRECISION = "average_precision_macro"


@dataclass(frozen=True, slots=True)
class Score:
    """One figure with its 95% interval.

    Attributes:
        value: on all rows. low, high: 2.5% and 97.5% of the bootstrap replicates.
        replicates: how many there were (fewer for ranking metrics over very many rows and classes).
    """

    value: float
    low: float
    high: float
    replicates: int


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class of the per-class table. ``support`` and ``predicted`` count rows."""

    name: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float
    auroc: float
    average_precision: float


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a classifier on one set of rows.

    Attributes:
        rows: how many were judged. classes: in the order of the columns.
        scores: by metric name. confusion: ``[true][predicted]`` counts. per_class: one row a class.
    """

    rows: int
    classes: tuple[str, ...]
    scores: dict[str, Score]
    confusion: tuple[tuple[int, ...], ...]
    per_class: tuple[ClassRow, ...]

    def __getitem__(self, name: str) -> float:
        """The value of one metric by its name."""
        return self.scores[Metric(name)].value

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; a figure that does not exist (NaN) is None."""
        return _plain(asdict(self))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two classifiers differ on the same rows.

    Attributes:
        value: second minus first. low, high: 95% of the paired bootstrap replicates.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's exact test.

    Attributes:
        only_first, only_second: rows that one alone got right. p_value: two-sided, binomial.
    """

    only_first: int
    only_second: int
    p_value: float


def accuracy(y: Ints, proba: Floats) -> float:
    """Share of rows whose highest score is the true class.

    Args:
        y: true columns, int ``(N,)``.
        proba: scores ``(N, K)``.
    """
    return value(Metric.ACCURACY, y, proba)


def top5_accuracy(y: Ints, proba: Floats) -> float:
    """Share of rows whose true class is among the five highest scores."""
    return value(Metric.TOP5, y, proba)


def mean_per_class_recall(y: Ints, proba: Floats) -> float:
    """Recall averaged over the classes that occur in ``y``: every class counts the same (balanced accuracy)."""
    return value(Metric.RECALL, y, proba)


def macro_f1(y: Ints, proba: Floats) -> float:
    """F1 averaged over the classes that occur in ``y`` or are predicted."""
    return value(Metric.MACRO_F1, y, proba)


def log_loss(y: Ints, proba: Floats) -> float:
    """Mean negative natural logarithm of the true class's probability."""
    return value(Metric.LOG_LOSS, y, proba)


def expected_calibration_error(y: Ints, proba: Floats) -> float:
    """Mean distance of confidence and accuracy over 15 equal bins of confidence (Guo et al. 2017)."""
    return value(Metric.ECE, y, proba)


def auroc(y: Ints, proba: Floats) -> float:
    """Area under the ROC curve, one class against the rest, averaged over the classes that have both kinds of rows.

    ``y`` may also be an indicator matrix ``(N, K)`` for multi-label rows.
    """
    return value(Metric.AUROC, y, proba)


def average_precision(y: Ints, proba: Floats) -> float:
    """Area under the precision-recall curve as a step sum, averaged over the classes that occur.

    ``y`` may also be an indicator matrix ``(N, K)`` for multi-label rows.
    """
    return value(Metric.AVERAGE_PRECISION, y, proba)


def value(metric: Metric | str, y: Ints, proba: Floats) -> float:
    """One metric on all rows.

    Args:
        metric: which one, by member or name.
        y: true columns, int ``(N,)``.
        proba: probabilities ``(N, K)``; for binary tasks both columns.

    Raises:
        LabelError: no rows, or a column that ``proba`` does not have.
    """
    y, proba = _checked(y, proba)
    return float(_WEIGHTED[Metric(metric)](y, proba, np.ones((1, len(y)), np.float32))[0])


def bootstrap_interval(
    metric: Metric | str, y: Ints, proba: Floats, *, n: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval over resampled rows (Efron 1979).

    Args:
        metric, y, proba: as for :func:`value`.
        n: replicates. A ranking metric takes fewer when rows x classes x n would exceed a second of work, and
            has no interval (NaN) where fewer than 50 would be left.
        seed: of the resampling.
    """
    y, proba = _checked(y, proba)
    return _interval(_replicates(Metric(metric), y, [proba], n, seed)[0])


def paired_bootstrap(
    metric: Metric | str, y: Ints, first: Floats, second: Floats, *, n: int = 1000, seed: int = 0
) -> Difference:
    """The second classifier minus the first on the same rows, with its interval over rows resampled for both alike."""
    y, first = _checked(y, first)
    y, second = _checked(y, second)
    a, b = _replicates(Metric(metric), y, [first, second], n, seed)
    low, high = _interval(b - a)
    return Difference(value(metric, y, second) - value(metric, y, first), low, high)


def mcnemar(y: Ints, first: Ints, second: Ints) -> McNemar:
    """McNemar's exact test that two classifiers err equally often (McNemar 1947).

    Args:
        y, first, second: true and predicted classes, ``(N,)``.
    """
    right_a, right_b = np.asarray(first) == np.asarray(y), np.asarray(second) == np.asarray(y)
    a, b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return McNemar(a, b, _two_sided_coin(a, b))


def recall_at_k(scores: Floats, relevant: npt.NDArray[Any], k: int) -> float:
    """Share of queries that have a relevant row among their k highest scores; equal scores count in row order.

    Args:
        scores: ``(Q, N)``, higher is nearer.
        relevant: bool ``(Q, N)``, or int ``(Q,)``, the one relevant row.
        k: how many are looked at; all when there are fewer.
    """
    scores = np.asarray(scores)
    if relevant.ndim == 1:
        relevant = np.arange(scores.shape[1]) == relevant[:, None]
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(relevant, top, axis=1).any(axis=1).mean())


def confusion_matrix(y: Ints, predicted: Ints, n_classes: int) -> Ints:
    """Counts ``[true, predicted]``, int64 ``(K, K)``."""
    return np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def report(
    y_true: Sequence[Any] | npt.NDArray[Any],
    proba: Floats,
    classes: Sequence[Any] | npt.NDArray[Any],
    *,
    n: int = 1000,
    seed: int = 0,
) -> Report:
    """Every metric with its interval, the confusion matrix and the per-class table.

    Args:
        y_true: labels ``(N,)``.
        proba: probabilities ``(N, K)``.
        classes: the K labels in the order of the columns.
        n, seed: of the bootstrap.

    Raises:
        LabelError: no rows, or a label that is not among the classes.
    """
    y, proba = _checked(codes(y_true, classes), proba)
    names = tuple(str(c) for c in classes)
    confusion = confusion_matrix(y, proba.argmax(1), len(names))
    return Report(
        rows=len(y),
        classes=names,
        scores={m.value: _score(m, y, proba, n, seed) for m in Metric},
        confusion=tuple(tuple(int(v) for v in row) for row in confusion),
        per_class=_class_table(y, proba, names, confusion),
    )


def codes(labels: Sequence[Any] | npt.NDArray[Any], classes: Sequence[Any] | npt.NDArray[Any]) -> Ints:
    """Labels as columns.

    Raises:
        LabelError: a label that is not among the classes.
    """
    column = {c: i for i, c in enumerate(np.asarray(classes).tolist())}
    values = np.asarray(labels).tolist()
    unknown = sorted({str(v) for v in values if v not in column})
    if unknown:
        raise LabelError(f"labels {', '.join(unknown[:5])} are not among the head's {len(column)} classes")
    return np.array([column[v] for v in values], dtype=np.int64)


def _checked(y: Ints, proba: Floats) -> tuple[Ints, Floats]:
    y, proba = np.asarray(y), np.asarray(proba)
    if proba.ndim != 2 or len(y) != len(proba):
        raise LabelError(f"expected one row of scores a label, found {len(y)} labels and scores {proba.shape}")
    if len(y) == 0:
        raise LabelError("no labelled rows to judge")
    if y.ndim == 1 and (y.min() < 0 or y.max() >= proba.shape[1]):
        raise LabelError(f"labels name columns {y.min()} to {y.max()} of {proba.shape[1]}")
    return y, proba


def _score(metric: Metric, y: Ints, proba: Floats, n: int, seed: int) -> Score:
    replicates = _replicates(metric, y, [proba], n, seed)[0]
    low, high = _interval(replicates)
    return Score(value(metric, y, proba), low, high, len(replicates))


def _interval(replicates: Floats) -> tuple[float, float]:
    finite = replicates[np.isfinite(replicates)]
    if len(finite) == 0:
        return math.nan, math.nan
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def _replicates(metric: Metric, y: Ints, probas: list[Floats], n: int, seed: int) -> list[Floats]:
    """The metric of each classifier on n resamplings, the same for all of them."""
    rows, width = len(y), probas[0].shape[1]
    if metric in (Metric.AUROC, Metric.AVERAGE_PRECISION):
        affordable = _RANK_BUDGET // (rows * width)
        n = min(n, affordable) if affordable >= _FEWEST else 0
    rng = np.random.default_rng(seed)
    out: list[list[Floats]] = [[np.zeros(0)] for _ in probas]
    step = max(1, _BLOCK // rows)
    for start in range(0, n, step):
        weights = _counts(rng, min(step, n - start), rows)
        for found, proba in zip(out, probas, strict=True):
            found.append(_WEIGHTED[metric](y, proba, weights))
    return [np.concatenate(found) for found in out]


def _counts(rng: np.random.Generator, n: int, rows: int) -> Floats:
    """How often each row is drawn in each of n resamplings: float32 ``(n, rows)``."""
    drawn = rng.integers(0, rows, (n, rows)) + np.arange(n)[:, None] * rows
    return np.bincount(drawn.ravel(), minlength=n * rows).reshape(n, rows).astype(np.float32)


def _mean(per_row: Floats, weights: Floats) -> Floats:
    return np.asarray((weights @ per_row.astype(np.float64)) / weights.sum(axis=1, dtype=np.float64))


def _grouped(weights: Floats, group: Ints, n_groups: int) -> Floats:
    """Weights summed by group: float64 ``(B, n_groups)``."""
    out = np.zeros((len(weights), n_groups))
    order = np.argsort(group, kind="stable")
    present, starts = np.unique(group[order], return_index=True)
    out[:, present] = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    return out


def _accuracy(y: Ints, proba: Floats, weights: Floats) -> Floats:
    return _mean(proba.argmax(1) == y, weights)


def _top5(y: Ints, proba: Floats, weights: Floats) -> Floats:
    true = np.take_along_axis(proba, y[:, None], axis=1)
    rank = (proba > true).sum(1) + ((proba == true) & (np.arange(proba.shape[1]) < y[:, None])).sum(1)
    return _mean(rank < 5, weights)


def _recall(y: Ints, proba: Floats, weights: Floats) -> Floats:
    support, _, hits = _tallies(y, proba, weights)
    return _macro(hits, support)


def _f1(y: Ints, proba: Floats, weights: Floats) -> Floats:
    support, predicted, hits = _tallies(y, proba, weights)
    return _macro(2 * hits, support + predicted)


def _tallies(y: Ints, proba: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Weighted true, predicted and rightly predicted rows of each class: three ``(B, K)``."""
    best, k = proba.argmax(1), proba.shape[1]
    right = np.where(best == y, y, k)  # one group more than classes gathers the misses
    return _grouped(weights, y, k), _grouped(weights, best, k), _grouped(weights, right, k + 1)[:, :k]


def _macro(top: Floats, bottom: Floats) -> Floats:
    """Mean over classes of a ratio, without the classes whose denominator is zero."""
    there = bottom > 0
    ratio = np.divide(top, bottom, out=np.zeros_like(bottom), where=there)
    return np.asarray(ratio.sum(1) / np.maximum(there.sum(1), 1))


def _log_loss(y: Ints, proba: Floats, weights: Floats) -> Floats:
    true = np.take_along_axis(proba, y[:, None], axis=1)[:, 0].astype(np.float64)
    return _mean(-np.log(np.maximum(true, np.finfo(proba.dtype).eps)), weights)  # sklearn.metrics.log_loss clips so


def _ece(y: Ints, proba: Floats, weights: Floats) -> Floats:
    confidence = proba.max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = (proba.argmax(1) == y) - confidence
    return np.asarray(np.abs(_grouped(weights * gap, bins, ECE_BINS)).sum(1) / weights.sum(1))


def _indicator(y: Ints, n_classes: int) -> npt.NDArray[np.bool_]:
    return y.astype(bool) if y.ndim == 2 else y[:, None] == np.arange(n_classes)


def _auroc(y: Ints, proba: Floats, weights: Floats) -> Floats:
    return _nanmean([_auc(t, s, weights) for t, s in zip(_indicator(y, proba.shape[1]).T, proba.T, strict=True)])


def _average_precision(y: Ints, proba: Floats, weights: Floats) -> Floats:
    return _nanmean([_ap(t, s, weights) for t, s in zip(_indicator(y, proba.shape[1]).T, proba.T, strict=True)])


def _nanmean(columns: list[Floats]) -> Floats:
    """Mean over classes, without those that have no figure; NaN when none has."""
    stacked = np.stack(columns)
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, stacked, 0).sum(0) / known.sum(0))


def _steps(true: npt.NDArray[np.bool_], score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Positive and negative weight at each distinct score, highest first: two ``(B, S)``."""
    order = np.argsort(-score, kind="stable")
    edges = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    ordered, positive = weights[:, order], true[order]
    return np.add.reduceat(ordered * positive, edges, axis=1), np.add.reduceat(ordered * ~positive, edges, axis=1)


def _auc(true: npt.NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    pos, neg = _steps(true, score, weights)
    above = np.cumsum(pos, axis=1, dtype=np.float64) - pos / 2  # a tie counts half
    with np.errstate(invalid="ignore"):
        return np.asarray((above * neg).sum(1) / (pos.sum(1, dtype=np.float64) * neg.sum(1, dtype=np.float64)))


def _ap(true: npt.NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    pos, neg = _steps(true, score, weights)
    found = np.cumsum(pos, axis=1, dtype=np.float64)
    seen = found + np.cumsum(neg, axis=1, dtype=np.float64)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((precision * pos).sum(1) / pos.sum(1, dtype=np.float64))


_WEIGHTED: dict[Metric, Weighted] = {
    Metric.ACCURACY: _accuracy,
    Metric.TOP5: _top5,
    Metric.RECALL: _recall,
    Metric.MACRO_F1: _f1,
    Metric.LOG_LOSS: _log_loss,
    Metric.ECE: _ece,
    Metric.AUROC: _auroc,
    Metric.AVERAGE_PRECISION: _average_precision,
}


def _class_table(y: Ints, proba: Floats, names: tuple[str, ...], confusion: Ints) -> tuple[ClassRow, ...]:
    one = np.ones((1, len(y)), np.float32)
    rows = []
    for k, name in enumerate(names):
        hits, support, predicted = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
        area, precision = float(_auc(y == k, proba[:, k], one)[0]), float(_ap(y == k, proba[:, k], one)[0])
        f1 = _ratio(2 * hits, support + predicted)
        rows.append(
            ClassRow(name, support, predicted, _ratio(hits, predicted), _ratio(hits, support), f1, area, precision)
        )
    return tuple(rows)


def _ratio(top: int, bottom: int) -> float:
    return top / bottom if bottom else math.nan


def _two_sided_coin(a: int, b: int) -> float:
    """Two-sided probability of a split at least as uneven as a:b under a fair coin."""
    n, tail = a + b, min(a, b)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(tail + 1)]
    return min(1.0, 2 * math.fsum(math.exp(v) for v in logs))


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _plain(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(v) for v in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree

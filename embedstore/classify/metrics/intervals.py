"""How far a figure may be luck: the bootstrap over rows (Efron 1979), alone and paired, and McNemar's exact test."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embedstore.classify.metrics.figures import WEIGHTED, Floats, Ints, Metric, checked, indicator, value
from embedstore.classify.metrics.ranking import Ranked, ranked

REPLICATES = 1000
_BLOCK = 4_000_000  # weights held at once: 16 MB of float32
_EXACT_RANKING = 5_000_000  # rows x classes x replicates up to which a ranking metric is counted anew: half a second
TOO_HIGH = (Metric.ECE, Metric.AVERAGE_PRECISION)
"""Rows drawn twice agree with themselves: resampling adds to these two figures, by more the fewer the rows."""
_RANKING = (Metric.AUROC, Metric.AVERAGE_PRECISION)


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


def bootstrap_interval(
    metric: Metric | str, y: Ints, proba: Floats, *, n: int = REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval over resampled rows (Efron 1979).

    Args:
        metric, y, proba: as for :func:`embedstore.classify.metrics.value`.
        n: replicates. A ranking metric whose rows x classes x n exceed a second of work is moved row by row instead
            of counted anew in each: see :mod:`embedstore.classify.metrics.ranking`.
        seed: of the resampling.
    """
    y, proba = checked(y, proba)
    found = replicates([Metric(metric)], y, [proba], n=n, seed=seed)[Metric(metric)][0]
    return interval(found, centre=value(metric, y, proba) if Metric(metric) in TOO_HIGH else None)


def paired_bootstrap(
    metric: Metric | str, y: Ints, first: Floats, second: Floats, *, n: int = REPLICATES, seed: int = 0
) -> Difference:
    """The second classifier minus the first on the same rows, with its interval over rows resampled for both alike."""
    y, first = checked(y, first)
    y, second = checked(y, second)
    a, b = replicates([Metric(metric)], y, [first, second], n=n, seed=seed)[Metric(metric)]
    low, high = interval(b - a)
    return Difference(value(metric, y, second) - value(metric, y, first), low, high)


def mcnemar(y: Ints, first: Ints, second: Ints) -> McNemar:
    """McNemar's exact test that two classifiers err equally often (McNemar 1947).

    Args:
        y, first, second: true and predicted classes, ``(N,)``.
    """
    right_a, right_b = np.asarray(first) == np.asarray(y), np.asarray(second) == np.asarray(y)
    a, b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return McNemar(a, b, _two_sided_coin(a, b))


def interval(values: Floats, *, centre: float | None = None) -> tuple[float, float]:
    """2.5% and 97.5% of the finite replicates; NaN where there are none.

    Args:
        values: replicates. centre: of a figure that is too high on resampled rows (:data:`TOO_HIGH`), its value: the
            replicates are moved so that this is their mean, and none goes beyond 0 and 1.
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return math.nan, math.nan
    if centre is not None:
        finite = np.clip(finite - (finite.mean() - centre), 0, 1)
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


def replicates(
    metrics: Sequence[Metric],
    y: Ints,
    probas: Sequence[Floats],
    *,
    n: int = REPLICATES,
    seed: int = 0,
    ranks: Sequence[Ranked] = (),
) -> dict[Metric, list[Floats]]:
    """Each metric of each classifier on n resamplings, the same for all of them: lists of ``(n,)``.

    Args:
        metrics: which. y: true columns ``(N,)`` or indicators ``(N, K)``. probas: ``(N, K)`` each.
        n: replicates. seed: of the resampling. ranks: of each classifier, where they are known.
    """
    rows, width = len(y), probas[0].shape[1]
    moved = [m for m in metrics if m in _RANKING and rows * width * n > _EXACT_RANKING]
    if moved and not ranks:
        ranks = [ranked(indicator(y, proba.shape[1]), proba) for proba in probas]
    out: dict[Metric, list[list[Floats]]] = {m: [[np.zeros(0)] for _ in probas] for m in metrics}
    for weights in counts(rows, n, seed):
        for metric in metrics:
            for i, proba in enumerate(probas):
                if metric in moved:
                    figure, by_row = _moves(ranks[i], metric)
                    out[metric][i].append(figure + weights @ by_row)
                else:
                    out[metric][i].append(WEIGHTED[metric](y, proba, weights))
    return {m: [np.concatenate(v) for v in lists] for m, lists in out.items()}


def counts(rows: int, n: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn in each of n resamplings: blocks of float32 ``(B, rows)``."""
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // rows)
    for start in range(0, n, step):
        b = min(step, n - start)
        drawn = rng.integers(0, rows, (b, rows)) + np.arange(b)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=b * rows).reshape(b, rows).astype(np.float32)


def _moves(found: Ranked, metric: Metric) -> tuple[float, Floats]:
    """A ranking figure, and how much each row moves it."""
    if metric is Metric.AUROC:
        return found.mean_area, found.area_moves
    return found.mean_precision, found.precision_moves


def _two_sided_coin(a: int, b: int) -> float:
    """Two-sided probability of a split at least as uneven as a:b under a fair coin."""
    n, tail = a + b, min(a, b)
    if n == 0:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(tail + 1)]
    return min(1.0, 2 * math.fsum(math.exp(v) for v in logs))

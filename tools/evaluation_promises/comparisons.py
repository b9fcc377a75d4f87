"""Comparisons of classifiers and of slices: how often they find a difference that is none, or miss one that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from embedstore.classify.metrics.simultaneous import SIGNIFICANCE, PairwiseDifferences, compare_all
from embedstore.classify.metrics.slice_gaps import share_gaps
from tools.evaluation_promises.draws import draw_slices
from tools.evaluation_promises.statement import Statement


def false_gaps(n_slices: int, size: int, accuracy: float, grouping: str, runs: int, *, seed: int = 0) -> float:
    """Return how often any interval of a gap among slices does not hold the true gap.

    Half of the slices have twice as many rows, and every third one has an accuracy that is lower by 0.1.

    Args:
        n_slices: the number of slices.
        size: rows of the small slices.
        accuracy: of most slices.
        grouping: see :func:`draw_slices`.
        runs: simulated test sets.
        seed: random seed.
    """
    rng, wrong = np.random.default_rng(seed), 0
    sizes = np.where(np.arange(n_slices) % 2, 2 * size, size)
    accuracies = np.where(np.arange(n_slices) % 3 == 1, accuracy - 0.1, accuracy)
    for _ in range(runs):
        drawn = draw_slices(accuracies, sizes, grouping, rng)
        wrong += not all(
            g.difference.low <= drawn.accuracies[g.high] - drawn.accuracies[g.low] <= g.difference.high
            for g in share_gaps(drawn.rows)
        )
    return wrong / runs


def familywise_error(
    k: int, n: int, accuracy: float, runs: int, *, group_size: int = 1, seed: int = 0
) -> tuple[float, float]:
    """Return how often k equal classifiers get a p-value below 0.05, and an interval of a gap that excludes 0.

    Args:
        k: the number of classifiers.
        n: rows.
        accuracy: the true accuracy of all of them.
        runs: simulated test sets.
        group_size: rows of one group are predicted alike.
        seed: random seed.
    """
    rng, by_p, by_interval = np.random.default_rng(seed), 0, 0
    groups = np.repeat(np.arange(n // group_size), group_size)
    for run in range(runs):
        correct = (rng.random((k, n // group_size)) < accuracy)[:, groups]
        pairs = compare_all(list(correct), groups, seed=run)
        by_p += bool((pairs.p_values < SIGNIFICANCE).any())
        by_interval += any(_excludes_zero(pairs, i, j) for i in range(k) for j in range(i))
    return by_p / runs, by_interval / runs


def _excludes_zero(pairs: PairwiseDifferences, first: int, second: int) -> bool:
    gap = pairs.interval(first, second)
    return gap.low > 0 or gap.high < 0


def detection_rate(n: int, accuracies: tuple[float, float], runs: int, *, seed: int = 0) -> tuple[float, float]:
    """Return how often a true difference of two classifiers is found, and the mean that was called detectable."""
    rng, found, called = np.random.default_rng(seed), 0, 0.0
    for run in range(runs):
        correct = [rng.random(n) < a for a in accuracies]
        pairs = compare_all(correct, np.arange(n), seed=run)
        found += _excludes_zero(pairs, 0, 1)
        called += pairs.detectable_difference
    return found / runs, called / runs


def statements() -> Iterator[Statement]:
    """Return what is promised of comparisons."""
    groupings = {"alone": "", "within": ", in groups of five", "across": ", in groups that all slices share"}
    for n_slices in (2, 5, 20):
        for grouping, words in groupings.items():
            what = f"{n_slices} slices of 50 and 100 items, accuracy 0.5 to 0.99{words}"
            yield Statement("any interval of a gap misses", what, "at most 0.05", _gaps(n_slices, grouping))
    for k in (3, 6, 12, 24):
        for n, size in ((1000, 1), (100, 1), (800, 20)):
            what = f"{k} equal classifiers, {n} items" + (f" in groups of {size}" if size > 1 else "")
            statement = "a difference is found (p or interval)"
            yield Statement(statement, what, "at most 0.05", _equal_classifiers(k, n, size))
    what = "2 classifiers, accuracy 0.9 and 0.859, 1000 items: the difference that is called detectable"
    yield Statement("a difference is found", what, "0.80", _detection)


def _detection(runs: int) -> list[float]:
    """Return how often a difference is found that is as large as what is called detectable."""
    return [detection_rate(1000, (0.9, 0.859), runs)[0]]


def _gaps(n_slices: int, grouping: str) -> Callable[[int], list[float]]:
    """Return the simulation of slices."""
    accuracies = (0.6, 0.8, 0.9, 0.99)
    return lambda runs: [false_gaps(n_slices, 50, accuracy, grouping, runs) for accuracy in accuracies]


def _equal_classifiers(k: int, n: int, group_size: int) -> Callable[[int], list[float]]:
    """Return the simulation of k equal classifiers: the rate of false differences by p-value and by interval."""
    return lambda runs: list(familywise_error(k, n, 0.85, runs, group_size=group_size))

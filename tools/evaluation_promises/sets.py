"""Two sets of items, ranked galleries, and weighted rows: levels of their tests and intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation.shift import ItemSets, ShiftSettings, measure_shift
from embedstore.classify.evaluation.two_sample import two_sample_test
from embedstore.classify.metrics.resampling import studentized_interval
from embedstore.classify.metrics.shares import WeightedRows, share_interval
from embedstore.classify.retrieval.metrics import mean_estimate
from tools.evaluation_promises.draws import GROUP_SIZES, N_GROUPS, group_sizes
from tools.evaluation_promises.heads import labeled
from tools.evaluation_promises.statement import Statement

IGNORE = NearDuplicateOptions("ignore")
_POPULATION = 200_000


def p_values(runs: int, n: int, n_second: int, kind: str = "normal", group_size: int = 1) -> NDArray[np.float64]:
    """Return the p-values of pairs of equal sets.

    Args:
        runs: pairs.
        n: draws of both sets.
        n_second: draws of the second set.
        kind: ``normal`` or ``heavy tails``.
        group_size: copies of each draw, as one group.
    """
    rng, out = np.random.default_rng(0), []
    for run in range(runs):
        X = rng.normal(size=(n, 6)) if kind == "normal" else rng.standard_t(2, size=(n, 6)) ** 3
        second = np.arange(n) < n_second
        if group_size == 1:
            out.append(two_sample_test(X.astype(np.float32), second, n_permutations=99, seed=run).p_value)
            continue
        X, second = np.repeat(X, group_size, 0), np.repeat(second, group_size)
        X += 0.1 * rng.normal(size=X.shape)
        data = labeled(X, second, groups=np.repeat(np.arange(n), group_size))
        out.append(measure_shift(ItemSets(data, second, "a", "b"), ShiftSettings(IGNORE, seed=run)).p_value)
    return np.array(out)


def coverage_of_ranks(mean: float, n_groups: int, per_group: int, runs: int) -> float:
    """Return how often the interval of a mean reciprocal rank holds that of the population.

    Args:
        mean: of the chance that the first item is relevant.
        n_groups: groups of queries.
        per_group: queries of a group, which share this chance.
        runs: sets of queries.
    """
    rng, hits = np.random.default_rng(0), 0
    groups = np.repeat(np.arange(n_groups), per_group)

    def ranks(size: int, copies: int) -> NDArray[np.float64]:
        chance = np.repeat(rng.beta(mean * 3, (1 - mean) * 3, size), copies)
        return 1 / rng.geometric(np.clip(chance, 0.02, 1)).astype(np.float64)

    truth = float(ranks(_POPULATION, 1).mean())
    for _ in range(runs):
        estimate = mean_estimate(ranks(n_groups, per_group), groups)
        hits += estimate.low <= truth <= estimate.high
    return hits / runs


def coverage_of_weighted_figures(
    n: int, spread: float, runs: int, *, accuracy: float = 0.8, copies: int = 1
) -> tuple[float, float]:
    """Return how often the intervals of a weighted accuracy and of a weighted mean error hold the truth.

    Args:
        n: held-out draws.
        spread: standard deviation of the logarithm of the weights.
        runs: held-out sets.
        accuracy: of every row.
        copies: of each draw, as one group.
    """
    rng, held = np.random.default_rng(0), np.zeros(2)
    groups = np.repeat(np.arange(n), copies)
    for _ in range(runs):
        weights = np.exp(spread * rng.normal(size=n))[groups]
        correct = (rng.random(n) < accuracy)[groups].astype(np.float64)
        share = share_interval(WeightedRows(correct, weights / weights.sum(), np.zeros(len(groups), np.int64), groups))
        mean = studentized_interval(rng.exponential(size=n)[groups], groups, weights=weights)
        held += share[0] <= accuracy <= share[1], mean[0] <= 1 <= mean[1]
    return float(held[0] / runs), float(held[1] / runs)


def coverage_of_grouped_errors(kind: str, correlation: float, runs: int) -> float:
    """Return how often the interval of a mean error over 40 groups holds the truth.

    Args:
        kind: of the sizes, see :func:`tools.evaluation_promises.draws.group_sizes`.
        correlation: the share of rows that have the error of their group.
        runs: held-out sets.
    """
    rng, held = np.random.default_rng(0), 0
    for _ in range(runs):
        groups = np.repeat(np.arange(N_GROUPS), group_sizes(kind, rng))
        shared, own = rng.exponential(size=N_GROUPS)[groups], rng.exponential(size=len(groups))
        low, high = studentized_interval(np.where(rng.random(len(groups)) < correlation, shared, own), groups)
        held += low <= 1 <= high
    return held / runs


def statements() -> Iterator[Statement]:
    """Return what is promised of shifts, rankings and weights."""
    shift = "equal sets have p of at most 0.05"
    for n, second, kind, size in ((60, 30, "normal", 1), (200, 40, "normal", 1), (60, 20, "heavy tails", 1)):
        what = f"{n} items, {second} of them new, {kind}"
        yield Statement(shift, what, "at most 0.05", _level(n, second, kind, size))
    yield Statement(shift, "50 groups of 4 items, 25 of them new", "at most 0.05", _level(50, 25, "normal", 4))
    for groups, size in ((60, 1), (200, 1), (40, 5)):
        what = f"{groups} groups of {size} queries, means 0.3 to 0.95" if size > 1 else f"{groups} queries, 0.3 to 0.95"
        yield Statement("interval of a mean reciprocal rank", what, "0.95", _ranks(groups, size))
    for n, copies in ((80, 1), (400, 1), (80, 5)):
        items = f"{n} groups of {copies} items" if copies > 1 else f"{n} items"
        what = f"{items}, weights from equal to a logarithm of standard deviation 1"
        yield Statement("interval of a weighted accuracy", what, "0.95", _weighted(n, copies, 0))
        yield Statement("interval of a weighted mean error", what, "0.95", _weighted(n, copies, 1))
    for kind in GROUP_SIZES:
        what = f"{N_GROUPS} groups, sizes: {kind}; correlation within groups 0 to 1"
        yield Statement("interval of a mean error", what, "0.95", _grouped(kind))


def _level(n: int, n_second: int, kind: str, size: int) -> Callable[[int], list[float]]:
    return lambda runs: [float((p_values(runs, n, n_second, kind, size) <= 0.05).mean())]


def _ranks(groups: int, size: int) -> Callable[[int], list[float]]:
    return lambda runs: [coverage_of_ranks(mean, groups, size, runs) for mean in (0.3, 0.5, 0.8, 0.95)]


def _weighted(n: int, copies: int, which: int) -> Callable[[int], list[float]]:
    return lambda runs: [
        coverage_of_weighted_figures(n, spread, runs, copies=copies)[which] for spread in (0.0, 0.5, 1.0)
    ]


def _grouped(kind: str) -> Callable[[int], list[float]]:
    return lambda runs: [coverage_of_grouped_errors(kind, correlation, runs) for correlation in (0.0, 0.3, 1.0)]

"""Intervals of figures: how often they hold the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.metrics import MetricName, calibration_error
from embedstore.classify.metrics.shares import accuracy_rows, recall_rows, share_interval
from tools.evaluation_promises.draws import GROUP_SIZES, draw_grouped, draw_scores
from tools.evaluation_promises.statement import Statement

ACCURACIES = (0.5, 0.7, 0.85, 0.9, 0.95, 0.99)
CORRELATIONS = (0.0, 0.1, 0.3, 0.6, 1.0)
SEPARATIONS = (1.5, 3.0, 3.7)  # of scores: accuracies of 0.65, 0.95 and 0.98
_POPULATION = 100_000
_RESAMPLED = ("macro_f1", "log_loss", "brier_score", "auroc_ovr_macro", "average_precision_macro")


def coverage_of_accuracy(n: int, accuracy: float, runs: int, *, seed: int = 0) -> float:
    """Return how often the interval of the accuracy of n independent rows holds the true accuracy."""
    rng, held = np.random.default_rng(seed), 0
    for _ in range(runs):
        low, high = share_interval(accuracy_rows(rng.random(n) < accuracy, np.arange(n)))
        held += low <= accuracy <= high
    return held / runs


def coverage_in_groups(accuracy: float, kind: str, correlation: float, runs: int, *, seed: int = 0) -> float:
    """Return how often the interval of the accuracy of 40 groups holds the true accuracy."""
    rng, held = np.random.default_rng(seed), 0
    for _ in range(runs):
        low, high = share_interval(accuracy_rows(*draw_grouped(accuracy, kind, correlation, rng)))
        held += low <= accuracy <= high
    return held / runs


def coverage_of_mean_recall(n: int, recalls: NDArray[np.float64], runs: int, *, seed: int = 0) -> float:
    """Return how often the interval of the mean recall of n rows of some classes holds the mean of the true recalls."""
    rng, held = np.random.default_rng(seed), 0
    for _ in range(runs):
        y = rng.integers(0, len(recalls), n)
        present = np.unique(y)
        low, high = share_interval(recall_rows(rng.random(n) < recalls[y], y, np.arange(n)))
        held += low <= recalls[present].mean() <= high
    return held / runs


def coverage_of_metrics(n: int, n_classes: int, separation: float, runs: int, *, seed: int = 0) -> dict[str, float]:
    """Return how often the interval of each metric holds its true value; metrics without an interval are left out."""
    rng = np.random.default_rng(seed)
    population = draw_scores(_POPULATION, n_classes, separation, rng)
    truth = {m.value: metrics.compute_metric(m, *population) for m in MetricName}
    held: dict[str, list[bool]] = {}
    for _ in range(runs):
        y, proba = draw_scores(n, n_classes, separation, rng)
        report = metrics.classification_report(y, proba, list(range(n_classes)), n_replicates=300)
        for name, score in report.scores.items():
            if name in truth and np.isfinite(score.low):
                held.setdefault(name, []).append(bool(score.low <= truth[name] <= score.high))
    return {name: float(np.mean(values)) for name, values in held.items()}


def coverage_of_calibration_error(n: int, error: float, runs: int, *, seed: int = 0) -> float:
    """Return how often the interval of the calibration error holds the true one.

    Confidences are uniform between 0.5 and 0.9; the accuracy is higher by ``error`` on the lower half, else lower.
    """
    rng, held = np.random.default_rng(seed), 0
    for _ in range(runs):
        confidence = rng.uniform(0.5, 0.9, n)
        correct = rng.random(n) < confidence + np.where(confidence < 0.7, error, -error)
        found = calibration_error(confidence, correct, np.arange(n))
        held += found.low <= error <= found.high
    return held / runs


def statements() -> Iterator[Statement]:
    """Return what is promised of intervals."""
    level, accuracy = "0.95", "interval of accuracy, recall"
    for n in (20, 30, 120, 1000):
        yield Statement(
            accuracy, f"{n} items, accuracy 0.5 to 0.99", level,
            lambda runs, n=n: [coverage_of_accuracy(n, p, runs) for p in ACCURACIES],
        )  # fmt: skip
    for kind in GROUP_SIZES:
        yield Statement(
            accuracy, f"40 groups, sizes: {kind}; correlation within groups 0 to 1", level,
            lambda runs, kind=kind: [coverage_in_groups(p, kind, c, runs) for p in ACCURACIES for c in CORRELATIONS],
        )  # fmt: skip
    for n in (30, 120, 1000):
        yield Statement("interval of the mean recall", f"{n} items of 5 classes", level, _mean_recalls(n))
    for n in (30, 120, 1000):
        for name in _RESAMPLED:
            situation = f"{n} items of 5 classes, accuracy 0.65 to 0.98"
            yield Statement(f"interval of {name}", situation, level, _metrics_of(n, name))
    for n in (120, 1000):
        yield Statement(
            "interval of the calibration error", f"{n} items", level,
            lambda runs, n=n: [coverage_of_calibration_error(n, error, runs) for error in (0.0, 0.05, 0.1)],
        )  # fmt: skip


def _mean_recalls(n: int) -> Callable[[int], list[float]]:
    """Return the simulation of the mean recall of n rows; five classes have different recalls."""
    recalls = [np.linspace(2 * mean - 1, 1, 5) for mean in (0.75, 0.9, 0.98)]
    return lambda runs: [coverage_of_mean_recall(n, r, runs) for r in recalls]


def _metrics_of(n: int, name: str) -> Callable[[int], list[float]]:
    """Return the simulation of one metric of n rows."""

    def simulate(runs: int) -> list[float]:
        held = [_held_by_metric(n, separation, runs) for separation in SEPARATIONS]
        return [part[name] for part in held if name in part]

    return simulate


@cache
def _held_by_metric(n: int, separation: float, runs: int) -> dict[str, float]:
    """Return the coverage of all metrics, simulated once."""
    return coverage_of_metrics(n, 5, separation, runs)

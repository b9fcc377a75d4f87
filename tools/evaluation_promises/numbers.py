"""Simulations of what is promised of predicted numbers: prediction intervals and the intervals of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.data.task import Task
from embedstore.classify.evaluation.regression.fit import fit_with_intervals
from embedstore.classify.metrics.error_gaps import error_gaps
from embedstore.classify.metrics.regression import (
    NumericMetric,
    NumericReport,
    ordinal_report,
    pearson,
    quadratic_kappa,
    r2,
    regression_report,
    spearman,
)
from tools.evaluation_promises.statement import Statement

Draw = Callable[[int], tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]]
ALPHA = 0.1
_METRICS = ("r2", "mae", "rmse", "pearson", "spearman", "quadratic_kappa", "within_one_accuracy")
_DIM = 8
_NEW = 400  # rows whose coverage is counted in each run
_POPULATION = 200_000


def numeric_rows(X: NDArray[np.float64], y: NDArray[np.float64], groups: NDArray[np.int64]) -> Features:
    """Return rows with numbers as a regression."""
    n = len(y)
    labels, splits = np.empty(n, object), np.full(n, None, object)
    labels[:] = [repr(v) for v in y.tolist()]
    return Features(
        X=X.astype(np.float32),
        y=labels,
        ids=np.arange(n),
        groups=groups,
        splits=splits,
        n_unlabeled=0,
        n_without_vector=0,
        task=Task.REGRESSION,
        numbers=y,
    )


def interval_coverage(method: str, n: int, group_size: int, *, runs: int, seed: int = 0) -> NDArray[np.float64]:
    """Return the share of new numbers in their prediction interval, for each run.

    Args:
        method: ``split`` (as many rows calibrate as train), ``cv+`` or ``folds``.
        n: training rows.
        group_size: rows of a group; they share half of the noise.
        runs: simulated data sets.
        seed: random seed.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=_DIM)

    def draw(rows: int) -> Features:
        groups = np.arange(rows) // group_size
        X = rng.normal(size=(rows, _DIM))
        noise = (rng.normal(size=rows // group_size + 1)[groups] + rng.normal(size=rows)) / np.sqrt(2)
        return numeric_rows(X, X @ weights + noise, groups)

    out = []
    for run in range(runs):
        train, calibration, new = draw(n), draw(n if method == "split" else 0), draw(_NEW)
        head = {"folds": "knn"}.get(method, "ridge")
        options = {"k": 3} if head == "knn" else {}
        wrapper, used = fit_with_intervals(head, train, calibration, alpha=ALPHA, seed=run, options=options)
        assert used == method
        low, high = wrapper.predict_interval(new.X)
        assert new.numbers is not None
        out.append(float(((low <= new.numbers) & (new.numbers <= high)).mean()))
    return np.array(out)


def metric_coverage(n: int, group_size: int, correlation: float, *, runs: int, seed: int = 0) -> dict[str, float]:
    """Return how often the 95% interval of each metric holds the metric of the population, and if it is given.

    Args:
        n: held-out rows of a run.
        group_size: rows of a group; they share a part of the truth and of the error.
        correlation: of true and predicted numbers.
        runs: simulated held-out sets.
        seed: random seed.
    """
    rng = np.random.default_rng(seed)

    def draw(rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        groups = np.arange(rows) // group_size
        shared, own = rng.normal(size=(2, rows // group_size + 1))[:, groups], rng.normal(size=(2, rows))
        y, error = (shared + own) / np.sqrt(2)
        return y, correlation**2 * y + correlation * np.sqrt(1 - correlation**2) * error, groups

    def reports(rows: int) -> tuple[NumericReport, NumericReport]:
        y, predicted, groups = draw(rows)
        baseline = np.zeros(rows)
        levels = [np.clip(np.rint(v * 1.5), -2, 2) for v in (y, predicted)]
        return (
            regression_report(y, predicted, groups, baseline=baseline),
            ordinal_report(*levels, groups, baseline=baseline),
        )

    truth = _population(draw)
    hits: dict[str, list[bool]] = {}
    for _ in range(runs):
        regression, ordinal = reports(n)
        scores = regression.scores | {
            m: s for m, s in ordinal.scores.items() if m in (NumericMetric.QUADRATIC_KAPPA, NumericMetric.WITHIN_ONE)
        }
        for name, s in scores.items():
            if not np.isnan(s.low):
                hits.setdefault(name, []).append(bool(s.low <= truth[name] <= s.high))
    return {name: float(np.mean(v)) for name, v in hits.items()}


def _population(draw: Draw) -> dict[str, float]:
    """Return the metrics of very many rows."""
    y, predicted, _ = draw(_POPULATION)
    one, error = np.ones((1, len(y))), y - predicted
    a, b = (np.clip(np.rint(v * 1.5), -2, 2) for v in (y, predicted))
    return {
        "r2": float(r2(y, predicted, one)[0]),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "pearson": float(pearson(y, predicted, one)[0]),
        "spearman": float(spearman(y, predicted, one)[0]),
        "quadratic_kappa": float(quadratic_kappa(a, b, one)[0]),
        "within_one_accuracy": float((np.abs(a - b) <= 1).mean()),
    }


def gap_misses(n_slices: int, rows: int, group_size: int, *, runs: int, seed: int = 0) -> float:
    """Return how often any interval of the gaps of slices with equal true errors excludes 0.

    Args:
        n_slices: the number of slices.
        rows: rows of each slice.
        group_size: rows of a group, all of one slice.
        runs: simulated held-out sets.
        seed: random seed.
    """
    rng = np.random.default_rng(seed)
    groups = np.arange(n_slices * rows) // group_size
    members = np.arange(n_slices)[:, None] == np.arange(n_slices * rows) // rows
    misses = 0
    for _ in range(runs):
        shared = rng.normal(size=len(groups) // group_size + 1)[groups]
        errors = np.abs(shared + rng.normal(size=len(groups)))
        misses += any(g.gap_low > 0 for g in error_gaps(errors, members, groups))
    return misses / runs


def statements() -> Iterator[Statement]:
    """Return what is promised of predicted numbers."""
    for method, words in {"split": "val items calibrate", "cv+": "ten folds", "folds": "neighbors, one head"}.items():
        for n, size in ((20, 1), (200, 1), (80, 4)):
            what = f"{n} training items{f' in groups of {size}' if size > 1 else ''}, {words}"
            yield Statement("a prediction interval holds the number", what, "0.90", _covered(method, n, size))
    for n, size in ((30, 1), (120, 1), (120, 4)):
        what = f"{n} items{f' in groups of {size}' if size > 1 else ''}, correlations 0.3 to 0.95"
        for name in _METRICS:
            yield Statement(f"interval of {name}", what, "0.95", _metric(name, n, size))
    for n_slices, rows, size in ((2, 50, 1), (5, 60, 5), (10, 50, 1)):
        what = f"{n_slices} equal slices of {rows} numbers{f' in groups of {size}' if size > 1 else ''}"
        yield Statement("any interval of a gap misses", what, "at most 0.05", _gaps(n_slices, rows, size))


def _covered(method: str, n: int, size: int) -> Callable[[int], list[float]]:
    return lambda runs: [float(interval_coverage(method, n, size, runs=runs).mean())]


def _metric(name: str, n: int, size: int) -> Callable[[int], list[float]]:
    return lambda runs: [_held(n, size, correlation, runs)[name] for correlation in (0.3, 0.8, 0.95)]


@cache
def _held(n: int, size: int, correlation: float, runs: int) -> dict[str, float]:
    """Return the coverage of all metrics, simulated once."""
    return metric_coverage(n, size, correlation, runs=runs)


def _gaps(n_slices: int, rows: int, size: int) -> Callable[[int], list[float]]:
    return lambda runs: [gap_misses(n_slices, rows, size, runs=runs)]

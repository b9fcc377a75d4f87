"""What a head promises for new rows: its precision when it may abstain, its prediction sets, its learning curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation.calibrated_fit import fit_calibrated_head
from embedstore.classify.evaluation.learning_curve import LearningCurveSettings, learning_curve
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.heads.conformal import ConformalSets
from embedstore.classify.heads.selective import SelectiveClassifier
from tools.evaluation_promises.statement import Statement

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]
N_CLASSES = 5
IGNORED = NearDuplicateOptions("ignore")
_MEANS = np.random.default_rng(42).normal(size=(N_CLASSES, 8))
_RARE = (0.35, 0.3, 0.2, 0.1, 0.05)


def draw(rng: np.random.Generator, n: int, scale: float = 0.85, weights: Sequence[float] | None = None) -> Rows:
    """Draw rows of five classes and their labels.

    Args:
        rng: the random generator.
        n: rows.
        scale: how far apart the classes are.
        weights: the share of each class; equal by default.
    """
    y = rng.choice(N_CLASSES, n, p=weights)
    return (_MEANS[y] * scale + rng.normal(size=(n, 8))).astype(np.float32), y


def labeled(
    X: NDArray[Any], y: NDArray[Any], splits: Sequence[str | None] | None = None, groups: NDArray[Any] | None = None
) -> Features:
    """Return labeled rows without a store."""
    n = len(X)
    return Features(
        X=np.asarray(X, np.float32),
        y=np.array([str(v) for v in y], dtype=object),
        ids=np.arange(1, n + 1),
        groups=np.arange(n) if groups is None else np.asarray(groups, np.int64),
        splits=np.array([None] * n if splits is None else list(splits), dtype=object),
        n_unlabeled=0,
        n_without_vector=0,
    )


def precision_of(threshold: float, proba: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the precision on new rows, NaN where nothing is answered."""
    answered = proba.max(1) >= threshold
    return float((proba.argmax(1) == y)[answered].mean()) if answered.any() else math.nan


def abstention(target: float, n: int, draws: int, scale: float = 1.3) -> NDArray[np.float64]:
    """Return the precision on 50,000 new rows of a threshold that was chosen on n rows, for each draw."""
    rng = np.random.default_rng(0)
    head = heads.make_head("logistic", Cs=[1.0]).fit(*draw(rng, 400, scale))
    X, y = draw(rng, 50_000, scale)
    proba, out = head.predict_proba(X), []
    for _ in range(draws):
        threshold = SelectiveClassifier(head, target).fit(*draw(rng, n, scale)).threshold_
        out.append(precision_of(threshold, proba, y))
    return np.array(out)


def abstention_out_of_fold(target: float, n: int, draws: int) -> NDArray[np.float64]:
    """Return the precision on 20,000 new rows of a threshold that was chosen out of fold on n rows, for each draw."""
    rng = np.random.default_rng(1)
    X, y = draw(rng, 20_000, 1.8)
    options, out = EvaluationSettings(abstain_precision=target, near_duplicates="ignore"), []
    for _ in range(draws):
        train = labeled(*draw(rng, n, 1.8))
        estimator, _ = fit_calibrated_head("prototype", train, train.take(np.zeros(0, np.int64)), options)
        out.append(precision_of(estimator.threshold_, estimator.predict_proba(X), y))
    return np.array(out)


def coverage_out_of_fold(n: int, draws: int, head: str = "logistic", alpha: float = 0.1) -> float:
    """Return the share of 20,000 new rows that prediction sets chosen out of fold on n rows hold, over draws."""
    rng = np.random.default_rng(0)
    X, y = draw(rng, 20_000)
    options, out = EvaluationSettings(conformal_alpha=alpha, near_duplicates="ignore"), []
    while len(out) < draws:
        X_train, y_train = draw(rng, n)
        if np.bincount(y_train, minlength=N_CLASSES).min() < 2:
            continue
        train = labeled(X_train, y_train)
        estimator, _ = fit_calibrated_head(head, train, train.take(np.zeros(0, np.int64)), options)
        out.append(estimator.predict_set(X)[np.arange(len(y)), y].mean())
    return float(np.mean(out))


def coverage_by_class(n: int, draws: int, *, by_class: bool) -> list[float]:
    """Return the share of new rows of each class that prediction sets of 0.9 hold; the classes are of unequal size.

    Args:
        n: rows that choose the thresholds.
        draws: of these rows.
        by_class: whether each class has a threshold of its own.
    """
    rng = np.random.default_rng(0)
    head = heads.make_head("logistic", Cs=[0.01]).fit(*draw(rng, 600, weights=_RARE))
    X, y = draw(rng, 40_000, weights=_RARE)
    out = []
    for _ in range(draws):
        sets = ConformalSets(head, 0.1, by_class=by_class).fit(*draw(rng, n, weights=_RARE)).predict_set(X)
        held = sets[np.arange(len(y)), y]
        out.append([float(held[y == c].mean()) for c in range(N_CLASSES)])
    return [float(v) for v in np.mean(out, 0)]


def coverage_of_learning_curve(runs: int, copies: int = 1) -> float:
    """Return how often the interval at 4 labels per class holds the mean accuracy of the population.

    Args:
        runs: learning curves, with 60 held-out rows each.
        copies: of each held-out row, as one group.
    """
    rng = np.random.default_rng(0)
    population = draw(rng, 20_000)
    truth, held = np.mean([_accuracy_of_four_labels(rng, population) for _ in range(150)]), 0
    for seed in range(runs):
        X, y = draw(np.random.default_rng(seed + 1), 260)
        test = np.repeat(np.arange(200, 260), copies)
        rows = np.concatenate([np.arange(200), test])
        data = labeled(X[rows], y[rows], ["train"] * 200 + ["test"] * len(test), groups=rows)
        point = learning_curve("prototype", data, LearningCurveSettings((4,), near_duplicates=IGNORED)).points[0]
        held += point.low <= truth <= point.high
    return held / runs


def _accuracy_of_four_labels(rng: np.random.Generator, population: Rows) -> float:
    """Return the accuracy on the population of a head that was fitted on four of its rows per class."""
    X, y = population
    rows = np.concatenate([rng.choice(np.flatnonzero(y == c), 4, replace=False) for c in range(N_CLASSES)])
    return float((heads.make_head("prototype").fit(X[rows], y[rows]).predict(X) == y).mean())


def statements() -> Iterator[Statement]:
    """Return what heads promise."""
    missed = "the precision of an abstaining head is missed"
    for target in (0.9, 0.95, 0.99):
        for n in (50, 200, 1000):
            yield Statement(missed, f"target {target}, {n} rows to choose on", "at most 0.05", _misses(target, n))
    for n in (60, 200):
        yield Statement(missed, f"target 0.9, out of fold on {n} rows", "at most 0.05", _misses_out_of_fold(n))
    for n in (20, 40, 100, 300):
        situation = f"out of fold on {n} rows"
        yield Statement("a prediction set holds the class", situation, "0.90", _sets_out_of_fold(n))
    for by_class in (False, True):
        situation = f"2000 rows to choose on, classes of 5% to 35%, {'a' if by_class else 'no'} threshold for each"
        what = "a prediction set holds the class, by class"
        yield Statement(what, situation, "0.90" if by_class else "0.90 on average", _sets_by_class(by_class))
    for copies in (1, 8):
        situation = f"4 labels per class, 60 held-out items, {copies} of each"
        yield Statement(
            "interval of a learning curve", situation, "0.95",
            lambda runs, copies=copies: [coverage_of_learning_curve(runs, copies)],
        )  # fmt: skip


def _misses(target: float, n: int) -> Callable[[int], list[float]]:
    """Return the simulation of an abstaining head for easy and for hard classes."""
    return lambda runs: [float((abstention(target, n, runs, scale) < target).mean()) for scale in (0.85, 1.3, 1.8)]


def _misses_out_of_fold(n: int) -> Callable[[int], list[float]]:
    """Return the simulation of a threshold that is chosen out of fold."""
    return lambda runs: [float((abstention_out_of_fold(0.9, n, runs) < 0.9).mean())]


def _sets_out_of_fold(n: int) -> Callable[[int], list[float]]:
    """Return the simulation of prediction sets that are chosen out of fold."""
    return lambda runs: [coverage_out_of_fold(n, runs)]


def _sets_by_class(by_class: bool) -> Callable[[int], list[float]]:
    """Return the simulation of the coverage of each class."""
    return lambda runs: coverage_by_class(2000, runs, by_class=by_class)

"""Promised against delivered: simulations of every interval and comparison, ``python -m tools.evaluation_promises``.

The command writes the table into ``docs/evaluation.md``. The tests run the same simulations with fewer repetitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.metrics import MetricName, calibration_error
from embedstore.classify.metrics.shares import WeightedRows, accuracy_rows, recall_rows, share_interval
from embedstore.classify.metrics.simultaneous import SIGNIFICANCE, PairwiseDifferences, compare_all
from embedstore.classify.metrics.slice_gaps import share_gaps

UPDATE_COMMAND = "python -m tools.evaluation_promises"
PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"
BEGIN, END = "<!-- promises: begin -->", "<!-- promises: end -->"
N_GROUPS = 40
ACCURACIES = (0.5, 0.7, 0.85, 0.9, 0.95, 0.99)
_POPULATION = 100_000


@dataclass(frozen=True)
class Promise:
    """One line of the table.

    Attributes:
        statement: what is promised.
        situation: the simulated rows.
        promised: the level.
        delivered: the simulated share, or its range over situations.
        runs: simulated test sets per situation.
    """

    statement: str
    situation: str
    promised: str
    delivered: str
    runs: int


@dataclass(frozen=True)
class SlicedRows:
    """The rows of simulated slices.

    Attributes:
        rows: of each slice.
        accuracies: the true accuracy of each slice.
    """

    rows: list[WeightedRows]
    accuracies: NDArray[np.float64]


def group_sizes(kind: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the sizes of 40 groups: a number for equal groups, ``geometric`` or ``half of 1, half of 20``."""
    if kind == "geometric":
        return rng.geometric(1 / 5, N_GROUPS)
    if kind == "half of 1, half of 20":
        return np.repeat([1, 20], N_GROUPS // 2)
    return np.full(N_GROUPS, int(kind))


def draw_grouped(
    accuracy: float, kind: str, correlation: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Draw 40 groups: whether each row is correct, and its group.

    Args:
        accuracy: the true share of correct rows.
        kind: of the sizes, see :func:`group_sizes`.
        correlation: of two rows of one group; 1 makes them equal.
        rng: the random generator.
    """
    groups = np.repeat(np.arange(N_GROUPS), group_sizes(kind, rng))
    if correlation == 1:
        return (rng.random(N_GROUPS) < accuracy)[groups], groups
    if correlation == 0:
        return rng.random(len(groups)) < accuracy, groups
    scale = 1 / correlation - 1
    share = rng.beta(accuracy * scale, (1 - accuracy) * scale, N_GROUPS)
    return rng.random(len(groups)) < share[groups], groups


def draw_slices(
    accuracies: NDArray[np.float64], sizes: NDArray[np.int64], grouping: str, rng: np.random.Generator
) -> SlicedRows:
    """Draw slices: ``alone`` rows, groups of five ``within`` a slice, or groups ``across`` all slices.

    Groups across slices make their rows easier in one half of the slices and harder in the other.

    Args:
        accuracies: of each slice.
        sizes: rows of each slice.
        grouping: ``alone``, ``within`` or ``across``.
        rng: the random generator.
    """
    out, begin = [], 0
    shared = rng.random(int(sizes.max()) // 2 + 1)
    for number, (accuracy, size) in enumerate(zip(accuracies, sizes.tolist(), strict=True)):
        group = np.arange(size) + begin
        draws = rng.random(size)
        if grouping == "within":
            group = np.arange(size) // 5 + begin
            draws = np.where(rng.random(size) < 0.5, rng.random(size)[np.arange(size) // 5], draws)
        elif grouping == "across":
            group = np.arange(size) // 2
            own = shared[group] if number % 2 else 1 - shared[group]
            draws = np.where(rng.random(size) < 0.7, own, draws)
        begin += size
        out.append(accuracy_rows(draws < accuracy, group))
    return SlicedRows(out, accuracies)


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


def draw_scores(
    n: int, n_classes: int, separation: float, rng: np.random.Generator, *, sharpness: float = 1.3
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw true columns and probabilities: the softmax of normal logits, the true one raised by the separation."""
    y = rng.integers(0, n_classes, n)
    logits = rng.standard_normal((n, n_classes))
    logits[np.arange(n), y] += separation
    proba = np.exp(sharpness * logits)
    return y, proba / proba.sum(1, keepdims=True)


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


def promises(runs: int) -> Iterator[Promise]:
    """Simulate everything.

    Args:
        runs: simulated test sets per situation; the slow simulations take a share of them.
    """
    level = "0.95"
    for n in (20, 30, 120, 1000):
        delivered = [coverage_of_accuracy(n, p, runs) for p in ACCURACIES]
        yield Promise(
            "interval of accuracy, recall", f"{n} items, accuracy 0.5 to 0.99", level, _range(delivered), runs
        )
    for kind in ("1", "5", "20", "geometric", "half of 1, half of 20"):
        delivered = [coverage_in_groups(p, kind, c, runs) for p in ACCURACIES for c in (0.0, 0.3, 1.0)]
        situation = f"40 groups, sizes: {kind}; correlation within groups 0, 0.3 and 1"
        yield Promise("interval of accuracy, recall", situation, level, _range(delivered), runs)
    for n in (30, 120, 1000):
        delivered = [coverage_of_mean_recall(n, np.linspace(2 * p - 1, 1, 5), runs) for p in (0.75, 0.9, 0.98)]
        yield Promise("interval of the mean recall", f"{n} items of 5 classes", level, _range(delivered), runs)
    yield from _metric_promises(max(50, runs // 5))
    for n in (120, 1000):
        delivered = [coverage_of_calibration_error(n, error, runs // 2) for error in (0.0, 0.05, 0.1)]
        yield Promise("interval of the calibration error", f"{n} items", level, _range(delivered), runs // 2)
    yield from _slice_promises(max(50, runs // 2))
    yield from _comparison_promises(max(50, runs // 5))


def _slice_promises(runs: int) -> Iterator[Promise]:
    """Simulate the gaps among slices."""
    groupings = {"alone": "", "within": ", in groups of five", "across": ", in groups that all slices share"}
    for n_slices in (2, 5, 20):
        for grouping, words in groupings.items():
            delivered = [false_gaps(n_slices, 50, accuracy, grouping, runs) for accuracy in (0.6, 0.8, 0.9, 0.99)]
            what = f"{n_slices} slices of 50 and 100 items, accuracy 0.5 to 0.99{words}"
            yield Promise("any interval of a gap misses", what, "0.05", _range(delivered), runs)


def _metric_promises(runs: int) -> Iterator[Promise]:
    """Simulate the intervals of the other metrics of a report."""
    for n in (30, 120, 1000):
        parts = [coverage_of_metrics(n, 5, separation, runs) for separation in (1.5, 3.0)]
        for name in ("macro_f1", "log_loss", "brier_score", "auroc_ovr_macro", "average_precision_macro"):
            delivered = [part[name] for part in parts if name in part]
            text = _range(delivered) if delivered else "no interval is given"
            yield Promise(f"interval of {name}", f"{n} items of 5 classes, accuracy 0.65 and 0.95", "0.95", text, runs)


def _comparison_promises(runs: int) -> Iterator[Promise]:
    """Simulate comparisons of equal classifiers, and the power."""
    for k in (3, 6, 12, 24):
        for n, size in ((1000, 1), (100, 1), (800, 20)):
            by_p, by_interval = familywise_error(k, n, 0.85, runs, group_size=size)
            what = f"{k} equal classifiers, {n} items" + (f" in groups of {size}" if size > 1 else "")
            yield Promise(
                "a difference is found (p or interval)", what, "at most 0.05", _range([by_p, by_interval]), runs
            )
    rate, called = detection_rate(1000, (0.90, 0.86), runs)
    what = f"2 classifiers, 0.90 and 0.86, 1000 items; called detectable: {called:.3f}"
    yield Promise("a difference of the detectable size is found", what, "0.80", f"{rate:.2f}", runs)


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3f}" if round(low, 3) == round(high, 3) else f"{low:.3f} to {high:.3f}"


def table(rows: list[Promise]) -> str:
    """Return the table as Markdown."""
    lines = ["| statement | situation | promised | delivered | runs each |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(
        [*lines, *(f"| {r.statement} | {r.situation} | {r.promised} | {r.delivered} | {r.runs} |" for r in rows)]
    )


def main(runs: int = 1000) -> None:
    """Write the table into the page."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(text[:begin] + "\n" + table(list(promises(runs))) + "\n" + text[end:], encoding="utf-8")
    print(f"wrote the table of {PAGE}")


if __name__ == "__main__":
    main()

"""Draws of simulated test rows with a known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.metrics.shares import WeightedRows, accuracy_rows

N_GROUPS = 40
GROUP_SIZES = ("1", "5", "20", "geometric", "half of 1, half of 20")


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


def draw_scores(
    n: int, n_classes: int, separation: float, rng: np.random.Generator, *, sharpness: float = 1.3
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw true columns and probabilities: the softmax of normal logits, the true one raised by the separation."""
    y = rng.integers(0, n_classes, n)
    logits = rng.standard_normal((n, n_classes))
    logits[np.arange(n), y] += separation
    proba = np.exp(sharpness * logits)
    return y, proba / proba.sum(1, keepdims=True)

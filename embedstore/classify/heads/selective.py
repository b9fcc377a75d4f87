"""Heads that answer "none of these" below a threshold, with a precision that holds on new rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.heads.calibration import HeadWrapper, probabilities
from embedstore.errors import LabelError

MISS_PROBABILITY = 0.04
"""Level of each test of a threshold. The promise is 0.05; the rest covers that a threshold lies on one of the rows."""
_START_SHARE = 8  # the first test takes an eighth of the rows, if that is more than the fewest that can show the target
_POWER_Z = 1.28  # ... but not more than show it in nine samples of ten to a head that is wrong half as often as allowed
_MAX_ROWS_NEEDED = 1_000_000


class SelectiveClassifier(HeadWrapper):
    """Predict "none of these" below a threshold that keeps a target precision on new rows.

    The thresholds are tested from the strictest to the loosest, each with an exact binomial test of "the precision is
    below the target", and the last one before the first that passes is taken. This fixed sequence needs no correction
    ("learn then test", Angelopoulos, Bates, Candès, Jordan and Lei 2021): in at least 95% of the draws of the held-out
    rows the precision on new rows reaches the target.

    Args:
        head: a fitted classifier.
        target_precision: share of the answered rows that shall be correct.
        abstain_label: what is predicted below the threshold.

    Attributes:
        threshold_: the lowest probability that is answered; infinite if no threshold keeps the target.
        precision_: share correct among the answered rows of ``fit``.
        coverage_: share of the rows of ``fit`` that were answered.
        rows_needed_: without a threshold, about how many rows ``fit`` needs for one; None if there is one, or if the
            head reaches the target on no part of the rows.
        n_draws_: the rows of ``fit`` that were looked at, one of each group.
    """

    def __init__(self, head: Any, target_precision: float = 0.95, abstain_label: Any = "none of these") -> None:
        self.head = head
        self.target_precision = target_precision
        self.abstain_label = abstain_label

    def fit(self, X: Array, y: Array, groups: Array | None = None) -> SelectiveClassifier:
        """Choose the threshold on rows that the head was not trained on.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``; a label that is not among the head's classes is allowed, and always a wrong answer.
            groups: ``(N,)``; rows of one group are one draw, and only one of them counts.

        Raises:
            LabelError: if there are no rows.
            ValueError: if the precision is outside (0, 1].
        """
        if not 0 < self.target_precision <= 1:
            raise ValueError(f"target_precision must be in (0, 1], not {self.target_precision}")
        if len(y) == 0:
            raise LabelError("no held-out rows to choose a threshold on")
        rows = np.arange(len(y)) if groups is None else one_row_per_group(groups)
        proba = probabilities(self.head, X)[rows]
        correct = self.classes_[proba.argmax(1)] == np.asarray(y)[rows]
        chosen = choose_threshold(confidence(proba), correct, self.target_precision)
        self.threshold_, self.precision_, self.coverage_ = chosen.threshold, chosen.precision, chosen.coverage
        self.rows_needed_, self.n_draws_ = chosen.rows_needed, len(rows)
        return self

    def answers(self, proba: FloatArray) -> Array:
        """Return which rows of probabilities are answered, bool ``(N,)``; the same for float32 and float64."""
        return np.asarray(confidence(proba) >= self.threshold_)

    def predict(self, X: Array) -> Array:
        """Return labels ``(N,)``, ``abstain_label`` below the threshold; objects, so that any kind of label fits."""
        proba = self.predict_proba(X)
        out = self.classes_[proba.argmax(1)].astype(object)
        out[~self.answers(proba)] = self.abstain_label
        return np.asarray(out)


def confidence(proba: FloatArray) -> FloatArray:
    """Return the probability of the most probable class in float32, in which probabilities are stored."""
    return np.asarray(proba.max(axis=1), dtype=np.float32)


def one_row_per_group(groups: Array) -> IntArray:
    """Return one row of each group, drawn once and for all, ascending."""
    order = np.random.default_rng(0).permutation(len(groups))
    return np.sort(order[np.unique(np.asarray(groups)[order], return_index=True)[1]])


@dataclass(frozen=True, slots=True)
class SelectiveThreshold:
    """A threshold for answering, and what it gives.

    Attributes:
        threshold: the lowest confidence that is answered; infinite if there is none.
        precision: share correct among the answered rows.
        coverage: share of the rows that are answered.
        rows_needed: without a threshold, about how many rows are needed for one, if that is known.
    """

    threshold: float
    precision: float
    coverage: float
    rows_needed: int | None = None


def choose_threshold(confidence: FloatArray, correct: Array, target_precision: float) -> SelectiveThreshold:
    """Return the threshold of the largest coverage whose precision is shown to be at least the target.

    Args:
        confidence: float ``(N,)``.
        correct: bool ``(N,)``, whether the answer is correct.
        target_precision: the least precision.

    Returns:
        The threshold; infinite, with precision NaN and coverage 0, if the rows show none.
    """
    from scipy.stats import binom

    order = np.argsort(-confidence, kind="stable")
    descending, errors = confidence[order], np.cumsum(~np.asarray(correct, dtype=bool)[order])
    is_last = np.r_[descending[1:] != descending[:-1], True]  # rows of equal confidence are answered together
    answered = np.flatnonzero(is_last) + 1
    answered = answered[answered >= _first_size(len(descending), target_precision)]
    p_value = binom.cdf(errors[answered - 1], answered, 1 - target_precision)
    n_passed = int(np.argmax(np.r_[p_value > MISS_PROBABILITY, True]))
    if n_passed == 0:
        needed = rows_needed(errors / np.arange(1, len(errors) + 1), target_precision)
        return SelectiveThreshold(math.inf, math.nan, 0.0, needed)
    n = int(answered[n_passed - 1])
    return SelectiveThreshold(float(descending[n - 1]), float(1 - errors[n - 1] / n), n / len(descending))


def _first_size(n_rows: int, target_precision: float) -> int:
    """Return how many rows the first test takes; the number does not depend on which answers are right."""
    from scipy.stats import norm

    if target_precision == 1:
        return n_rows + 1  # nothing shows that a head is never wrong
    good = (1 + target_precision) / 2
    deviations = norm.isf(MISS_PROBABILITY) * math.sqrt(target_precision * (1 - target_precision))
    deviations += _POWER_Z * math.sqrt(good * (1 - good))
    enough = math.ceil((deviations / (good - target_precision)) ** 2)
    return int(max(least_rows(target_precision), min(n_rows // _START_SHARE, enough)))


def least_rows(target_precision: float) -> int:
    """Return the fewest rows that can show a target precision below 1: all answers are right."""
    return math.ceil(math.log(MISS_PROBABILITY) / math.log(target_precision))


def rows_needed(error_share: FloatArray, target_precision: float) -> int | None:
    """Return about how many rows show the target precision if the head goes on as on these rows.

    Args:
        error_share: ``(N,)``, the share of wrong answers among the most confident 1, 2, ... N rows.
        target_precision: the least precision.

    Returns:
        The number of rows, or None if the head is not better than the target on any part of the rows.
    """
    from scipy.stats import binom

    if target_precision == 1:
        return None
    n, least = len(error_share), least_rows(target_precision)
    share = np.arange(1, n + 1) / n
    better = (error_share < 1 - target_precision) & (share >= min(0.1, least / n))
    sizes = np.unique(np.geomspace(least, _MAX_ROWS_NEEDED, 200).astype(np.int64))
    best: int | None = None
    for s, wrong in zip(share[better][:: max(n // 100, 1)], error_share[better][:: max(n // 100, 1)], strict=True):
        passes = binom.cdf(np.ceil(sizes * wrong), sizes, 1 - target_precision) <= MISS_PROBABILITY
        if passes.any():
            rows = math.ceil(int(sizes[int(np.argmax(passes))]) / s)
            best = rows if best is None else min(best, rows)
    return None if best is None else max(best, n + 1)

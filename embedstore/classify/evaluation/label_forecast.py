"""Whether more labels pay: the accuracy to expect at twice the labels, with an interval.

The labeled rows are cut into folds. Each fold is predicted by heads that were fitted on a quarter, on half and on all
of the other rows. Errors of most learners fall as a power of the number of rows (Hestness et al. 2017, "Deep learning
scaling is predictable, empirically"), so each doubling gains a fixed share of what the last one gained. The gain of the
next doubling is taken from the gain of the last two, with a share in the middle of those that such powers have.

The interval adds what is not known: the rows that happened to be held out, how the training rows were drawn, and the
share. The size of the last two was set on 94 simulated and real draws of 40 to 120 labels; the tests measure how often
the intervals hold the truth on others.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.fit import fit_head_to_few
from embedstore.classify.metrics.shares import wilson_interval
from embedstore.errors import LabelError
from embedstore.tables import OneRow, Record, Table

MIN_LABELS = 20  # fewer pictures with a label show no curve
PAYS = 0.01  # accuracy that twice the labels must promise for more labels to pay
_FOLDS = 5
_REPEATS = 4
_SHARES = (0.25, 0.5, 1.0)  # of the rows that train
_RATIO = 0.55  # of the gain of a doubling to that of the one before: 2 to the power of -0.86
_DRAW = 0.8  # standard error by the draw of the training rows, in those of a share of as many rows
_SHAPE = 0.2  # standard error by the shape of the curve, in gains of the last two doublings
_Z = 1.96


@dataclass(frozen=True)
class AccuracyForecast(OneRow):
    """An accuracy in 0 to 1 and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelForecast(Table):
    """What more labels are worth.

    Attributes:
        label: the column.
        head: name of the head.
        labels: items with a label; copies count once.
        accuracy: the accuracy of a head that is fitted on these labels, on new items of the same kind as the labeled
            ones.
        at_twice: its accuracy to expect with twice as many labels.
        gain: the difference to expect, with its own interval.
        labels_for_a_point: further labels that one point (0.01) of accuracy is expected to cost; None if more labels
            are expected to gain nothing.
        pays: whether at least one point is expected from twice the labels.
    """

    label: str
    head: str
    labels: int
    accuracy: AccuracyForecast
    at_twice: AccuracyForecast
    gain: AccuracyForecast
    labels_for_a_point: int | None
    pays: bool

    def records(self) -> list[Record]:
        """Return one mapping for the labels of today and one for twice as many."""
        return [
            {"labels": count, "accuracy": a.value, "low": a.low, "high": a.high}
            for count, a in ((self.labels, self.accuracy), (2 * self.labels, self.at_twice))
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return asdict(self)

    def __str__(self) -> str:
        """Return what to do, in one sentence."""
        a, b, g = self.accuracy, self.at_twice, self.gain
        cost = "" if self.labels_for_a_point is None else f"; the next point costs about {self.labels_for_a_point:,}"
        advice = "more labels are expected to pay" if self.pays else "more labels are not expected to pay"
        return (
            f"{advice}: {self.labels:,} labels give an accuracy of {a.value:.3f} ({a.low:.3f} to {a.high:.3f}), twice "
            f"as many are expected to give {b.value:.3f} ({b.low:.3f} to {b.high:.3f}), {100 * g.value:+.1f} points "
            f"({100 * g.low:+.1f} to {100 * g.high:+.1f}){cost}"
        )


def forecast_labels(head: str, data: Features, *, seed: int = 0) -> LabelForecast:
    """Estimate the accuracy of a head at twice the labels.

    Args:
        head: name of the head.
        data: labeled rows, copies in one group.
        seed: the random seed of the folds and the head.

    Raises:
        LabelError: if the rows have several labels each, fewer than 20 different pictures, or fewer than two classes.
        UnknownHead: if no head has this name.
    """
    n_labels = len(np.unique(data.groups))
    n_classes = len(set(data.y.astype(str).tolist())) if not data.multilabel else 0
    if data.multilabel or n_labels < MIN_LABELS or n_classes < 2:
        raise LabelError(_refusal(data, n_labels, n_classes))
    curve = _mean_by_group(_correct_by_share(head, data, seed), data.groups)
    return _forecast(curve, data.label, head)


def _refusal(data: Features, n_labels: int, n_classes: int) -> str:
    """Return why these labels have no forecast."""
    if data.multilabel:
        return (
            f"a forecast needs one label per item, and {data.label!r} holds several; "
            f"`embedstore learning-curve STORE {shlex.quote(data.label)}` shows what they were worth so far"
        )
    return (
        f"a forecast needs at least {MIN_LABELS} labeled pictures of two classes, and {data.label!r} has {n_labels} of "
        f"{n_classes}; `embedstore suggest-labels STORE {shlex.quote(data.label)}` says what to label next"
    )


def _forecast(curve: NDArray[np.float64], label: str, head: str) -> LabelForecast:
    """Return the forecast of mean results ``(groups, shares)``."""
    n = len(curve)
    today, gained = curve[:, -1], curve[:, -1] - curve[:, 0]
    extra = math.log2(_FOLDS / (_FOLDS - 1))  # doublings from the rows that trained to all rows
    now_weight, next_weight = _gain(_RATIO, extra), _gain(_RATIO, extra + 1)
    now, later = today + now_weight * gained, today + next_weight * gained
    draw = _DRAW * math.sqrt(_smoothed_variance(now.mean(), n) / n)
    ahead = math.hypot(draw, _SHAPE * abs(gained.mean()))
    accuracy = _bounded(now.mean(), math.hypot(_error(now), draw), n)
    gain, gain_error = float(later.mean() - now.mean()), math.hypot(_error(later - now), ahead)
    return LabelForecast(
        label=label,
        head=head,
        labels=n,
        accuracy=accuracy,
        at_twice=_bounded(later.mean(), math.hypot(_error(later), ahead), n),
        gain=AccuracyForecast(gain, gain - _Z * gain_error, gain + _Z * gain_error),
        labels_for_a_point=math.ceil(n * (2 ** (0.01 / gain) - 1)) if gain > 0.01 / 30 else None,
        pays=gain >= PAYS,
    )


def _gain(ratio: float, doublings: float) -> float:
    """Return the gain of further doublings, as a share of the gain of the last two.

    Args:
        ratio: the ratio of the gain of a doubling to that of the one before.
        doublings: how many, not necessarily whole.
    """
    total = doublings if ratio == 1 else ratio * (1 - ratio**doublings) / (1 - ratio)
    return total * ratio / (1 + ratio)


def _smoothed_variance(share: float, n: int) -> float:
    """Return the variance of one draw with this share, which is never 0: one draw more is right and one is wrong."""
    smoothed = (min(max(share, 0.0), 1.0) * n + 1) / (n + 2)
    return smoothed * (1 - smoothed)


def _error(values: NDArray[np.float64]) -> float:
    """Return the standard error of a mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _bounded(value: float, error: float, n: int) -> AccuracyForecast:
    """Return an accuracy and its interval, at least as wide as that of a share of ``n`` draws."""
    value = min(max(float(value), 0.0), 1.0)
    low, high = wilson_interval(value, n)
    return AccuracyForecast(value, max(0.0, min(low, value - _Z * error)), min(1.0, max(high, value + _Z * error)))


def _mean_by_group(correct: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of the rows of each group, ``(groups, shares)``."""
    _, code = np.unique(groups, return_inverse=True)
    sums = np.zeros((code.max() + 1, correct.shape[1]))
    np.add.at(sums, code, correct)
    return np.asarray(sums / np.bincount(code)[:, None])


def _correct_by_share(head: str, data: Features, seed: int) -> NDArray[np.float64]:
    """Return how often each row is predicted right, ``(N, shares)``, by heads that did not train on its group."""
    chosen = getattr(fit_head_to_few(head, data, seed=seed), "C_", None)
    fit = partial(fit_head_to_few, head, seed=seed, options={} if chosen is None else {"C": chosen})
    correct = np.zeros((len(data), len(_SHARES)))
    for repeat in range(_REPEATS):
        for held_out, trains in _folds(data.groups, np.random.default_rng([seed, repeat])):
            for column, rows in enumerate(trains):
                correct[held_out, column] += _is_right(fit, data, rows, held_out)
    return correct / _REPEATS


def _folds(
    groups: NDArray[np.int64], rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.int64]]]]:
    """Yield the held-out rows of each fold, and nested parts of the other rows; groups stay together."""
    names = rng.permutation(np.unique(groups))
    for n in range(_FOLDS):
        others = np.delete(names, np.s_[n::_FOLDS])
        parts = [others[: math.ceil(share * len(others))] for share in _SHARES]
        yield (
            np.flatnonzero(np.isin(groups, names[n::_FOLDS])),
            [np.flatnonzero(np.isin(groups, part)) for part in parts],
        )


def _is_right(
    fit: Callable[[Features], Any], data: Features, train: NDArray[np.int64], held_out: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which held-out rows a head predicts right; a head of one class predicts that class."""
    truth, classes = data.y[held_out].astype(str), set(data.y[train].astype(str).tolist())
    if len(classes) == 1:
        return np.asarray(truth == classes.pop())
    return np.asarray(np.asarray(fit(data.take(train)).predict(data.X[held_out])).astype(str) == truth)

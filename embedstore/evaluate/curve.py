"""How many labels are needed: accuracy over the number of labelled items a class."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore import heads
from embedstore.errors import BadHead, LabelError
from embedstore.evaluate import fitting
from embedstore.evaluate.judge import How, divisions
from embedstore.evaluate.words import drawn
from embedstore.features import Features

BUDGETS = (1, 2, 4, 8, 16)  # labels a class; "all" is always the last point. The field's few-shot protocol
SEEDS = 5
LONE_C = 1.0  # with one example of a class nothing can choose C


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One budget.

    Attributes:
        shots: labels a class, None for all. train: rows trained on. accuracies: one a seed.
        mean, spread: of them; the spread is the standard deviation, 0 for a single seed.
    """

    shots: int | None
    train: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0


@dataclass(frozen=True)
class Curve:
    """A head's learning curve, judged on the same held-out rows throughout.

    Attributes:
        points: by budget; the last is all labels. skipped: budgets that the head cannot learn from, and why.
    """

    head: str
    label: str
    split: str
    held: int
    points: tuple[CurvePoint, ...]
    seconds: float
    space: str = ""
    skipped: tuple[tuple[int, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "head": self.head,
            "label": self.label,
            "space": self.space,
            "split": self.split,
            "held_out": self.held,
            "seconds": round(self.seconds, 3),
            "skipped": [{"shots": shots, "reason": why} for shots, why in self.skipped],
            "points": [
                {
                    "shots": p.shots,
                    "train": p.train,
                    "accuracy": p.mean,
                    "spread": p.spread,
                    "accuracies": list(p.accuracies),
                }
                for p in self.points
            ],
        }


def learning_curve(
    head: str,
    data: Features,
    label: str,
    *,
    budgets: Sequence[int] = BUDGETS,
    seeds: int = SEEDS,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> Curve:
    """Fit on a few labels a class, drawn with several seeds, then on all of them.

    Args:
        head: by name. data: labelled rows. label: for the report.
        budgets: labels a class; those that no class can fill are left out.
        seeds: draws a budget. seed: of the split and of the first draw. options: of the head.

    Raises:
        LabelError: the labels cannot support it; several labels an item.
    """

    def one(rows: NDArray[np.int64], held: Features, draw: int) -> float:
        return _fitted_accuracy(head, data.take(rows), held, draw, options)

    return curve_of(one, head, data, label, budgets=budgets, seeds=seeds, seed=seed)


def curve_of(
    judge_rows: Callable[[NDArray[np.int64], Features, int], float],
    head: str,
    data: Features,
    label: str,
    *,
    budgets: Sequence[int],
    seeds: int,
    seed: int,
) -> Curve:
    """The same for anything that learns: ``judge_rows(training rows, held-out features, seed)`` is its accuracy."""
    begin = time.perf_counter()
    if data.multi:
        raise LabelError("a learning curve over labels a class wants one label an item")
    part = divisions(data, How(seed=seed))[0]
    held = data.take(part.held)
    largest = int(np.unique(data.y[part.train].astype(str), return_counts=True)[1].max())
    points, skipped = [], []
    for shots in [b for b in sorted(set(budgets)) if 0 < b < largest]:
        draws = [drawn(data, part.train, shots, seed + s) for s in range(seeds)]
        try:
            found = tuple(judge_rows(rows, held, seed + s) for s, rows in enumerate(draws))
        except (LabelError, BadHead) as e:
            skipped.append((shots, str(e)))
            continue
        points.append(CurvePoint(shots, len(draws[0]), found))
    points.append(CurvePoint(None, len(part.train), (judge_rows(part.train, held, seed),)))
    took = time.perf_counter() - begin
    return Curve(head, label, part.name, len(held), tuple(points), took, skipped=tuple(skipped))


def _fitted_accuracy(head: str, train: Features, held: Features, seed: int, options: dict[str, Any] | None) -> float:
    """Accuracy of a head fitted on some rows; C is 1 where a class has one example only."""
    options = dict(options or {})
    if head == "logistic" and lonely(train):
        options["Cs"] = [LONE_C]
    estimator = fitting.fit(head, train, seed=seed, options=options)
    said = np.asarray(estimator.classes_)[np.asarray(heads.probabilities(estimator, held.X)).argmax(1)]
    return float((said == held.y).mean())


def lonely(train: Features) -> bool:
    """Some class lives in one group only."""
    return any(len(np.unique(train.groups[train.y == c])) < 2 for c in set(train.y.tolist()))

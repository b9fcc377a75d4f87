"""The search for the best C along a grid, all folds at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from embedstore.classify.heads.linear.accuracy_range import accuracy_range
from embedstore.classify.heads.linear.lbfgs import Incumbent, Solution, SolverStart, StoppingCriteria, minimize
from embedstore.classify.heads.linear.softmax import EigenBasis, SoftmaxProblem

_WORSE = 1e-3  # a loss this much above the best (relative) is worse; less may be rounding on a plateau
_NEIGHBOR_TOL = 10  # the values of C next to the best have a tolerance this much larger: 1e-3 in loss where it is 1
_ROUGH_TOL = 1e-7  # at which an accuracy is good to a few rows: a C that is far from the best is solved no further
_EXACT_TOL = 1e-13  # in float64: the relative distance from the optimum that decides a row's class with a tiny C
_DOUBLE = 8  # bytes
_REFINEMENT = 0.01  # by how much the distance from the optimum falls when a C is solved further


class SelectionCriterion(StrEnum):
    """What the best C has out of fold."""

    LOG_LOSS = "log_loss"  # the lowest: smooth, and what the fit itself minimizes
    ACCURACY = "accuracy"  # the highest, then the lowest log-loss: noisy with few rows
    FIRST_ACCURACY = "first_accuracy"  # the highest, then the strongest penalty: the evaluation code of the field


@dataclass(frozen=True, slots=True)
class RegularizationPoint:
    """One C of the path with its out-of-fold scores.

    Attributes:
        C: inverse strength of the penalty.
        log_loss: mean over the folds, good to a few percent only where the C is certainly neither the best nor next
            to it.
        accuracy: mean over the folds, to the same precision; to a few rows where accuracy is the criterion.
        fold_log_loss: the log-loss of each fold.
        fold_accuracy: the accuracy of each fold.
    """

    C: float
    log_loss: float
    accuracy: float
    fold_log_loss: tuple[float, ...]
    fold_accuracy: tuple[float, ...]


@dataclass(frozen=True)
class PathResult:
    """A path of C that was searched.

    Attributes:
        points: every C that was tried, in order.
        best: the chosen C.
        solution: the parameters of all folds at the chosen C.
    """

    points: tuple[RegularizationPoint, ...]
    best: float
    solution: Solution


@dataclass(frozen=True)
class RegularizationPath:
    """Settings of the search.

    Attributes:
        tol: relative distance from the optimum at which a fit stops.
        max_iter: most passes over the rows per C.
        patience: how many values of C in a row must be worse than the best to end the path; None tries all of them.
        criterion: what the best C has.
    """

    tol: float
    max_iter: int
    patience: int | None
    criterion: SelectionCriterion

    def search(self, folds: SoftmaxProblem, basis: EigenBasis, grid: Sequence[float]) -> PathResult:
        """Try the values of the grid, ascending, and return the best.

        Args:
            folds: one task per fold.
            basis: the coordinates.
            grid: values of C, the strongest penalty first.
        """
        return _PathSearch(self, folds, basis).run(grid)


class _PathSearch:
    """The state of one search: the points so far, and the solutions that may still be needed, by their place."""

    def __init__(self, settings: RegularizationPath, folds: SoftmaxProblem, basis: EigenBasis) -> None:
        self.settings, self.folds, self.basis = settings, folds, basis
        self.points: list[RegularizationPoint] = []
        self.solutions: dict[int, Solution] = {}  # the best, those next to it or near it, and the last
        self.ranges: dict[int, tuple[float, float]] = {}  # of accuracies, by the place of the C
        self.stuck: set[int] = set()  # solved as far as rounding allows

    def run(self, grid: Sequence[float]) -> PathResult:
        """Walk the grid; each fit starts where the last step would lead."""
        start = SolverStart(self.folds.initial_parameters(self.basis))
        for place, C in enumerate(grid):
            stop = StoppingCriteria(self._path_tol, self.settings.max_iter, self._incumbent())
            solution = self.solutions[place] = minimize(self.folds, self.basis, start, C, stop)
            step = solution.theta - start.theta if place else None  # the first fit starts from zero: not a step along C
            start = SolverStart(solution.theta, solution.final_pass, step)
            self.points.append(_point(C, solution))
            if place and solution.gap.max() <= self.settings.tol:  # solved to the end: the losses are close
                self._refine(self._best_place(self.solutions.keys() - {place}), self.settings.tol)
            if not self._is_by_loss:
                self.ranges[place] = accuracy_range(self.folds, self.basis, solution)
            best = self._best_place(self.solutions)
            self.solutions = {i: s for i, s in self.solutions.items() if self._is_near(i, best) or i == place}
            if self._has_turned():
                break
        best = self._settle()
        return PathResult(tuple(self.points), self.points[best].C, self.solutions[best])

    @property
    def _path_tol(self) -> float:
        """The tolerance of every fit; by accuracy only those near the best are solved further, at the end."""
        return self.settings.tol if self._is_by_loss else max(self.settings.tol, _ROUGH_TOL)

    @property
    def _is_by_loss(self) -> bool:
        return self.settings.criterion is SelectionCriterion.LOG_LOSS

    def _is_near(self, place: int, best: int) -> bool:
        """Return whether a C may still become the best, or its solution may still be needed."""
        if abs(place - best) < 2:
            return True
        if self._is_by_loss:
            return False
        return self._may_win(place, self.ranges[place][1], best, self.ranges[best][0])

    def _settle(self) -> int:
        """Solve what may still become the best, until nothing else can; return the place of the best."""
        return self._settle_loss() if self._is_by_loss else self._settle_accuracy()

    def _settle_loss(self) -> int:
        """Solve the best C to the tolerance and its neighbors nearly so, until none of them becomes the best."""
        best = -1
        while best != self._best_place(self.solutions):
            best = self._best_place(self.solutions)
            for place in sorted(i for i in self.solutions if abs(i - best) < 2):
                self._refine(place, self.settings.tol * (1 if place == best else _NEIGHBOR_TOL))
        return best

    def _settle_accuracy(self) -> int:
        """Solve each C that may have the highest accuracy until no row decides it that could still change."""
        while True:
            best = self._best_place(self.solutions)
            rivals = [i for i in self.solutions if self._may_win(i, self.ranges[i][1], best, self.ranges[best][0])]
            unsure = [i for i in (best, *rivals) if self.ranges[i][0] < self.ranges[i][1] and self._is_improvable(i)]
            if not rivals or not unsure:
                return best
            for place in unsure:
                gap = float(self.solutions[place].gap.max())
                self._refine(place, max(self._exact_tol, gap * _REFINEMENT))
                self.ranges[place] = accuracy_range(self.folds, self.basis, self.solutions[place])
                if self.solutions[place].gap.max() >= gap:  # rounding: it comes no nearer
                    self.stuck.add(place)

    def _may_win(self, place: int, highest: float, best: int, lowest: float) -> bool:
        """Return whether a C whose accuracy is at most ``highest`` may be better than the best, with ``lowest``."""
        if self.settings.criterion is SelectionCriterion.FIRST_ACCURACY and place > best:
            return highest > lowest
        return place != best and highest >= lowest

    def _is_improvable(self, place: int) -> bool:
        """Return whether one more search may bring a C nearer to its optimum."""
        return place not in self.stuck and bool(self.solutions[place].gap.max() > self._exact_tol)

    @property
    def _exact_tol(self) -> float:
        """The tolerance at which an accuracy is exact: with a tiny C all weights are, and all margins."""
        return min(self.settings.tol, _EXACT_TOL) if self.folds.be.dtype.itemsize == _DOUBLE else self.settings.tol

    def _refine(self, place: int, tol: float) -> None:
        """Solve one C of the path to a tolerance, from where it ended before."""
        before, C = self.solutions[place], self.points[place].C
        if before.gap.max() > tol:
            start, stop = SolverStart(before.theta, before.final_pass), StoppingCriteria(tol, self.settings.max_iter)
            self.solutions[place] = minimize(self.folds, self.basis, start, C, stop)
            self.points[place] = _point(C, self.solutions[place])

    def _best_place(self, places: Iterable[int]) -> int:
        """Return the place of the best C; of equal ones that of the strongest penalty."""
        rank = _rank(self.settings.criterion)
        return max(sorted(places), key=lambda i: rank(self.points[i]))

    def _incumbent(self) -> Incumbent | None:
        """Return what the next C has to beat; None if every C must be solved to the tolerance."""
        if self.settings.patience is None or not self._is_by_loss:
            return None
        if not self.points:
            return Incumbent()
        best = self.solutions[self._best_place(self.solutions)]
        return Incumbent(float(np.nanmean(best.final_pass.held_out_loss)), float(np.sqrt(best.gap.max())))

    def _has_turned(self) -> bool:
        """Return whether the last ``patience`` losses are all worse than the best."""
        patience, losses = self.settings.patience, [p.log_loss for p in self.points]
        if patience is None or len(losses) <= patience:
            return False
        return all(loss > min(losses) * (1 + _WORSE) for loss in losses[-patience:])


def _rank(criterion: SelectionCriterion) -> Callable[[RegularizationPoint], tuple[float, float]]:
    """Return a key that is largest for the best point; of equals ``max`` takes the first, the strongest penalty."""
    if criterion is SelectionCriterion.ACCURACY:
        return lambda point: (point.accuracy, -point.log_loss)
    if criterion is SelectionCriterion.FIRST_ACCURACY:
        return lambda point: (point.accuracy, 0.0)
    return lambda point: (-point.log_loss, 0.0)


def _point(C: float, solution: Solution) -> RegularizationPoint:
    losses, accuracies = solution.final_pass.held_out_loss, solution.final_pass.held_out_accuracy
    return RegularizationPoint(
        C, float(np.nanmean(losses)), float(np.nanmean(accuracies)), tuple(losses.tolist()), tuple(accuracies.tolist())
    )

"""The search for the best C along a grid, all folds at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from embedstore.classify.heads.linear.lbfgs import Incumbent, Solution, SolverStart, StoppingCriteria, minimize
from embedstore.classify.heads.linear.softmax import EigenBasis, SoftmaxProblem

_WORSE = 1e-3  # a loss this much above the best (relative) is worse; less may be rounding on a plateau
_NEIGHBOR_TOL = 10  # the values of C next to the best have a tolerance this much larger: 1e-3 in loss where it is 1


class SelectionCriterion(StrEnum):
    """What the best C has out of fold."""

    LOG_LOSS = "log_loss"  # the lowest: smooth, and what the fit itself minimizes
    ACCURACY = "accuracy"  # the highest, then the lowest log-loss: the field's protocol, noisy with few rows


@dataclass(frozen=True, slots=True)
class RegularizationPoint:
    """One C of the path with its out-of-fold scores.

    Attributes:
        C: inverse strength of the penalty.
        log_loss: mean over the folds, good to a few percent only where the C is certainly neither the best nor next
            to it.
        accuracy: mean over the folds, to the same precision.
        fold_log_loss: of each fold.
        fold_accuracy: of each fold.
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
        self.solutions: dict[int, Solution] = {}  # the best, those next to it and the last

    def run(self, grid: Sequence[float]) -> PathResult:
        """Walk the grid; each fit starts where the last step would lead."""
        start = SolverStart(self.folds.initial_parameters(self.basis))
        for place, C in enumerate(grid):
            stop = StoppingCriteria(self.settings.tol, self.settings.max_iter, self._incumbent())
            solution = self.solutions[place] = minimize(self.folds, self.basis, start, C, stop)
            step = solution.theta - start.theta if place else None  # the first fit starts from zero: not a step along C
            start = SolverStart(solution.theta, solution.final_pass, step)
            self.points.append(_point(C, solution))
            if place and solution.gap.max() <= self.settings.tol:  # solved to the end: the losses are close
                self._refine(self._best_place(self.solutions.keys() - {place}), self.settings.tol)
            best = self._best_place(self.solutions)
            self.solutions = {i: s for i, s in self.solutions.items() if abs(i - best) < 2 or i == place}
            if self._has_turned():
                break
        best = self._settle()
        return PathResult(tuple(self.points), self.points[best].C, self.solutions[best])

    def _settle(self) -> int:
        """Solve the best C to the tolerance and its neighbors nearly so, until none of them becomes the best."""
        best = -1
        while best != self._best_place(self.solutions):
            best = self._best_place(self.solutions)
            for place in sorted(i for i in self.solutions if abs(i - best) < 2):
                self._refine(place, self.settings.tol * (1 if place == best else _NEIGHBOR_TOL))
        return best

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
        if self.settings.patience is None or self.settings.criterion is not SelectionCriterion.LOG_LOSS:
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
    return lambda point: (-point.log_loss, 0.0)


def _point(C: float, solution: Solution) -> RegularizationPoint:
    losses, accuracies = solution.final_pass.held_out_loss, solution.final_pass.held_out_accuracy
    return RegularizationPoint(
        C, float(np.nanmean(losses)), float(np.nanmean(accuracies)), tuple(losses.tolist()), tuple(accuracies.tolist())
    )

"""How far the held-out accuracy of a fit that is not quite at its optimum may still change."""

from __future__ import annotations

import numpy as np

from embedstore.arrays import FloatArray
from embedstore.classify.heads.linear.lbfgs import Solution
from embedstore.classify.heads.linear.softmax import EigenBasis, SoftmaxProblem

_REACH = 4.0  # standard errors of a logit: beyond them a row keeps its class
_MIN_CURVATURE = 1e-4


def accuracy_range(folds: SoftmaxProblem, basis: EigenBasis, solution: Solution) -> tuple[float, float]:
    """Return the lowest and the highest mean accuracy over the folds that the optimum can have.

    A fit whose objective F is a share g above its minimum has logits whose mean square distance from the optimum's is
    about ``2 g F / w`` with w the mean curvature p(1 - p). A row whose two largest logits are further apart keeps its
    class; all others may become right or wrong.

    Args:
        folds: one task per fold.
        basis: the coordinates.
        solution: where the search of each fold ended.
    """
    curvature = np.maximum(folds.be.to_numpy(solution.final_pass.curvature).mean(1), _MIN_CURVATURE)
    reach = _REACH * np.sqrt(2 * np.maximum(solution.gap * solution.objective, 0) / curvature)
    weights = folds.be.to_numpy(folds.held_out_weights)
    unsure = np.zeros(len(weights))
    for fold, weight in enumerate(weights):
        rows = np.flatnonzero(weight > 0)
        margins = _margins(folds.logits(solution.theta[fold], basis, rows))
        unsure[fold] = weight[rows][margins < reach[fold]].sum() / folds.held_out_totals[fold]
    accuracy = solution.final_pass.held_out_accuracy
    return float(np.nanmean(np.maximum(accuracy - unsure, 0))), float(np.nanmean(np.minimum(accuracy + unsure, 1)))


def _margins(logits: FloatArray) -> FloatArray:
    """Return the distance of the two largest logits of each row, ``(N,)``; for one column that from 0."""
    if logits.shape[1] == 1:
        return np.asarray(np.abs(logits[:, 0]))
    largest = np.partition(logits, -2, axis=1)[:, -2:]
    return np.asarray(largest[:, 1] - largest[:, 0])

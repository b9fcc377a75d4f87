"""L-BFGS for many tasks at once (Nocedal and Wright 2006, algorithms 7.4 and 7.5), preconditioned.

Every pass over the rows serves all tasks. Each task has its own history and step length; a task whose step is rejected
shortens it while the others go on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from embedstore.arrays import Array, FloatArray
from embedstore.classify.heads.linear.backend import Backend, Tensor
from embedstore.classify.heads.linear.softmax import EigenBasis, PassResult, SoftmaxProblem

_MEMORY = 5  # pairs kept (Nocedal and Wright recommend 3 to 20; 10 took as many passes and twice the work)
_ARMIJO = 1e-4  # least share of the predicted decrease (Nocedal and Wright, section 3.1)
_NOISE = {4: 3e-7, 8: 1e-15}  # relative rounding of a loss, by the bytes of a number: less is not an increase
_SAFETY = 4.0  # square roots of the gap by which a loss must differ to be clearly better or worse
_ROUGH = 0.01  # square root of a gap at which a loss is good to a few percent: enough far from the incumbent's
_MIN_CURVATURE = 1e-4  # also a class that is almost certain has some curvature

Pair = tuple[Tensor, Tensor, FloatArray]
"""A step, the change of the gradient along it, and the inverse of their inner product."""


@dataclass(frozen=True)
class Solution:
    """Where the tasks ended.

    Attributes:
        theta: parameters ``(T, K, R + 1)``.
        final_pass: the pass at ``theta``.
        objective: mean loss plus penalty, float64 ``(T,)``.
        gap: estimated relative distance of the objective from its minimum, float64 ``(T,)``.
        n_passes: passes over the rows.
    """

    theta: Tensor
    final_pass: PassResult
    objective: FloatArray
    gap: FloatArray
    n_passes: int


@dataclass(frozen=True)
class SolverStart:
    """Where a search begins.

    Attributes:
        theta: parameters ``(T, K, R + 1)``.
        known_pass: the pass at ``theta``, if it is known.
        direction: the direction to try first, if it descends: along a path of C, the last step.
    """

    theta: Tensor
    known_pass: PassResult | None = None
    direction: Tensor | None = None


@dataclass(frozen=True)
class Incumbent:
    """The best mean held-out loss so far, and the square root of the gap of its fit.

    The default is the incumbent of the first fit, which has none to beat.
    """

    loss: float = np.inf
    gap_root: float = 0.0


@dataclass(frozen=True)
class StoppingCriteria:
    """When a search ends.

    Attributes:
        tol: the search ends when half the squared Newton step, g'Hg / 2, is below this share of the objective in
            every task.
        max_iter: most passes over the rows.
        incumbent: the held-out loss to beat; the search ends when it is certain which one is better.
    """

    tol: float
    max_iter: int
    incumbent: Incumbent | None = None


def minimize(
    problem: SoftmaxProblem, basis: EigenBasis, start: SolverStart, C: float, stop: StoppingCriteria
) -> Solution:
    """Minimize mean loss + |w|^2 / (2 C n) of every task.

    Args:
        problem: the rows and the tasks.
        basis: the coordinates.
        start: where the search begins.
        C: inverse strength of the penalty, as scikit-learn counts it.
        stop: when the search ends.
    """
    be, passes_before = problem.be, problem.n_passes
    penalty = 1 / (C * problem.train_totals)
    theta, first_direction = start.theta, start.direction
    current = start.known_pass or problem.evaluate(theta, basis)
    value, grad = _penalized(be, theta, current, penalty)
    scale = _preconditioner(be, current, basis, penalty)
    history: deque[Pair] = deque(maxlen=_MEMORY)
    step, done = np.ones(len(value)), np.zeros(len(value), bool)
    direction, gap = be.zeros(*theta.shape), np.full(len(value), np.inf)
    accepted: Array = np.ones(len(value), bool)
    noise = _NOISE[be.dtype.itemsize]
    while problem.n_passes - passes_before < stop.max_iter:
        newton = _newton_direction(be, grad, scale, history)
        gap = np.where(accepted, -be.dot(grad, newton) / 2 / np.maximum(value, 1e-300), gap)
        done |= gap <= stop.tol
        if done.all() or (stop.incumbent and _is_decided(current, gap, stop.incumbent)):
            break
        if first_direction is not None:
            newton = _where(be, be.dot(first_direction, grad) < 0, first_direction, newton)
            first_direction = None
        direction = _where(be, accepted, newton, direction)
        slope = be.dot(grad, direction)
        trial = theta + _per_task(be, step) * direction
        trial_pass = problem.evaluate(trial, basis)
        trial_value, trial_grad = _penalized(be, trial, trial_pass, penalty)
        accepted = trial_value <= value + _ARMIJO * step * slope + noise * value
        history.append(_pair(be, trial - theta, trial_grad - grad, accepted))
        excess = trial_value - value - step * slope
        shorter = step * np.clip(-slope * step / 2 / np.where(excess > 0, excess, np.inf), 0.1, 0.5)
        theta, grad = _where(be, accepted, trial, theta), _where(be, accepted, trial_grad, grad)
        current = _select_pass(be, accepted, trial_pass, current)
        value = np.where(accepted, trial_value, value)
        done |= ~accepted & (step < 1e-3)  # rounding hides what is left
        step = np.where(accepted, 1.0, shorter)
    return Solution(theta, current, value, gap, problem.n_passes - passes_before)


def _is_decided(current: PassResult, gap: FloatArray, incumbent: Incumbent) -> bool:
    """Return whether the held-out loss differs from the incumbent's by more than further passes can change.

    To first order a loss changes by no more than the square root of the gap; four times that is on the safe side.
    """
    gap_root, loss = float(np.sqrt(gap.max())), float(np.nanmean(current.held_out_loss))
    margin = min(loss, incumbent.loss) * _SAFETY * (gap_root + incumbent.gap_root)
    return gap_root < _ROUGH and abs(loss - incumbent.loss) > margin


def _penalized(be: Backend, theta: Tensor, result: PassResult, penalty: FloatArray) -> tuple[FloatArray, Tensor]:
    """Return the objective, float64 ``(T,)``, and its gradient; the last parameter has no penalty."""
    pull = theta * _per_task(be, penalty)
    pull[..., -1] = 0
    return result.loss + be.dot(pull, theta) / 2, result.grad + pull


def _preconditioner(be: Backend, result: PassResult, basis: EigenBasis, penalty: FloatArray) -> Tensor:
    """Return the inverse of the Hessian's diagonal in the eigenbasis, ``(T, K, R + 1)``."""
    curvature = be.xp.clip(result.curvature, _MIN_CURVATURE, None)[..., None]
    return be.xp.concatenate([1 / (curvature * basis.eigenvalues + _per_task(be, penalty)), 1 / curvature], -1)


def _select_pass(be: Backend, accepted: Array, new: PassResult, old: PassResult) -> PassResult:
    """Return for each task the pass at its present parameters."""
    if accepted.all():
        return new
    rows = be.to_device(accepted.astype(np.int8))[:, None] > 0
    return PassResult(
        np.where(accepted, new.loss, old.loss),
        _where(be, accepted, new.grad, old.grad),
        be.xp.where(rows, new.curvature, old.curvature),
        np.where(accepted, new.held_out_loss, old.held_out_loss),
        np.where(accepted, new.held_out_accuracy, old.held_out_accuracy),
    )


def _pair(be: Backend, s: Tensor, y: Tensor, accepted: Array) -> Pair:
    """Return a pair for the history; its inverse is zero for a task that did not move or is not convex there."""
    sy = be.dot(s, y)
    good = accepted & (sy > 1e-12 * be.dot(s, s))
    return s, y, np.where(good, 1 / np.where(good, sy, 1), 0)


def _newton_direction(be: Backend, grad: Tensor, scale: Tensor, history: deque[Pair]) -> Tensor:
    """Return minus the approximate inverse Hessian times the gradient."""
    q, parts = grad * 1, []
    for s, y, rho in reversed(history):
        part = rho * be.dot(s, q)
        parts.append(part)
        q -= _per_task(be, part) * y
    q *= scale
    if history:
        _, y, rho = history[-1]
        curvature = rho * be.dot(y, scale * y)
        q *= _per_task(be, np.where(curvature > 0, 1 / np.where(curvature > 0, curvature, 1), 1))
    for (s, y, rho), part in zip(history, reversed(parts), strict=True):
        q += _per_task(be, part - rho * be.dot(y, q)) * s
    return -q


def _per_task(be: Backend, values: FloatArray) -> Tensor:
    return be.to_device(values)[:, None, None]


def _where(be: Backend, mask: Array, a: Tensor, b: Tensor) -> Tensor:
    if mask.all():
        return a
    return be.xp.where(be.to_device(mask.astype(np.int8))[:, None, None] > 0, a, b)

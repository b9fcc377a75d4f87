"""L-BFGS for many tasks at once (Nocedal and Wright 2006, algorithms 7.4 and 7.5), preconditioned.

Every pass over the rows serves all tasks. Each has its own history and step length; a task whose step is refused
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
_ARMIJO = 1e-4  # least share of the promised decrease (Nocedal and Wright, section 3.1)
_NOISE = {4: 3e-7, 8: 1e-15}  # relative rounding of a loss, by the bytes of a number: less is no increase
_CLEARLY = 4.0  # square roots of the gap
_ROUGH = 0.01  # square root of a gap at which a loss is good to some per cent, enough where it is far from the rival's
_LEAST_CURVATURE = 1e-4  # a class that is all but certain still bends a little


@dataclass(frozen=True)
class Solution:
    """Where the tasks came to rest.

    Attributes:
        theta: ``(T, K, R + 1)``. seen: the pass at theta. objective: mean loss plus penalty, float64 ``(T,)``.
        gap: estimated distance of the objective from its minimum, relative. passes: over the rows.
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
        theta: ``(T, K, R + 1)``. seen: the pass at theta, where it is known.
        towards: first direction to try, where it goes down: along a path of C, the last step.
    """

    theta: Tensor
    known_pass: PassResult | None = None
    direction: Tensor | None = None


@dataclass(frozen=True)
class Incumbent:
    """The best mean held-out loss so far, and the square root of the gap of its fit. The first has none to beat."""

    loss: float = np.inf
    gap_root: float = 0.0


@dataclass(frozen=True)
class StoppingCriteria:
    """When a search ends.

    Attributes:
        tol: when half the squared Newton step, g'Hg / 2, is below this share of the objective in every task.
        max_iter: passes at most.
        rival: the held-out loss to beat; where it is certain who wins, the search ends.
    """

    tol: float
    max_iter: int
    incumbent: Incumbent | None = None


def minimize(
    problem: SoftmaxProblem, basis: EigenBasis, start: SolverStart, C: float, stop: StoppingCriteria
) -> Solution:
    """Minimise mean loss + |w|^2 / (2 C n) of every task.

    Args:
        problem, basis: the rows and the coordinates. start, stop: where it begins and when it ends.
        C: inverse strength of the penalty, as scikit-learn counts it.
    """
    be, before = problem.be, problem.n_passes
    penalty = 1 / (C * problem.train_counts)
    theta, towards = start.theta, start.direction
    seen = start.known_pass or problem.evaluate(theta, basis)
    value, grad = _penalised(be, theta, seen, penalty)
    scale = _preconditioner(be, seen, basis, penalty)
    history: deque[tuple[Tensor, Tensor, FloatArray]] = deque(maxlen=_MEMORY)
    step, done = np.ones(len(value)), np.zeros(len(value), bool)
    way, gap = be.zeros(*theta.shape), np.full(len(value), np.inf)
    moved: Array = np.ones(len(value), bool)
    noise = _NOISE[be.dtype.itemsize]
    while problem.n_passes - before < stop.max_iter:
        fresh = _direction(be, grad, scale, history)
        gap = np.where(moved, -be.dot(grad, fresh) / 2 / np.maximum(value, 1e-300), gap)
        done |= gap <= stop.tol
        if done.all() or (stop.incumbent and _decided(seen, gap, stop.incumbent)):
            break
        if towards is not None:
            fresh, towards = _where(be, be.dot(towards, grad) < 0, towards, fresh), None
        way = _where(be, moved, fresh, way)
        slope = be.dot(grad, way)
        trial = theta + _each(be, step) * way
        looked = problem.evaluate(trial, basis)
        new_value, new_grad = _penalised(be, trial, looked, penalty)
        moved = new_value <= value + _ARMIJO * step * slope + noise * value
        history.append(_pair(be, trial - theta, new_grad - grad, moved))
        bend = new_value - value - step * slope
        shorter = step * np.clip(-slope * step / 2 / np.where(bend > 0, bend, np.inf), 0.1, 0.5)
        theta, grad = _where(be, moved, trial, theta), _where(be, moved, new_grad, grad)
        seen = _merged(be, moved, looked, seen)
        value = np.where(moved, new_value, value)
        done |= ~moved & (step < 1e-3)  # rounding hides what is left
        step = np.where(moved, 1.0, shorter)
    return Solution(theta, seen, value, gap, problem.n_passes - before)


def _decided(seen: PassResult, gap: FloatArray, rival: Incumbent) -> bool:
    """The held-out loss is further from the rival's than the way that is left can change.

    To first order a loss moves by no more than the square root of the gap; four times that is on the safe side.
    """
    way, loss = float(np.sqrt(gap.max())), float(np.nanmean(seen.held_out_loss))
    return way < _ROUGH and abs(loss - rival.loss) > min(loss, rival.loss) * _CLEARLY * (way + rival.gap_root)


def _penalised(be: Backend, theta: Tensor, seen: PassResult, penalty: FloatArray) -> tuple[FloatArray, Tensor]:
    """Objective float64 ``(T,)`` and its gradient; the last parameter is free of penalty."""
    pull = theta * _each(be, penalty)
    pull[..., -1] = 0
    return seen.loss + be.dot(pull, theta) / 2, seen.grad + pull


def _preconditioner(be: Backend, seen: PassResult, basis: EigenBasis, penalty: FloatArray) -> Tensor:
    """The inverse of the Hessian's diagonal in the eigenbasis, ``(T, K, R + 1)``."""
    bend = be.xp.clip(seen.curvature, _LEAST_CURVATURE, None)[..., None]
    return be.xp.concatenate([1 / (bend * basis.eigenvalues + _each(be, penalty)), 1 / bend], -1)


def _merged(be: Backend, moved: Array, new: PassResult, old: PassResult) -> PassResult:
    """What is known at the parameters that each task has now."""
    if moved.all():
        return new
    rows = be.to_device(moved.astype(np.int8))[:, None] > 0
    return PassResult(
        np.where(moved, new.loss, old.loss),
        _where(be, moved, new.grad, old.grad),
        be.xp.where(rows, new.curvature, old.curvature),
        np.where(moved, new.held_out_loss, old.held_out_loss),
        np.where(moved, new.held_out_accuracy, old.held_out_accuracy),
    )


def _pair(be: Backend, s: Tensor, y: Tensor, moved: Array) -> tuple[Tensor, Tensor, FloatArray]:
    """A step, the change of gradient along it, and 1 / s'y; zero for a task that did not move or is not convex."""
    sy = be.dot(s, y)
    good = moved & (sy > 1e-12 * be.dot(s, s))
    return s, y, np.where(good, 1 / np.where(good, sy, 1), 0)


def _direction(be: Backend, grad: Tensor, scale: Tensor, history: deque[tuple[Tensor, Tensor, FloatArray]]) -> Tensor:
    """Minus the approximate inverse Hessian times the gradient."""
    q, parts = grad * 1, []
    for s, y, rho in reversed(history):
        part = rho * be.dot(s, q)
        parts.append(part)
        q -= _each(be, part) * y
    q *= scale
    if history:
        _, y, rho = history[-1]
        bend = rho * be.dot(y, scale * y)
        q *= _each(be, np.where(bend > 0, 1 / np.where(bend > 0, bend, 1), 1))
    for (s, y, rho), part in zip(history, reversed(parts), strict=True):
        q += _each(be, part - rho * be.dot(y, q)) * s
    return -q


def _each(be: Backend, per_task: FloatArray) -> Tensor:
    return be.to_device(per_task)[:, None, None]


def _where(be: Backend, chosen: Array, a: Tensor, b: Tensor) -> Tensor:
    if chosen.all():
        return a
    return be.xp.where(be.to_device(chosen.astype(np.int8))[:, None, None] > 0, a, b)

"""L-BFGS for many tasks at once (Nocedal and Wright 2006, algorithms 7.4 and 7.5), preconditioned.

Every pass over the rows serves all tasks. Each has its own history and step length; a task whose step is refused
shortens it while the others go on.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from embedstore.heads._backend import Backend, Tensor
from embedstore.heads._rows import Array, Floats
from embedstore.heads._softmax import Basis, Pass, Problem

_MEMORY = 10  # pairs kept (Nocedal and Wright recommend 3 to 20)
_ARMIJO = 1e-4  # least share of the promised decrease (Nocedal and Wright, section 3.1)
_NOISE = {4: 3e-7, 8: 1e-15}  # relative rounding of a loss, by the bytes of a number: less is no increase
_LEAST_CURVATURE = 1e-4  # a class that is all but certain still bends a little


@dataclass(frozen=True)
class Solution:
    """Where the tasks came to rest.

    Attributes:
        theta: ``(T, K, R + 1)``. seen: the pass at theta. objective: mean loss plus penalty, float64 ``(T,)``.
        gap: estimated distance of the objective from its minimum, relative. passes: over the rows.
    """

    theta: Tensor
    seen: Pass
    objective: Floats
    gap: Floats
    passes: int


def minimise(
    problem: Problem,
    basis: Basis,
    theta: Tensor,
    C: float,
    *,
    tol: float,
    max_iter: int,
    seen: Pass | None = None,
    towards: Tensor | None = None,
) -> Solution:
    """Minimise mean loss + |w|^2 / (2 C n) of every task.

    Args:
        problem, basis: the rows and the coordinates.
        theta: where to start, ``(T, K, R + 1)``.
        C: inverse strength of the penalty, as scikit-learn counts it.
        tol: stop when half the squared Newton step, g'Hg / 2, is below this share of the objective in every task.
        max_iter: passes at most.
        seen: the pass at theta, where it is known.
        towards: first direction to try, where it goes down: along a path of C, the last step.
    """
    be, before = problem.be, problem.passes
    penalty = 1 / (C * problem.counts)
    seen = seen or problem.look(theta, basis)
    value, grad = _penalised(be, theta, seen, penalty)
    scale = _preconditioner(be, seen, basis, penalty)
    history: deque[tuple[Tensor, Tensor, Floats]] = deque(maxlen=_MEMORY)
    step, done = np.ones(len(value)), np.zeros(len(value), bool)
    way, gap = be.zeros(*theta.shape), np.full(len(value), np.inf)
    moved: Array = np.ones(len(value), bool)
    noise = _NOISE[be.dtype.itemsize]
    while problem.passes - before < max_iter:
        fresh = _direction(be, grad, scale, history)
        gap = np.where(moved, -_dot(be, grad, fresh) / 2 / np.maximum(value, 1e-300), gap)
        done |= gap <= tol
        if done.all():
            break
        if towards is not None:
            fresh, towards = _where(be, _dot(be, towards, grad) < 0, towards, fresh), None
        way = _where(be, moved, fresh, way)
        slope = _dot(be, grad, way)
        trial = theta + _each(be, step) * way
        looked = problem.look(trial, basis)
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
    return Solution(theta, seen, value, gap, problem.passes - before)


def _penalised(be: Backend, theta: Tensor, seen: Pass, penalty: Floats) -> tuple[Floats, Tensor]:
    """Objective float64 ``(T,)`` and its gradient; the last parameter is free of penalty."""
    pull = theta * _each(be, penalty)
    pull[..., -1] = 0
    return seen.loss + _dot(be, pull, theta) / 2, seen.grad + pull


def _preconditioner(be: Backend, seen: Pass, basis: Basis, penalty: Floats) -> Tensor:
    """The inverse of the Hessian's diagonal in the eigenbasis, ``(T, K, R + 1)``."""
    bend = be.xp.clip(seen.curvature, _LEAST_CURVATURE, None)[..., None]
    return be.xp.concatenate([1 / (bend * basis.values + _each(be, penalty)), 1 / bend], -1)


def _merged(be: Backend, moved: Array, new: Pass, old: Pass) -> Pass:
    """What is known at the parameters that each task has now."""
    rows = be.put(moved.astype(np.int8))[:, None] > 0
    return Pass(
        np.where(moved, new.loss, old.loss),
        _where(be, moved, new.grad, old.grad),
        be.xp.where(rows, new.curvature, old.curvature),
        np.where(moved, new.held_loss, old.held_loss),
        np.where(moved, new.held_right, old.held_right),
    )


def _pair(be: Backend, s: Tensor, y: Tensor, moved: Array) -> tuple[Tensor, Tensor, Floats]:
    """A step, the change of gradient along it, and 1 / s'y; zero for a task that did not move or is not convex."""
    sy = _dot(be, s, y)
    good = moved & (sy > 1e-12 * _dot(be, s, s))
    return s, y, np.where(good, 1 / np.where(good, sy, 1), 0)


def _direction(be: Backend, grad: Tensor, scale: Tensor, history: deque[tuple[Tensor, Tensor, Floats]]) -> Tensor:
    """Minus the approximate inverse Hessian times the gradient."""
    q, parts = grad, []
    for s, y, rho in reversed(history):
        part = rho * _dot(be, s, q)
        parts.append(part)
        q = q - _each(be, part) * y
    q = q * scale
    if history:
        _, y, rho = history[-1]
        bend = rho * _dot(be, y, scale * y)
        q = q * _each(be, np.where(bend > 0, 1 / np.where(bend > 0, bend, 1), 1))
    for (s, y, rho), part in zip(history, reversed(parts), strict=True):
        q = q + _each(be, part - rho * _dot(be, y, q)) * s
    return -q


def _dot(be: Backend, a: Tensor, b: Tensor) -> Floats:
    """Inner product of each task: float64 ``(T,)``."""
    return be.host(be.xp.einsum("tkr,tkr->t", a, b))


def _each(be: Backend, per_task: Floats) -> Tensor:
    return be.put(per_task)[:, None, None]


def _where(be: Backend, chosen: Array, a: Tensor, b: Tensor) -> Tensor:
    return be.xp.where(be.put(chosen.astype(np.int8))[:, None, None] > 0, a, b)

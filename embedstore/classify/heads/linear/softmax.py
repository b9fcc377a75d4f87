"""Loss and gradient of many penalized softmax regressions over the same rows, in one pass.

A *task* is a set of training rows: one fold's, or all. All tasks share the two matrix products with X, and the rows
that a task does not train on are scored in the same pass, so the out-of-fold loss costs nothing extra.

Parameters are coordinates in the eigenbasis of the centered X'X, where the Hessian of every task, class and C is nearly
``diag(w * eigenvalue + penalty)`` with w the mean of p(1 - p): one eigendecomposition preconditions all of them. The
last parameter of a class is its logit at the mean row, which interacts with the weights in second order only; like
scikit-learn's intercept it is not penalized.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.heads.linear.backend import Backend, Tensor
from embedstore.classify.heads.numerics import blocks
from embedstore.resources import memory_share
from embedstore.threads import map_parts

_BLOCK_LOGITS = 250_000  # logits of all tasks in memory at once: 1 MB of float32 stays in the cache
_MIN_BLOCK_ROWS = 256  # with fewer rows the matrix products lose their speed
_NUMBERS_PER_LOGIT = 6  # that a pass holds at once on a GPU: the logits, their exponentials, the residuals and copies
_PARTS = 16  # of the rows, over which threads compute
# Operations in a pass from which several threads compute it: fewer take only some milliseconds.
THREADED_WORK = 4e8
# Bytes of rows up to which they are also kept by feature: their logits then take a half to a fifth of the time.
_BY_FEATURE = 1 << 28
_CURVATURE_SAMPLE = 64  # rows of a block whose curvature is computed
_ABSENT_LOGIT = -1e4  # of a class that is absent from a task's rows: exp gives exactly 0
_MAX_MEMORY_SHARE = 0.4  # of a GPU's free memory that the rows may take


@dataclass(frozen=True)
class EigenBasis:
    """Coordinates of the parameters: a row x becomes ``((x - mean) @ projection, 1)``.

    Attributes:
        projection: ``(D, R)``; weights of a class are ``projection @ theta[:R]``.
        eigenvalues: ``(R,)``, the second moments of the rows along the columns of the projection.
        mean: ``(D,)``, the mean row.
        rows_projected: whether the rows are stored in these coordinates, ``(N, R + 1)``.
    """

    projection: Tensor
    eigenvalues: Tensor
    mean: Tensor
    rows_projected: bool

    def device_coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights ``(T * K, D)`` and intercepts ``(T * K,)`` for the rows as given."""
        flat = theta.reshape(-1, theta.shape[-1])
        w = flat[:, :-1] @ self.projection.T
        return w, flat[:, -1] - w @ self.mean

    def coefficients(self, be: Backend, theta: Tensor) -> tuple[FloatArray, FloatArray]:
        """Return the same of one task, in float64 NumPy."""
        flat = be.to_numpy(theta).reshape(-1, theta.shape[-1])
        w = flat[:, :-1] @ be.to_numpy(self.projection).T
        return w, flat[:, -1] - w @ be.to_numpy(self.mean)


@dataclass(frozen=True)
class PassResult:
    """The result of one pass over the rows for each of T tasks.

    Attributes:
        loss: mean training loss, float64 ``(T,)``.
        grad: gradient of the loss, ``(T, K, R + 1)``.
        curvature: mean p(1 - p), ``(T, K)``.
        held_out_loss: mean loss on the held-out rows, float64 ``(T,)``, NaN without any.
        held_out_accuracy: accuracy on the held-out rows, float64 ``(T,)``, NaN without any.
    """

    loss: FloatArray
    grad: Tensor
    curvature: Tensor
    held_out_loss: FloatArray
    held_out_accuracy: FloatArray


@dataclass
class _PassSums:
    """Sums over rows, for each of T tasks.

    Attributes:
        losses: training loss, held-out loss and held-out hits, ``(3, T)``.
        grad: residuals times rows, ``(T * K, D)``.
        residual: the residuals, ``(T * K,)``.
        curvature: p(1 - p), ``(T, K)``.
    """

    losses: Tensor
    grad: Tensor
    residual: Tensor
    curvature: Tensor

    def add(self, other: _PassSums) -> None:
        """Add the sums over other rows, in place."""
        self.losses += other.losses
        self.grad += other.grad
        self.residual += other.residual
        self.curvature += other.curvature


class DeviceRows:
    """Features and classes on the device.

    Args:
        be: where to compute.
        X: float ``(N, D)``; a memory map is read block by block and never loaded whole (unless it fits on a GPU).
        y: int64 ``(N,)``, the column of each row's class.
        n_classes: at least 2.
    """

    def __init__(self, be: Backend, X: Array, y: IntArray, n_classes: int) -> None:
        self.be, self.X, self.host_codes, self.n_classes = be, X, y, n_classes
        self.n_rows, self.dim = X.shape
        self.data = be.to_device(X) if X.size * be.dtype.itemsize < be.free_bytes() * _MAX_MEMORY_SHARE else X
        self.device_codes = be.to_device(y)
        self.one = be.to_device(np.ones(1))[0]
        self.sign = be.to_device(2.0 * y - 1)

    @cached_property
    def by_feature(self) -> FloatArray | None:
        """The rows as ``(D, N)``, on the CPU; None where they are too many to have them twice."""
        if self.be.device is not None or self.X.size * self.be.dtype.itemsize > memory_share(_BY_FEATURE, 8):
            return None
        return np.ascontiguousarray(self.X.T, self.be.dtype)

    def blocks(self, size: int, part: slice | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield the rows, or a part of them, in blocks on the device, in its precision."""
        begin, end, _ = (part or slice(None)).indices(self.n_rows)
        for within in blocks(end - begin, size):
            s = slice(begin + within.start, begin + within.stop)
            block = self.data[s]
            yield s, self.be.to_device(np.asarray(block)) if isinstance(block, np.ndarray) else block


class SoftmaxProblem:
    """Rows, and which of them each task trains on.

    Args:
        rows: features and classes; two classes have one weight vector, as in scikit-learn.
        train: bool ``(T, N)``, the training rows of each task.
        weights: float64 ``(N,)``, the weight of each row in every loss, trained on or held out; None is 1 for each.
    """

    def __init__(self, rows: DeviceRows, train: Array, weights: FloatArray | None = None) -> None:
        self.rows, self.be = rows, rows.be
        self.columns = 1 if rows.n_classes == 2 else rows.n_classes
        weights = np.ones(rows.n_rows) if weights is None else weights
        self.train_totals: FloatArray = train @ weights
        present = np.stack([np.bincount(rows.host_codes[part], weights[part], rows.n_classes) > 0 for part in train])
        held_out = ~train & present[:, rows.host_codes]  # a class absent from training cannot be scored, at any C
        self.train_weights, self.held_out_weights = (
            self.be.to_device((part * weights).astype(self.be.dtype)) for part in (train, held_out)
        )
        self.n_scored = int(held_out.sum())
        totals = held_out @ weights
        self.held_out_totals: FloatArray = np.where(totals > 0, totals, np.nan)
        self.shares = self.be.to_device(1 / self.train_totals)
        self.absent_class_logits = (
            None if present.all() else self.be.to_device(np.where(present, 0.0, _ABSENT_LOGIT))[:, :, None]
        )
        self.n_passes = 0

    def initial_parameters(self, basis: EigenBasis) -> Tensor:
        """Return zeros ``(T, K, R + 1)``."""
        return self.be.zeros(len(self.train_totals), self.columns, len(basis.eigenvalues) + 1)

    def logits(self, theta: Tensor, basis: EigenBasis, rows: IntArray) -> FloatArray:
        """Return the logits of some rows under one task's parameters ``(K, R + 1)``, float32 ``(B, K)``."""
        X = np.asarray(self.rows.X[rows], np.float32)
        if basis.rows_projected:
            return X @ self.be.to_numpy(theta).T.astype(np.float32)
        w, b = basis.coefficients(self.be, theta)
        return np.asarray(X @ w.T.astype(np.float32) + b, np.float32)

    def evaluate(self, theta: Tensor, basis: EigenBasis) -> PassResult:
        """Compute loss, gradient and held-out scores of every task in one pass over the rows."""
        self.n_passes += 1
        be, (tasks, columns) = self.be, theta.shape[:2]
        w, b = (theta.reshape(tasks * columns, -1), None) if basis.rows_projected else basis.device_coefficients(theta)
        total = self._zero_sums(w, tasks)
        for sums in self._parts_of_pass(w, b, tasks):
            total.add(sums)
        grad = total.grad
        if b is not None:
            grad -= total.residual[:, None] * basis.mean
            grad = be.xp.concatenate([grad @ basis.projection, total.residual[:, None]], -1)
        losses = be.to_numpy(total.losses)  # the only wait for the device
        held_out_loss, held_out_accuracy = losses[1:] / self.held_out_totals
        grad = grad.reshape(theta.shape)
        grad *= self.shares[:, None, None]
        curvature = total.curvature * self.shares[:, None]
        return PassResult(losses[0] / self.train_totals, grad, curvature, held_out_loss, held_out_accuracy)

    def _parts_of_pass(self, w: Tensor, b: Tensor | None, tasks: int) -> Iterator[_PassSums]:
        """Yield the sums over parts of the rows: several threads compute them on the CPU if there is enough to do.

        The parts depend on the rows alone, so that their number does not change with the number of cores.
        """
        self.rows.by_feature  # noqa: B018 - computed once, before threads ask for it
        size = self.be.block_rows(
            self.rows.dim + _NUMBERS_PER_LOGIT * len(w), max(_MIN_BLOCK_ROWS, _BLOCK_LOGITS // len(w))
        )
        if self.be.device is not None or 4.0 * self.rows.n_rows * w.size < THREADED_WORK:
            yield self._sums_of(w, b, tasks, slice(0, self.rows.n_rows), size)
            return
        parts = blocks(self.rows.n_rows, size * math.ceil(self.rows.n_rows / size / _PARTS))
        yield from map_parts(lambda part: self._sums_of(w, b, tasks, part, size), parts)

    def _zero_sums(self, w: Tensor, tasks: int) -> _PassSums:
        be = self.be
        curvature = be.zeros(tasks, len(w) // tasks)
        return _PassSums(be.zero_sums(3, tasks), be.zeros(*w.shape), be.zeros(len(w)), curvature)

    def _sums_of(self, w: Tensor, b: Tensor | None, tasks: int, part: slice, size: int) -> _PassSums:
        """Return the sums over a part of the rows.

        Args:
            w: weights ``(T * K, D)``.
            b: intercepts ``(T * K,)``, None where the rows end in 1.
            tasks: their number.
            part: the rows.
            size: rows that are computed at once.
        """
        be, total, by_feature = self.be, self._zero_sums(w, tasks), self.rows.by_feature
        for s, block in self.rows.blocks(size, part):
            logits = be.transposed(block @ w.T) if by_feature is None else w @ by_feature[:, s]
            if b is not None:
                logits += b[:, None]
            logits = logits.reshape(tasks, len(w) // tasks, -1)
            is_binary = logits.shape[1] == 1
            loss, residual, hits = self._binary_loss(logits, s) if is_binary else self._softmax_loss(logits, s)
            train, held_out = self.train_weights[:, s], self.held_out_weights[:, s]
            losses = be.xp.stack([be.sums(loss, train), be.sums(loss, held_out), be.sums(hits, held_out)])
            curvature = self._curvature(residual, train)
            residual *= train[:, None]
            residual = residual.reshape(len(w), -1)
            total.add(_PassSums(losses, residual @ block, residual.sum(1), curvature))
        return total

    def _curvature(self, residual: Tensor, train: Tensor) -> Tensor:
        """Return the weighted sum of p(1 - p) over the training rows of a block, ``(T, K)``, from a sample of them.

        p(1 - p) is |residual| (1 - |residual|), whichever class is true. It only scales the search: a sample is enough.
        """
        every = max(1, residual.shape[2] // _CURVATURE_SAMPLE)
        part = self.be.xp.abs(residual[:, :, ::every])
        return ((part - part * part) * train[:, None, ::every]).sum(2) * (residual.shape[2] / part.shape[2])

    def _binary_loss(self, logits: Tensor, s: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss ``(T, B)``, p - y ``(T, 1, B)`` and hits ``(T, B)`` of two classes from the second's logit."""
        xp, y = self.be.xp, self.rows.device_codes[s]
        sign = self.rows.sign[s] * logits  # positive is right
        e = xp.exp(-xp.abs(sign))
        wrong = xp.where(sign >= 0, e, self.rows.one) / (1 + e)
        loss = xp.log1p(e) + xp.clip(-sign, 0, None)
        hits = ((logits[:, 0] > 0) == (y > 0)) * self.rows.one
        return loss[:, 0], -self.rows.sign[s] * wrong, hits

    def _softmax_loss(self, logits: Tensor, s: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same for several classes, p - y being ``(T, K, B)``; ``logits`` is overwritten.

        The loss is log1p(sum of the others + p_true - 1), and p_true - 1 is minus the others' share, so that both keep
        their precision in float32 where the true class is nearly certain.
        """
        xp, y = self.be.xp, self.rows.device_codes[s]
        here = self.be.arange(logits.shape[2])
        if self.absent_class_logits is not None:
            logits += self.absent_class_logits
        logits -= xp.amax(logits, 1)[:, None]
        true = logits[:, y, here]
        residual = self.be.exp_in_place(logits)
        residual[:, y, here] = 0
        others = residual.sum(1)
        total = others + xp.exp(true)
        residual /= total[:, None]
        residual[:, y, here] = -others / total
        return xp.log1p(others + xp.expm1(true)) - true, residual, (true >= 0) * self.rows.one

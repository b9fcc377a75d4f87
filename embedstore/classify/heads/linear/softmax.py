"""Loss and gradient of many penalised softmax regressions over the same rows, in one pass.

A *task* is a set of training rows: one fold's, or all. All tasks share the two matrix products with X, and the rows
that a task does not train on are judged in the same pass, so the out-of-fold loss is free.

Parameters live in the eigenbasis of the centred X'X, where the Hessian of every task, class and C is nearly
``diag(w * eigenvalue + penalty)`` with w the mean of p(1 - p): one eigendecomposition preconditions all of them. The
last parameter of a class is its logit at the mean row, which interacts with the weights in second order only; like
scikit-learn's intercept it is not penalised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.heads.linear.backend import Backend, Tensor
from embedstore.classify.heads.numerics import blocks

_BLOCK_LOGITS = 250_000  # logits of all tasks held at once: 1 MB of float32, so that they stay in the cache
_LEAST_ROWS = 256  # rows of a block, or the matrix products lose their speed
_SAMPLE = 64  # rows of a block whose curvature is looked at
_NEVER = -1e4  # logit of a class that a task's rows lack: exp gives exactly 0
_ON_DEVICE = 0.4  # share of a GPU's free memory that the rows may take


@dataclass(frozen=True)
class EigenBasis:
    """Coordinates of the parameters: a row x is seen as ``((x - mean) @ matrix, 1)``.

    Attributes:
        matrix: ``(D, R)``; weights of a class are ``matrix @ theta[:R]``.
        values: ``(R,)``, the second moments of the rows along its columns. mean: ``(D,)``, the mean row.
        turned: the rows are held in these coordinates, ``(N, R + 1)``.
    """

    projection: Tensor
    eigenvalues: Tensor
    mean: Tensor
    rows_projected: bool

    def device_coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``(T * K, D)`` and intercepts ``(T * K,)`` for rows as they were given."""
        flat = theta.reshape(-1, theta.shape[-1])
        w = flat[:, :-1] @ self.projection.T
        return w, flat[:, -1] - w @ self.mean

    def coefficients(self, be: Backend, theta: Tensor) -> tuple[FloatArray, FloatArray]:
        """The same in float64 numpy, of one task."""
        flat = be.to_numpy(theta).reshape(-1, theta.shape[-1])
        w = flat[:, :-1] @ be.to_numpy(self.projection).T
        return w, flat[:, -1] - w @ be.to_numpy(self.mean)


@dataclass(frozen=True)
class PassResult:
    """What one pass over the rows found for each of T tasks.

    Attributes:
        loss: mean training loss, float64 ``(T,)``. grad: its gradient ``(T, K, R + 1)``.
        curvature: mean p(1 - p), ``(T, K)``. held_loss, held_right: mean loss and accuracy on the rows left out,
            float64 ``(T,)``, NaN where there are none.
    """

    loss: FloatArray
    grad: Tensor
    curvature: Tensor
    held_out_loss: FloatArray
    held_out_accuracy: FloatArray


class DeviceRows:
    """Features and classes where they are computed with.

    Args:
        be: where to compute.
        X: float ``(N, D)``; a memory map is read block by block and never held whole (unless a GPU has room).
        y: int64 ``(N,)``, columns.
        n_classes: at least 2.
    """

    def __init__(self, be: Backend, X: Array, y: IntArray, n_classes: int) -> None:
        self.be, self.X, self.host_codes, self.n_classes = be, X, y, n_classes
        self.n_rows, self.dim = X.shape
        self.data = be.to_device(X) if X.size * be.dtype.itemsize < be.free_bytes() * _ON_DEVICE else X
        self.device_codes = be.to_device(y)
        self.one = be.to_device(np.ones(1))[0]
        self.sign = be.to_device(2.0 * y - 1)

    def blocks(self, size: int) -> Iterator[tuple[slice, Tensor]]:
        """The rows in blocks on the device, in its precision."""
        for s in blocks(self.n_rows, size):
            block = self.data[s]
            yield s, self.be.to_device(np.asarray(block)) if isinstance(block, np.ndarray) else block


class SoftmaxProblem:
    """Rows, and which of them each task trains on.

    Args:
        rows: features and classes; two classes have one weight vector, as in scikit-learn.
        train: bool ``(T, N)``.
    """

    def __init__(self, rows: DeviceRows, train: Array) -> None:
        self.rows, self.be = rows, rows.be
        self.columns = 1 if rows.n_classes == 2 else rows.n_classes
        self.train_counts: FloatArray = train.sum(axis=1).astype(np.float64)
        present = np.stack([np.bincount(rows.host_codes[part], minlength=rows.n_classes) > 0 for part in train])
        held = ~train & present[:, rows.host_codes]  # a class never shown cannot be judged; the same rows for every C
        self.train_mask, self.held_out_mask = (self.be.to_device(part.astype(self.be.dtype)) for part in (train, held))
        judged = held.sum(axis=1)
        self.held_out_counts: FloatArray = np.where(judged > 0, judged, np.nan)
        self.shares = self.be.to_device(1 / self.train_counts)
        self.absent_class_logits = (
            None if present.all() else self.be.to_device(np.where(present, 0.0, _NEVER))[:, :, None]
        )
        self.n_passes = 0

    def initial_parameters(self, basis: EigenBasis) -> Tensor:
        """All parameters zero: ``(T, K, R + 1)``."""
        return self.be.zeros(len(self.train_counts), self.columns, len(basis.eigenvalues) + 1)

    def logits(self, theta: Tensor, basis: EigenBasis, rows: IntArray) -> FloatArray:
        """Logits of some rows in one task's parameters ``(K, R + 1)``: float32 ``(B, K)``."""
        X = np.asarray(self.rows.X[rows], np.float32)
        if basis.rows_projected:
            return X @ self.be.to_numpy(theta).T.astype(np.float32)
        w, b = basis.coefficients(self.be, theta)
        return np.asarray(X @ w.T.astype(np.float32) + b, np.float32)

    def evaluate(self, theta: Tensor, basis: EigenBasis) -> PassResult:
        """One pass over the rows."""
        self.n_passes += 1
        be, (tasks, columns) = self.be, theta.shape[:2]
        w, b = (theta.reshape(tasks * columns, -1), None) if basis.rows_projected else basis.device_coefficients(theta)
        sums = np.zeros((3, tasks))  # training loss, held loss, held hits
        grad, off_sum, curvature = be.zeros(*w.shape), be.zeros(len(w)), be.zeros(tasks, columns)
        for s, block in self.rows.blocks(max(_LEAST_ROWS, _BLOCK_LOGITS // len(w))):
            logits = w @ block.T
            if b is not None:
                logits += b[:, None]
            logits = logits.reshape(tasks, columns, -1)
            loss, off, right = self._two(logits, s) if columns == 1 else self._many(logits, s)
            train, held = self.train_mask[:, s], self.held_out_mask[:, s]
            sums += (be.dot(loss, train), be.dot(loss, held), be.dot(right, held))
            off *= train[:, None]
            curvature += self._bend(off, s)
            off = off.reshape(len(w), -1)
            grad += off @ block
            if b is not None:
                off_sum += off.sum(1)
        if b is not None:
            grad -= off_sum[:, None] * basis.mean
            grad = be.xp.concatenate([grad @ basis.projection, off_sum[:, None]], -1)
        held_loss, held_right = sums[1:] / self.held_out_counts
        grad = grad.reshape(theta.shape)
        grad *= self.shares[:, None, None]
        return PassResult(sums[0] / self.train_counts, grad, curvature * self.shares[:, None], held_loss, held_right)

    def _bend(self, off: Tensor, s: slice) -> Tensor:
        """Sum of p(1 - p) over the training rows of a block, ``(T, K)``; from some of its rows where it is long.

        p(1 - p) is |off| (1 - |off|), whichever class is true. It only scales the search, so a sample will do.
        """
        every = max(1, off.shape[2] // _SAMPLE)
        part = self.be.xp.abs(off[:, :, ::every])
        return (part - part * part).sum(2) * (off.shape[2] / part.shape[2])

    def _two(self, logits: Tensor, s: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Loss ``(T, B)``, p - y ``(T, 1, B)``, hits ``(T, B)`` of two classes from the second's logit."""
        xp, y = self.be.xp, self.rows.device_codes[s]
        sign = self.rows.sign[s] * logits  # positive is right
        e = xp.exp(-xp.abs(sign))
        wrong = xp.where(sign >= 0, e, self.rows.one) / (1 + e)
        loss = xp.log1p(e) + xp.clip(-sign, 0, None)
        right = ((logits[:, 0] > 0) == (y > 0)) * self.rows.one
        return loss[:, 0], -self.rows.sign[s] * wrong, right

    def _many(self, logits: Tensor, s: slice) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`_two` for several classes: p - y is ``(T, K, B)``; ``logits`` is used up.

        The loss is log1p(sum of the others + p_true - 1) and p_true - 1 is minus the others' share, so that both keep
        their digits in float32 where the true class is nearly certain.
        """
        xp, y = self.be.xp, self.rows.device_codes[s]
        here = self.be.to_device(np.arange(logits.shape[2]))
        if self.absent_class_logits is not None:
            logits += self.absent_class_logits
        logits -= xp.amax(logits, 1)[:, None]
        true = logits[:, y, here]
        off = self.be.exp_in_place(logits)
        off[:, y, here] = 0
        others = off.sum(1)
        total = others + xp.exp(true)
        off /= total[:, None]
        off[:, y, here] = -others / total
        return xp.log1p(others + xp.expm1(true)) - true, off, (true >= 0) * self.rows.one

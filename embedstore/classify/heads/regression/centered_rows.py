"""Weighted, centered rows in the basis in which every ridge regression over them is a division."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from embedstore.arrays import Array, FloatArray
from embedstore.classify.heads.numerics import blocks

_BLOCK = 8192  # rows at once: a memory map is never loaded whole
_MIN_VARIANCE = 1e-13  # relative to the largest: below it the rows do not span the direction


@dataclass(frozen=True)
class CenteredRows:
    """Rows minus their weighted mean, in the eigenbasis of their weighted second moments.

    Attributes:
        mean: float64 ``(D,)``, the weighted mean row.
        target_mean: the weighted mean of the targets.
        basis: float64 ``(D, R)``, orthonormal columns that span the rows.
        moments: float64 ``(R,)``, the weighted sum of squares along each column.
        products: float64 ``(R,)``, the weighted sum of rows times targets along each column.
        total_weight: the sum of the weights.
    """

    mean: FloatArray
    target_mean: float
    basis: FloatArray
    moments: FloatArray
    products: FloatArray
    total_weight: float

    @classmethod
    def of(cls, X: Array, y: FloatArray, weights: FloatArray) -> CenteredRows:
        """Decompose rows.

        Args:
            X: float ``(N, D)``; it is read in blocks.
            y: float64 ``(N,)``.
            weights: float64 ``(N,)``, at least 0 and not all 0.
        """
        total = float(weights.sum())
        mean, sums = np.zeros(X.shape[1]), np.zeros(X.shape[1])
        for s, block in _blocks(X):
            mean += weights[s] @ block / total
        target_mean = float(weights @ y) / total
        weighted_targets = weights * (y - target_mean)
        decompose = _from_products_of_rows if len(X) < X.shape[1] else _from_second_moments
        basis, moments = decompose(X, mean, weights)
        for s, block in _blocks(X):
            sums += (block - mean).T @ weighted_targets[s]
        return cls(mean, target_mean, basis, moments, basis.T @ sums, total)

    def project(self, X: Array) -> FloatArray:
        """Return rows in the basis, float64 ``(N, R)``."""
        return np.concatenate([(block - self.mean) @ self.basis for _, block in _blocks(X)])

    def solve(self, alphas: FloatArray) -> FloatArray:
        """Return the weights of the ridge regressions in the basis, float64 ``(R, A)``; one column per alpha."""
        return np.asarray(self.products[:, None] / (self.moments[:, None] + alphas))

    def leave_one_out(self, X: Array, y: FloatArray, weights: FloatArray, alphas: FloatArray) -> FloatArray:
        """Return the residual of each row under the fit without it, exactly, float64 ``(N, A)``.

        A row's own residual is divided by one minus its leverage (Allen 1974); the mean has a part in the leverage.
        """
        solution, shrinkage = self.solve(alphas), 1 / (self.moments[:, None] + alphas)
        out = np.empty((len(y), len(alphas)))
        for s, block in _blocks(X):
            projected = (block - self.mean) @ self.basis
            residual = (y[s] - self.target_mean)[:, None] - projected @ solution
            leverage = weights[s, None] * (projected**2 @ shrinkage + 1 / self.total_weight)
            out[s] = residual / np.maximum(1 - leverage, 1e-10)
        return out


def _blocks(X: Array) -> Iterator[tuple[slice, FloatArray]]:
    for s in blocks(len(X), _BLOCK):
        yield s, np.asarray(X[s], np.float64)


def _from_second_moments(X: Array, mean: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the eigenvectors and eigenvalues of the D x D weighted second moments."""
    moments = np.zeros((X.shape[1], X.shape[1]))
    for s, block in _blocks(X):
        centered = (block - mean) * np.sqrt(weights[s])[:, None]
        moments += centered.T @ centered
    values, vectors = eigh(moments, driver="evd", check_finite=False)
    kept = values > _MIN_VARIANCE * max(float(values[-1]), 0.0)
    return vectors[:, kept], values[kept]


def _from_products_of_rows(X: Array, mean: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the same from the N x N products of the rows, a smaller matrix for fewer rows than features."""
    centered = (np.asarray(X, np.float64) - mean) * np.sqrt(weights)[:, None]
    values, vectors = eigh(centered @ centered.T, driver="evd", check_finite=False)
    kept = values > _MIN_VARIANCE * max(float(values[-1]), 0.0)
    return centered.T @ (vectors[:, kept] / np.sqrt(values[kept])), values[kept]

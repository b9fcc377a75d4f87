"""The coordinates in which the linear probe is solved: the eigenbasis of the centered rows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.classify.heads.linear.backend import Backend, Tensor
from embedstore.classify.heads.linear.softmax import THREADED_WORK, DeviceRows, EigenBasis
from embedstore.classify.heads.numerics import blocks
from embedstore.resources import memory_share
from embedstore.threads import map_parts

_BLOCK = 16_384  # rows at once
_GRAM_BLOCK = 250_000  # numbers in a block of rows whose products are summed: they stay in the cache
_GRAM_PARTS = 8  # of the rows, whose products threads compute
_MIN_VARIANCE = 1e-12  # relative to the largest: below it the rows do not span the direction
_IN_MEMORY = 1 << 30  # bytes of rows up to which a copy is made where that saves time


def prepare_rows(
    be: Backend, X: Array, codes: IntArray, n_classes: int, *, n_folds: int, standardize: bool, n_passes: int
) -> tuple[DeviceRows, EigenBasis]:
    """Return the rows on the device, projected onto the eigenbasis if that saves time, and the basis.

    Projecting the rows costs N D^2 once; projecting parameters and gradients costs 2 D^2 per column in each pass.

    Args:
        be: where to compute.
        X: float ``(N, D)``.
        codes: int64 ``(N,)``, the column of each row's class.
        n_classes: at least 2.
        n_folds: how many tasks there will be.
        standardize: divide each feature by its standard deviation.
        n_passes: over the rows, about.
    """
    std = _feature_std(X) if standardize else np.ones(X.shape[1])
    if len(X) < X.shape[1]:
        Z, basis = _project_to_span(be, X, std)
        return DeviceRows(be, Z, codes, n_classes), basis
    if X.dtype == np.float16 and X.nbytes * 2 <= memory_share(_IN_MEMORY, 4):
        X = X.astype(np.float32)
    rows = DeviceRows(be, X, codes, n_classes)
    basis = _eigenbasis(rows, std)
    columns = max(n_folds, 1) * (1 if n_classes == 2 else n_classes)
    if be.device is not None or len(X) > 2 * n_passes * columns or X.nbytes > memory_share(_IN_MEMORY, 4):
        return rows, basis
    Z = np.ones((len(X), len(basis.eigenvalues) + 1), be.dtype)
    for s in blocks(len(X), _BLOCK):
        Z[s, :-1] = (X[s] - basis.mean) @ basis.projection
    projected = EigenBasis(basis.projection, basis.eigenvalues, basis.mean, rows_projected=True)
    return DeviceRows(be, Z, codes, n_classes), projected


def _eigenbasis(rows: DeviceRows, std: FloatArray) -> EigenBasis:
    """Return the eigenbasis of the centered rows, each feature divided by ``std``."""
    be, gram, total = rows.be, rows.be.zeros(rows.dim, rows.dim), rows.be.zero_sums(rows.dim)
    for products, sums in _parts_of_gram(rows):
        gram += products
        total += sums
    mean = be.to_device(be.to_numpy(total) / rows.n_rows)
    gram = gram / rows.n_rows - mean[:, None] * mean[None, :]
    inverse = be.to_device(1 / std)
    values, vectors = be.eigh(gram * inverse[:, None] * inverse[None, :])
    return EigenBasis(inverse[:, None] * vectors, be.xp.clip(values, 0, None), mean, rows_projected=False)


def _parts_of_gram(rows: DeviceRows) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the products of the rows ``(D, D)`` and their sum ``(D,)``, over parts of them."""
    be = rows.be
    size = be.block_rows(2 * rows.dim, max(1, _GRAM_BLOCK // rows.dim))

    def sums(part: slice) -> tuple[Tensor, Tensor]:
        gram, total = be.zeros(rows.dim, rows.dim), be.zero_sums(rows.dim)
        for _, block in rows.blocks(size, part):
            gram += block.T @ block
            total += block.sum(0)
        return gram, total

    if be.device is not None or 2.0 * rows.n_rows * rows.dim**2 < THREADED_WORK:
        yield sums(slice(0, rows.n_rows))
        return
    yield from map_parts(sums, blocks(rows.n_rows, size * math.ceil(rows.n_rows / size / _GRAM_PARTS)))


def _project_to_span(be: Backend, X: Array, std: FloatArray) -> tuple[FloatArray, EigenBasis]:
    """Project fewer rows than features onto their own span.

    The optimal weights lie in the span of the centered rows, so N coordinates are enough, exactly. They come from the
    N x N matrix of the rows' products (as in kernel PCA, Schoelkopf et al. 1998), which is smaller than that of the
    features.
    """
    from scipy.linalg import eigh

    scaled = np.asarray(X, np.float64) / std
    mean = scaled.mean(0)
    scaled -= mean
    squares, U = eigh(scaled @ scaled.T, driver="evd", check_finite=False)
    kept = squares > _MIN_VARIANCE * max(squares[-1], 0)
    lengths = np.sqrt(squares[kept])
    projection = scaled.T @ (U[:, kept] / lengths) / std[:, None]
    Z = np.ones((len(X), len(lengths) + 1), be.dtype)
    Z[:, :-1] = U[:, kept] * lengths
    return Z, EigenBasis(
        be.to_device(projection), be.to_device(squares[kept] / len(X)), be.to_device(mean * std), rows_projected=True
    )


def _feature_std(X: Array) -> FloatArray:
    """Return the standard deviation of each feature, 1 for a constant one, without a copy of X."""
    total, square = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    shift = np.asarray(X[0], np.float64)
    for s in blocks(len(X), _BLOCK):
        deviation = np.asarray(X[s], np.float64) - shift
        total += deviation.sum(0)
        square += (deviation * deviation).sum(0)
    variance = square / len(X) - (total / len(X)) ** 2
    return np.where(variance > 1e-12 * (square / len(X) + 1e-300), np.sqrt(np.maximum(variance, 1e-300)), 1.0)

"""Small numerics that several heads share: unit rows, softmax, blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


def unit_rows(X: Array) -> Floats:
    """Rows scaled to length 1, float32 ``(N, D)``; a zero row stays zero."""
    X = np.asarray(X, dtype=np.float32)
    scale = np.abs(X).max(axis=1, keepdims=True, initial=0)  # first to [-1, 1]: squares cannot overflow
    X = X / np.where(scale > 0, scale, 1)
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(X / np.where(norm > 0, norm, 1), dtype=np.float32)


def softmax(logits: Floats) -> Floats:
    """Row-wise softmax, in the precision of its input."""
    out = logits - logits.max(axis=1, keepdims=True)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)
    return np.asarray(out)


def log_loss(logits: Floats, y: Ints) -> float:
    """Mean cross-entropy of softmax scores with the true columns, natural logarithm."""
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    return float((total - logits[np.arange(len(y)), y]).mean())


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices that cover ``range(n)`` in order."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))

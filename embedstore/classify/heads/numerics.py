"""Small numerics that several heads share: softmax, log-loss, blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedstore.arrays import FloatArray, IntArray


def softmax(logits: FloatArray) -> FloatArray:
    """Return the row-wise softmax, in the precision of its input."""
    out = logits - logits.max(axis=1, keepdims=True)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)
    return np.asarray(out)


def log_loss(logits: FloatArray, y: IntArray) -> float:
    """Return the mean cross-entropy of softmax(logits) with the true columns, natural logarithm."""
    top = logits.max(axis=1)
    total = np.log(np.exp(logits - top[:, None]).sum(axis=1, dtype=np.float64)) + top
    return float((total - logits[np.arange(len(y)), y]).mean())


def blocks(n: int, size: int) -> Iterator[slice]:
    """Yield slices that cover ``range(n)`` in order."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))

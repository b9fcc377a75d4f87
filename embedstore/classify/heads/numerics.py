"""Small numerics that several heads share: softmax, log-loss, blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from embedstore.arrays import FloatArray, IntArray
from embedstore.resources import memory_share

_BLOCK_BYTES = 2**28  # that a block of rows and what is computed from it may take, less where memory is short
_BLOCK_PARTS = 16  # parts of the process's memory, of which a block may take one


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


def block_rows(most: int, row_bytes: int) -> int:
    """Return the rows of a block: as many as fit into its share of the process's memory, and at least one.

    Args:
        most: rows of a block on a machine with enough memory.
        row_bytes: what a row and all that is computed from it takes.
    """
    return max(1, min(most, memory_share(_BLOCK_BYTES, _BLOCK_PARTS) // row_bytes))


def blocks(n: int, size: int) -> Iterator[slice]:
    """Yield slices that cover ``range(n)`` in order."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))

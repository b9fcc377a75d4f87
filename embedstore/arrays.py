"""Types of numeric arrays, and the one way to scale vectors to unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.integer[Any]]


def unit_rows(X: Array) -> npt.NDArray[np.float32]:
    """Scale every row to length 1.

    Args:
        X: numbers ``(N, D)``.

    Returns:
        float32 ``(N, D)``, a copy. A zero row stays zero.
    """
    X = np.asarray(X, dtype=np.float32)
    # Divide by a power of two first: that is exact, and the squares can neither overflow nor underflow.
    _, exponent = np.frexp(np.abs(X).max(axis=1, keepdims=True, initial=0))
    X = X / np.ldexp(np.float32(1), exponent - 1)
    norm = np.linalg.norm(X, axis=1, keepdims=True)
    X /= np.where(norm > 0, norm, 1)
    return np.asarray(X, dtype=np.float32)

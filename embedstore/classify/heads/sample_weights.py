"""Weights of single rows in the training of a head."""

from __future__ import annotations

import numpy as np

from embedstore.arrays import Array, FloatArray
from embedstore.errors import BadHead


def check_sample_weight(sample_weight: Array | None, n_rows: int) -> FloatArray:
    """Return the weights of the rows, float64 ``(N,)``; 1 for each if none are given.

    Args:
        sample_weight: ``(N,)`` numbers, or one number for all rows.
        n_rows: N.

    Raises:
        BadHead: if a weight is negative or not finite, all are 0, or there is another number of them.
    """
    if sample_weight is None:
        return np.ones(n_rows)
    weights = np.asarray(sample_weight, np.float64)
    weights = np.full(n_rows, weights) if weights.ndim == 0 else weights
    if weights.shape != (n_rows,):
        raise BadHead(f"sample_weight must be one number per row, ({n_rows},), not {weights.shape}")
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if len(bad):
        raise BadHead(
            f"sample_weight must be finite and at least 0; row {bad[0]} (counted from 0) has {weights[bad[0]]:g}"
        )
    if not weights.any():
        raise BadHead("all values of sample_weight are zero: no row is left to train on")
    return weights

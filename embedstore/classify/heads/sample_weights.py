"""Weights of single rows in the training of a head."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import has_fit_parameter

from embedstore.arrays import Array, FloatArray
from embedstore.errors import BadHead, LabelError


def drop_unweighted(
    sample_weight: Array | None, X: Array, y: Array, groups: Array | None
) -> tuple[FloatArray | None, Array, Array, Array | None]:
    """Return weights, rows, targets and groups without the rows of weight 0; they have no part in any fold either.

    Args:
        sample_weight: ``(N,)``, or None, which changes nothing.
        X: features ``(N, D)``.
        y: targets ``(N,)`` or ``(N, K)``.
        groups: ``(N,)`` or None.

    Raises:
        BadHead: if the weights are not valid.
        LabelError: if several targets are given, and the rows of a weight above 0 have one.
    """
    if sample_weight is None:
        return None, X, y, groups
    weights = check_sample_weight(sample_weight, len(y))
    groups = None if groups is None else np.asarray(groups)
    if weights.all():
        return weights, X, y, groups
    kept = weights > 0
    if y.ndim == 1 and y.dtype.kind != "f":
        _check_classes(y, kept)
    return weights[kept], X[kept], y[kept], None if groups is None else groups[kept]


def _check_classes(y: Array, kept: Array) -> None:
    """Refuse weights that leave one of several classes."""
    left = np.unique(y[kept])
    if len(left) == 1 < len(np.unique(y)):
        raise LabelError(
            f"the rows with a weight above 0 hold one class only ({str(left[0])!r}); give rows of another class a "
            "weight, or leave out the weights"
        )


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


def fit_weighted(
    head: Any, X: Array, y: Array, *, weights: FloatArray | None = None, groups: Array | None = None
) -> Any:
    """Fit a head and return it.

    Args:
        head: an unfitted scikit-learn estimator.
        X: features ``(N, D)``.
        y: targets ``(N,)``.
        weights: ``(N,)``; None weighs all rows alike.
        groups: ``(N,)``, given to heads that hold out rows of their own.

    Raises:
        BadHead: if weights are given and the head has none.
    """
    options: dict[str, Any] = {}
    if weights is not None:
        if not has_fit_parameter(head, "sample_weight"):
            raise BadHead(
                f"{type(head).__name__} does not take weights of items; leave out the weight, or use logistic, mlp, "
                "svm or ridge"
            )
        options["sample_weight"] = weights
    if groups is not None and has_fit_parameter(head, "groups"):
        options["groups"] = groups
    return head.fit(X, y, **options)

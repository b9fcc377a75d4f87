"""Fit a head with what it takes of weights and groups."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import has_fit_parameter

from embedstore.arrays import Array, FloatArray
from embedstore.errors import BadHead


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
            raise BadHead(f"{type(head).__name__} does not take weights of rows; leave out the weights, or use ridge")
        options["sample_weight"] = weights
    if groups is not None and has_fit_parameter(head, "groups"):
        options["groups"] = groups
    return head.fit(X, y, **options)

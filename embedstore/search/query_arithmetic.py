"""Combine several vectors or examples into one query vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError

Vector = NDArray[np.float32]

# Rocchio 1971; the weights are those of Manning, Raghavan and Schütze 2008, section 9.1.1
ALPHA, BETA, GAMMA = 1.0, 0.75, 0.15
MIN_CLASSIFIER_EXAMPLES = 8  # examples on either side from which a classifier is fitted instead
_C = 10.0  # of the classifier: unit vectors need weights beyond what C = 1 allows
_MIN_NORM = 1e-6  # float32 leaves about 1e-7 of two equal vectors


def combine_vectors(terms: Sequence[tuple[float, Vector]]) -> Vector:
    """Return the weighted sum of vectors that are first scaled to length 1: ``a + b - c``.

    Args:
        terms: ``(weight, vector (D,))``.

    Returns:
        float32 ``(D,)``.

    Raises:
        QueryError: if the terms cancel out, or a weight or a vector is not finite.
    """
    if not all(np.isfinite(w) for w, _ in terms):
        raise QueryError("a weight of a query's part is not finite")
    total = np.sum([w * normalize(v) for w, v in terms], axis=0)
    if not np.linalg.norm(total) > _MIN_NORM:
        raise QueryError("the parts of the query cancel out: nothing is left to search with")
    out: Vector = total.astype(np.float32)
    return out


def query_from_examples(query: Vector | None, like: Sequence[Vector], unlike: Sequence[Vector]) -> tuple[Vector, str]:
    """Return a query for items that resemble some examples and not others.

    With eight or more examples on either side and no other query, it is the direction that a logistic regression finds
    between them; else Rocchio's ``alpha query + beta mean(like) - gamma mean(unlike)``.

    Args:
        query: the rest of the query, or None.
        like: vectors of any length.
        unlike: vectors of any length.

    Returns:
        float32 ``(D,)``, and ``logistic regression`` or ``Rocchio``.

    Raises:
        QueryError: if there is neither a query nor ``like``, or the examples cancel out.
    """
    if query is None and not like:
        raise QueryError("the query has only examples of what is not wanted; add at least one example with like")
    if query is None and min(len(like), len(unlike)) >= MIN_CLASSIFIER_EXAMPLES:
        return _separating_direction(like, unlike), "logistic regression"
    terms = [] if query is None else [(ALPHA, query)]
    if like:
        terms.append((BETA, np.mean([normalize(v) for v in like], axis=0)))
    if unlike:
        terms.append((-GAMMA, np.mean([normalize(v) for v in unlike], axis=0)))
    total = np.sum([w * v for w, v in terms], axis=0) if query is None else combine_vectors(terms)
    return combine_vectors([(1.0, total.astype(np.float32))]), "Rocchio"


def normalize(vector: NDArray[np.floating[Any]]) -> Vector:
    """Return a vector scaled to length 1, rounded once.

    Raises:
        QueryError: if it is zero or not finite.
    """
    largest = float(np.abs(vector).max(initial=0))
    if not np.isfinite(largest) or largest == 0:
        raise QueryError("the query vector is zero or not finite; it has no direction to search in")
    scaled = vector.astype(np.float64) / largest  # squares of 1e200 or 1e-200 would overflow or underflow
    out: Vector = (scaled / np.linalg.norm(scaled)).astype(np.float32)
    return out


def _separating_direction(like: Sequence[Vector], unlike: Sequence[Vector]) -> Vector:
    """Return the weights of a logistic regression between two sets of examples."""
    from sklearn.linear_model import LogisticRegression

    X = np.stack([normalize(v) for v in [*like, *unlike]])
    y = np.array([1] * len(like) + [0] * len(unlike))
    fitted = LogisticRegression(C=_C, class_weight="balanced", max_iter=1000).fit(X, y)
    weights: Vector = fitted.coef_[0].astype(np.float32)
    return weights

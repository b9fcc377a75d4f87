"""Weighted nearest neighbors on unit vectors, as DINO evaluates features (Caron et al. 2021, section 4.1)."""

from __future__ import annotations

import importlib
from enum import StrEnum

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from embedstore.arrays import Array, FloatArray, IntArray, unit_rows
from embedstore.classify.heads.base import check_classes
from embedstore.classify.heads.numerics import block_rows, blocks
from embedstore.classify.heads.options import check_positive, check_whole, parse_option
from embedstore.resources import available_cores
from embedstore.threads import map_parts

_QUERY_BYTES = 4096  # of FAISS's products of a query with a thousand rows at a time
_THREAD_QUERIES = 1024  # of a block: more are no faster, and leave the last thread with more to do than the others
_EXTRA = 32  # neighbors fetched beyond k, to see ties at the border
_DIGITS = 6  # float32 products of unit vectors are precise to about 1e-7: scores within 1e-6 are a tie


class VoteWeights(StrEnum):
    """How much a neighbor's vote counts."""

    SOFTMAX = "softmax"  # exp(cosine / temperature)
    UNIFORM = "uniform"
    DISTANCE = "distance"  # 1 / (1 - cosine); a neighbor at distance 0 outvotes all others


class WeightedKNN(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The k most similar rows vote, by cosine similarity over unit vectors.

    Neighbors whose cosines agree to six decimals are ordered by row, so results do not depend on the block size or the
    machine. With fewer than k rows all of them vote (``k_`` is their number).

    Args:
        k: neighbors. In DINO's experiments 20 is usually best on ImageNet; a few hundred labels need fewer.
        weights: ``softmax``, ``uniform`` or ``distance``.
        temperature: the temperature of ``softmax``; 0.07 is DINO's.
        block_size: queries that a thread searches at once, at most 1,024, fewer where memory is short.

    Attributes:
        classes_: labels ``(K,)``.
        k_: neighbors that vote.
        vectors_: float32 ``(N, D)``, unit rows.
        codes_: int64 ``(N,)``, the column of each row's class.
    """

    def __init__(
        self, k: int = 5, *, weights: str = "softmax", temperature: float = 0.07, block_size: int = 4096
    ) -> None:
        self.k = k
        self.weights = weights
        self.temperature = temperature
        self.block_size = block_size

    def fit(self, X: Array, y: Array) -> WeightedKNN:
        """Store the unit rows and their classes.

        Args:
            X: features ``(N, D)``.
            y: labels ``(N,)``.

        Raises:
            BadHead: if ``k`` or ``block_size`` is no whole number of at least 1, or the temperature is not above 0.
            ValueError: if the weights have another name.
        """
        X, y = validate_data(self, X, y)
        check_classes(y)
        parse_option("weights", self.weights, VoteWeights)
        check_positive("temperature", self.temperature)
        for name in ("k", "block_size"):
            check_whole(name, getattr(self, name))
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.codes_: IntArray = codes.astype(np.int64)
        self.vectors_ = unit_rows(X)
        self.k_ = min(self.k, len(X))
        return self

    def nearest_neighbors(self, X: Array) -> tuple[FloatArray, IntArray]:
        """Return cosines and rows of the ``k_`` nearest training rows, nearest first, two arrays ``(Q, k_)``."""
        check_is_fitted(self)
        queries = unit_rows(validate_data(self, X, reset=False))
        bytes_per_query = _QUERY_BYTES + 4 * queries.shape[1] + 48 * (self.k_ + _EXTRA)
        size = block_rows(min(self.block_size, _THREAD_QUERIES), bytes_per_query * available_cores())
        importlib.import_module("faiss")  # before the threads begin, which limit the libraries that are loaded
        found = map_parts(lambda s: _nearest(queries[s], self.vectors_, self.k_), list(blocks(len(queries), size)))
        parts = list(found)
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def predict_proba(self, X: Array) -> FloatArray:
        """Return each class's share of the votes, float64 ``(Q, K)``."""
        scores, rows = self.nearest_neighbors(X)
        votes = np.zeros((len(rows), len(self.classes_)))
        np.add.at(votes, (np.arange(len(rows))[:, None], self.codes_[rows]), self.vote_weights(scores))
        return np.asarray(votes / votes.sum(axis=1, keepdims=True))

    def predict(self, X: Array) -> Array:
        """Return labels ``(Q,)``; of equal votes the first class in order wins."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def vote_weights(self, scores: FloatArray) -> FloatArray:
        """Return the weight of each neighbor by its cosine, float64 ``(Q, k_)``."""
        scores = scores.astype(np.float64)
        match parse_option("weights", self.weights, VoteWeights):
            case VoteWeights.UNIFORM:
                return np.ones_like(scores)
            case VoteWeights.SOFTMAX:  # votes become shares: a common factor may be divided out
                return np.asarray(np.exp((scores - scores[:, :1]) / self.temperature))
            case VoteWeights.DISTANCE:
                distance = np.round(1 - scores, _DIGITS)
                same = distance <= 0
                return np.where(same.any(1, keepdims=True), same, 1 / np.where(same, 1, distance))


def _nearest(queries: FloatArray, vectors: FloatArray, k: int) -> tuple[FloatArray, IntArray]:
    """Return the k most similar rows of each query, ordered by (cosine to six decimals, row)."""
    import faiss

    width = min(k + _EXTRA, len(vectors))
    scores, rows = _order(*faiss.knn(queries, vectors, width, metric=faiss.METRIC_INNER_PRODUCT))
    if width < len(vectors):
        _settle_wide_ties(queries, vectors, scores, rows)
    return scores[:, :k], rows[:, :k]


def _order(scores: FloatArray, rows: IntArray) -> tuple[FloatArray, IntArray]:
    order = np.lexsort((rows, -np.round(scores, _DIGITS)), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _settle_wide_ties(queries: FloatArray, vectors: FloatArray, scores: FloatArray, rows: IntArray) -> None:
    """Compare all rows, in place, for queries whose tie at k reaches the last fetched neighbor."""
    width = scores.shape[1]
    last = width - _EXTRA - 1
    for q in np.flatnonzero(np.round(scores[:, last], _DIGITS) == np.round(scores[:, -1], _DIGITS)):
        similarities = vectors @ queries[q]
        order = np.lexsort((np.arange(len(similarities)), -np.round(similarities, _DIGITS)))[:width]
        scores[q], rows[q] = similarities[order], order

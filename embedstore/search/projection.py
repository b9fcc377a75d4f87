"""Project items to the plane, so that items with near vectors are near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.errors import QueryError
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import gather_vectors

MIN_ITEMS = 5  # least items of a map
COMPONENTS = 50  # principal components that t-SNE starts from, as in the authors' paper
PERPLEXITY = 30.0  # scikit-learn's default
ITERATIONS = 500  # half of scikit-learn's default: the map hardly differs, and the time halves


@dataclass(frozen=True)
class Projection:
    """Positions of items in the plane.

    Attributes:
        items: int64 ``(N,)`` ids.
        uris: of each item.
        labels: value of the color column of each item, None where it has none.
        xy: float32 ``(N, 2)`` in the unit square, y down.
        matching_count: number of items that match, including those not sampled.
    """

    items: NDArray[np.int64]
    uris: Sequence[str]
    labels: Sequence[str | None]
    xy: NDArray[np.float32]
    matching_count: int


def project(
    storage: Storage,
    space: SpaceRecord,
    *,
    color: str = "label",
    where: str | None = None,
    max_items: int = 2000,
    seed: int = 0,
) -> Projection:
    """Project items by t-SNE (van der Maaten and Hinton 2008) of their 50 largest principal components.

    Args:
        storage: the store.
        space: the space.
        color: a column of the items.
        where: only items that match this filter.
        max_items: sample this many items at random where more match.
        seed: random seed of the sample and of t-SNE.

    Raises:
        UnknownColumn: if the items lack the column, or a column that the filter names.
        BadFilter: if the filter cannot be used.
        QueryError: if fewer than five items match.
    """
    with storage.catalog.read() as con:
        rows = queries.map_rows(con, space.key, color, where)
        if len(rows) < MIN_ITEMS:
            raise QueryError(
                f"a map needs at least {MIN_ITEMS} items with a vector in space {space.name}; {len(rows)} match"
            )
        sampled = [rows[n] for n in _sample(len(rows), max_items, seed)]
        items, uris, labels, shards, places = zip(*sampled, strict=True)
        vectors = storage.vector_reader_in(con, space.space).map_shards(np.array(shards, np.int64))
    X = gather_vectors(vectors, vectors.positions(np.array(shards), np.array(places)))
    return Projection(np.array(items, np.int64), uris, labels, _to_plane(X, seed), len(rows))


def _sample(count: int, max_items: int, seed: int) -> NDArray[np.int64]:
    """Return all row numbers, or ``max_items`` at random, ascending."""
    if count <= max_items:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, max_items, replace=False))


def _to_plane(X: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Project float32 ``(N, D)`` to ``(N, 2)`` in the unit square; near is a high cosine. Equal rows share a place."""
    distinct, row = np.unique(unit_rows(X), axis=0, return_inverse=True)
    xy = _plane_of_distinct(distinct, seed)[row.ravel()]
    low, high = xy.min(axis=0), xy.max(axis=0)
    out: NDArray[np.float32] = np.where(high > low, (xy - low) / np.maximum(high - low, 1e-30), 0.5).astype(np.float32)
    return out


def _plane_of_distinct(X: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Return a place for each of some different rows: by t-SNE, or if they are few, their two principal components.

    t-SNE needs several points, and it fails, or crashes the process, on points whose distances underflow.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(COMPONENTS, len(X) - 1, X.shape[1])
    if components == 0:
        return np.zeros((len(X), 2))
    reduced = PCA(components, random_state=seed).fit_transform(X.astype(np.float64) - X[0])
    reduced /= np.abs(reduced).max()
    start = np.zeros((len(X), 2))
    start[:, : min(2, components)] = reduced[:, :2]
    if len(X) < MIN_ITEMS:
        return start
    perplexity = min(PERPLEXITY, (len(X) - 1) / 3)
    tsne = TSNE(
        perplexity=perplexity,
        init=(1e-4 * start / start[:, 0].std()).astype(np.float32),  # as scikit-learn scales its own start
        max_iter=ITERATIONS,
        random_state=seed,
    )
    return np.asarray(tsne.fit_transform(reduced.astype(np.float32)), np.float64)

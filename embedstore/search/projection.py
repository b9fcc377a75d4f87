"""Project items to the plane, so that items with near vectors are near each other.

t-SNE places at most :data:`LANDMARKS` items, drawn at random; every other item is placed among the landmarks that are
nearest to it, as Policar, Strazar and Zupan place new data on a map (Machine Learning 2023, "Embedding to reference
t-SNE space"). So the time of t-SNE does not grow with the collection, and memory is that of the landmarks and a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.errors import QueryError
from embedstore.storage.map_file import MapPlaces
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import BLOCK_ROWS, VectorReader, gather_vectors
from embedstore.threads import single_threaded_algebra

MIN_ITEMS = 5  # least items of a map
COMPONENTS = 50  # principal components that t-SNE starts from, as in the authors' paper
PERPLEXITY = 30.0  # scikit-learn's default
LANDMARKS = 5000  # items that t-SNE places: about eight seconds of one core
NEIGHBORS = 8  # landmarks among which another item is placed
ITERATIONS = 500  # half of scikit-learn's default: the map hardly differs, and the time halves


@dataclass(frozen=True)
class Projection:
    """Positions of items in the plane.

    Attributes:
        items: int64 ``(N,)`` ids.
        uris: the uris of each item.
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
    max_items: int | None = 2000,
    seed: int = 0,
) -> Projection:
    """Project items by t-SNE (van der Maaten and Hinton 2008) of their 50 largest principal components.

    Args:
        storage: the store.
        space: the space.
        color: a column of the items.
        where: only items that match this filter.
        max_items: sample this many items at random where more match; None places all of them.
        seed: random seed of the sample, of the landmarks and of t-SNE.

    Raises:
        UnknownColumn: if the items lack the column, or a column that the filter names.
        BadFilter: if the filter cannot be used.
        QueryError: if fewer than five items match.
    """
    chosen = _matching(storage, space, color=color, where=where)
    sampled = _sample(len(chosen.items), max_items, seed)
    xy = _fit_unit_square(_place_all(chosen.vectors, chosen.positions[sampled], seed))
    uris, labels = _named(chosen, sampled)
    return Projection(chosen.items[sampled], uris, labels, xy, len(chosen.items))


def show_places(storage: Storage, space: SpaceRecord, places: MapPlaces, *, color: str = "label") -> Projection:
    """Return the items at the places of a map that is kept; an item that has none yet is left out.

    Args:
        storage: the store.
        space: the space.
        places: the places of items of the space.
        color: a column of the items.

    Raises:
        UnknownColumn: if the items lack the column.
        QueryError: if fewer than five items have a vector.
    """
    found = _matching(storage, space, color=color, where=None)
    shown = np.flatnonzero(np.isin(found.items, places.items, assume_unique=True))
    xy = places.xy[np.searchsorted(places.items, found.items[shown])]
    uris, labels = _named(found, shown)
    return Projection(found.items[shown], uris, labels, xy, len(found.items))


@dataclass(frozen=True)
class _Matching:
    """The items that match, ascending, with the places of their vectors."""

    items: NDArray[np.int64]
    uris: Sequence[str]
    labels: Sequence[str | None]
    positions: NDArray[np.int64]
    vectors: VectorReader


def _named(found: _Matching, rows: NDArray[np.int64]) -> tuple[list[str], list[str | None]]:
    """Return the uris and the labels of some items."""
    return [found.uris[n] for n in rows.tolist()], [found.labels[n] for n in rows.tolist()]


def _matching(storage: Storage, space: SpaceRecord, *, color: str, where: str | None) -> _Matching:
    """Return the items that match a filter and have a vector; see :func:`project`."""
    with storage.catalog.read() as con:
        rows = queries.map_rows(con, space.key, color, where)
        if len(rows) < MIN_ITEMS:
            raise QueryError(
                f"a map needs at least {MIN_ITEMS} items with a vector in space {space.name}; {len(rows)} match"
            )
        items, uris, labels, shards, places = zip(*rows, strict=True)
        vectors = storage.vector_reader_in(con, space.space).map_shards(np.array(shards, np.int64))
    positions = vectors.positions(np.array(shards, np.int64), np.array(places, np.int64))
    return _Matching(np.array(items, np.int64), uris, labels, positions, vectors)


def project_vectors(X: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Return a place in the unit square for each of a few thousand vectors at most: float32 ``(N, 2)``.

    Args:
        X: float32 ``(N, D)``, unit rows.
        seed: random seed of t-SNE.

    t-SNE gets one thread: its threads wait actively for each other, so with other work on two cores two of them took
    six times as long as one, and the other cores are free for what the process does meanwhile.
    """
    import sklearn.manifold  # noqa: F401 - only libraries that are loaded can be limited

    with single_threaded_algebra():
        return _fit_unit_square(_place_landmarks(X, seed))


def _sample(count: int, max_items: int | None, seed: int) -> NDArray[np.int64]:
    """Return all row numbers, or ``max_items`` at random, ascending."""
    if max_items is None or count <= max_items:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, max_items, replace=False))


def _place_all(vectors: VectorReader, positions: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return a place ``(N, 2)`` for every position, block by block where they are more than the landmarks."""
    chosen = _sample(len(positions), LANDMARKS, seed)
    landmarks = unit_rows(gather_vectors(vectors, positions[chosen]))
    places = _place_landmarks(landmarks, seed)
    if len(chosen) == len(positions):
        return places
    xy = np.empty((len(positions), 2))
    for begin in range(0, len(positions), BLOCK_ROWS):
        block = unit_rows(vectors.read_float32(positions[begin : begin + BLOCK_ROWS]))
        xy[begin : begin + BLOCK_ROWS] = place_among(landmarks, places, block)
    xy[chosen] = places
    return xy


def place_among(
    landmarks: NDArray[np.float32], places: NDArray[np.float64], X: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the place of other rows: the mean of those of the nearest landmarks, the nearer the heavier.

    A row that equals a landmark is placed at the landmark; a row between two groups of landmarks joins the nearer one.

    Args:
        landmarks: float32 ``(L, D)``, unit rows, more than one.
        places: float64 ``(L, 2)``.
        X: float32 ``(N, D)``, unit rows.

    Returns:
        float64 ``(N, 2)``.
    """
    import faiss

    width = min(NEIGHBORS + 1, len(landmarks))
    cosine, rows = faiss.knn(X, landmarks, width, metric=faiss.METRIC_INNER_PRODUCT)
    distance = np.sqrt(np.maximum(2 - 2 * cosine.astype(np.float64), 1e-7))  # below it, rows are equal but for rounding
    beyond = distance[:, -1:]  # of the first landmark that has no weight
    weights = ((beyond - distance[:, :-1]) / (distance[:, :-1] * beyond)) ** 2 + 1e-9  # the kernel of Franke and Little
    weights /= weights.sum(axis=1, keepdims=True)
    placed: NDArray[np.float64] = (weights[:, :, None] * places[rows[:, :-1]]).sum(axis=1)
    return placed


def _place_landmarks(X: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Project unit rows ``(N, D)`` to ``(N, 2)``; near is a high cosine. Equal rows share a place."""
    distinct, row = np.unique(X, axis=0, return_inverse=True)
    places: NDArray[np.float64] = _plane_of_distinct(distinct, seed)[row.ravel()]
    return places


def _fit_unit_square(xy: NDArray[np.float64]) -> NDArray[np.float32]:
    """Scale places ``(N, 2)`` to the unit square."""
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

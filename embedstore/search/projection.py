"""Items in the plane: near each other where their vectors are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError, UnknownColumn, did_you_mean
from embedstore.storage import filters as item_filter
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import quote_identifier
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import gather_vectors

MIN_ITEMS = 5  # items that a map makes sense of
COMPONENTS = 50  # principal components that t-SNE starts from, as its authors do
PERPLEXITY = 30.0  # scikit-learn's default
ITERATIONS = 500  # half of scikit-learn's default: the picture hardly differs, the time halves


@dataclass(frozen=True)
class Projection:
    """Where items stand in the plane.

    Attributes:
        items: int64 ``(N,)``. uris: of each. labels: what they are coloured by, None where nothing is known.
        xy: float32 ``(N, 2)`` in the unit square, y down.
        matching: how many items could have been shown.
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
    """Items by t-SNE (van der Maaten and Hinton 2008) of the 50 largest principal components.

    Args:
        storage, space: the store and the space.
        colour: a column of the items. where: a filter, as in search.
        most: a random sample of so many, where more match. seed: of the sample and of t-SNE.

    Raises:
        UnknownColumn, BadFilter: as their names say. QueryError: fewer than five items match.
    """
    with storage.catalog.read() as con, item_filter.filter_errors(where):
        names = [r[0] for r in con.execute("DESCRIBE items").fetchall()]
        if color.lower() not in (n.lower() for n in names):
            raise UnknownColumn(
                f"the items have no column {color!r}{did_you_mean(color, names)}; they have {', '.join(names)}"
            )
        rows = con.execute(
            f"SELECT i.item, i.uri, nullif(trim({quote_identifier(color)}::VARCHAR), ''), v.shard, v.\"row\"::BIGINT "
            f"FROM (SELECT * FROM items WHERE present AND ({item_filter.compile_filter(con, where)})) i "
            "JOIN vectors v ON v.content = i.content AND v.space = ? ORDER BY i.item",
            [space.key],
        ).fetchall()
        if len(rows) < MIN_ITEMS:
            raise QueryError(
                f"a map needs at least {MIN_ITEMS} items with a vector in space {space.name}; {len(rows)} match"
            )
        chosen = [rows[n] for n in _sample(len(rows), max_items, seed)]
        vectors = storage.vector_reader_in(con, space.space).map_shards(np.array([r[3] for r in chosen], np.int64))
    positions = vectors.positions(np.array([r[3] for r in chosen]), np.array([r[4] for r in chosen]))
    return Projection(
        items=np.array([r[0] for r in chosen], np.int64),
        uris=[r[1] for r in chosen],
        labels=[r[2] for r in chosen],
        xy=_plane(gather_vectors(vectors, positions), seed),
        matching_count=len(rows),
    )


def _sample(number: int, most: int, seed: int) -> NDArray[np.int64]:
    """All of them, or ``most`` at random, in order."""
    if number <= most:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).choice(number, most, replace=False))


def _plane(X: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """float32 ``(N, D)`` to ``(N, 2)`` in the unit square."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = min(COMPONENTS, *X.shape)
    reduced = PCA(few, random_state=seed).fit_transform(X)
    perplexity = min(PERPLEXITY, (len(X) - 1) / 3)
    xy = TSNE(perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed).fit_transform(reduced)
    low, high = xy.min(axis=0), xy.max(axis=0)
    out: NDArray[np.float32] = ((xy - low) / np.maximum(high - low, 1e-9)).astype(np.float32)
    return out

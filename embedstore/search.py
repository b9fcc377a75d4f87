"""A query vector and a filter to hits, exactly: if k items match, k come back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import DimensionMismatch, QueryError
from embedstore.index import exact
from embedstore.records import Hit
from embedstore.store import filter as item_filter
from embedstore.store.storage import ITEM_COLUMNS, SpaceRow, Storage
from embedstore.store.vectors import BLOCK_ROWS, Vectors

MOST = 100_000  # hits of one query: more is an export


def search(
    storage: Storage, space: SpaceRow, query: NDArray[np.float32], *, k: int = 10, where: str | None = None
) -> list[Hit]:
    """The k present items nearest to a query, among those that match a filter.

    Args:
        storage: the store.
        space: the space of the query and of the vectors searched.
        query: ``(dim,)`` of any length.
        k: hits wanted, 1 to 100,000.
        where: a boolean SQL expression over the items' columns.

    Returns:
        At most k hits, best first (equal scores by ascending item); fewer only if fewer items match.

    Raises:
        QueryError: k out of range, or a query that is not finite or is zero.
        DimensionMismatch: the query has another length than the space's vectors.
        BadFilter, UnknownColumn: the filter cannot be used.
    """
    unit = _unit_query(space, query)
    if not 1 <= k <= MOST:
        raise QueryError(f"k must be between 1 and {MOST:,}, not {k}; use `embedstore export` for everything")
    with storage.catalog.read() as con:
        columns = [r[0] for r in con.execute("DESCRIBE items").fetchall()]
        condition = item_filter.checked(where, columns) if where else None
        vectors = storage.vectors_in(con, space.space)
        allowed = _matching(con, space, vectors, condition) if condition else None
        rows = len(vectors) if allowed is None else len(allowed)
        wanted = min(k, rows)
        while True:
            scores, positions = exact.top_k(_blocks(vectors, allowed), unit, wanted, unit=space.space.unit)
            hits = _hits(con, space, vectors, scores, positions, columns, condition, k)
            if len(hits) >= k or wanted >= rows:  # fewer: contents whose items are gone stood among the nearest
                return hits
            wanted = min(4 * wanted + 100, rows)


def item_vector(storage: Storage, space: SpaceRow, item: int) -> NDArray[np.float32]:
    """The stored vector of an item: float32 ``(dim,)``.

    Raises:
        QueryError: no such item, or it has no vector in this space.
    """
    with storage.catalog.read() as con:
        found = con.execute(
            'SELECT v.shard, v."row" FROM items i JOIN vectors v ON v.content = i.content AND v.space = ? '
            "WHERE i.item = ?",
            [space.key, item],
        ).fetchone()
        if found is None:
            raise QueryError(f"item {item} does not exist or has no vector in space {space.name}")
        vectors = storage.vectors_in(con, space.space)
    vector: NDArray[np.float32] = vectors.gather(vectors.positions(np.array(found[:1]), np.array(found[1:])))[0]
    return vector


def _unit_query(space: SpaceRow, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The query, checked and scaled to length 1."""
    q = np.asarray(query, dtype=np.float32)
    if q.shape != (space.space.dim,):
        raise DimensionMismatch(
            f"the query has shape {q.shape}, space {space.name} has vectors of {space.space.dim}; "
            "make the query with that space's backbone"
        )
    length = float(np.linalg.norm(q))
    if not np.isfinite(length) or length == 0:
        raise QueryError("the query vector is zero or not finite; it has no direction to search in")
    unit: NDArray[np.float32] = q / np.float32(length)
    return unit


def _matching(con: duckdb.DuckDBPyConnection, space: SpaceRow, vectors: Vectors, condition: str) -> NDArray[np.int64]:
    """Positions of the contents of all matching items, ascending."""
    found = con.execute(
        'SELECT shard, "row"::BIGINT AS r FROM vectors WHERE space = ? AND content IN '
        f"(SELECT content FROM items WHERE present AND ({condition}))",
        [space.key],
    ).fetchnumpy()
    return np.sort(vectors.positions(np.asarray(found["shard"]), np.asarray(found["r"])))


def _blocks(
    vectors: Vectors, allowed: NDArray[np.int64] | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """All vectors, or those at the allowed positions, block by block."""
    if allowed is None:
        for start, rows in vectors.blocks():
            yield np.arange(start, start + len(rows), dtype=np.int64), rows
        return
    for begin in range(0, len(allowed), BLOCK_ROWS):
        chosen = allowed[begin : begin + BLOCK_ROWS]
        yield chosen, vectors.gather(chosen)


def _hits(
    con: duckdb.DuckDBPyConnection,
    space: SpaceRow,
    vectors: Vectors,
    scores: NDArray[np.float32],
    positions: NDArray[np.int64],
    columns: list[str],
    condition: str | None,
    k: int,
) -> list[Hit]:
    """The items of the nearest contents, every item of a content with the content's score."""
    shards, places = vectors.places(positions)
    near = {"shard": shards, "place": places, "score": scores.astype(np.float64)}  # noqa: F841 - read by SQL
    own = [c for c in columns if c not in ITEM_COLUMNS]
    extra = "".join(f', i."{c.replace(chr(34), chr(34) * 2)}"' for c in own)
    rows = con.execute(
        f"SELECT n.score, i.item, i.uri, i.label, i.split{extra} FROM near n "
        'JOIN vectors v ON v.shard = n.shard AND v."row" = n.place AND v.space = ? '
        f"JOIN (SELECT * FROM items WHERE present AND ({condition or 'true'})) i ON i.content = v.content "
        "ORDER BY n.score DESC, i.item LIMIT ?",
        [space.key, k],
    ).fetchall()
    return [_hit(rank, row, own) for rank, row in enumerate(rows, 1)]


def _hit(rank: int, row: tuple[Any, ...], own: list[str]) -> Hit:
    """One row of the answer."""
    score, item, uri, label, split, *values = row
    return Hit(rank, score, item, uri, label, split, dict(zip(own, values, strict=True)))

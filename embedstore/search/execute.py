"""A query vector and a filter to hits: if k items match, k come back, at any selectivity, in one order."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import DimensionMismatch, QueryError, UnknownColumn, did_you_mean
from embedstore.search import snapshot
from embedstore.search.mmr import maximal_marginal_relevance
from embedstore.search.planner import SearchMethod
from embedstore.search.ranker import Ranker, RankingResult
from embedstore.storage import filters as item_filter
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import quote_identifier
from embedstore.storage.storage import Storage
from embedstore.types import Hit

MAX_HITS = 100_000  # hits of one query: more is an export
DIVERSITY_POOL_SIZE = 1000  # nearest items among which diversity chooses; more only where a page needs them
_FIRST = 256  # items ranked at first where it is not known how many will be needed


@dataclass(frozen=True)
class SearchOptions:
    """Everything about a search but its query.

    Attributes:
        k: hits wanted, 1 to 100,000; None wants every item that reaches ``min_score``.
        offset: hits to leave out at the front. where: a filter.
        min_score: least cosine similarity of a hit.
        group_by: a column of the items: one hit for each of its values, the best; items without a value stand alone.
            ``content`` gives one hit for all items with the same bytes.
        diversity: 0 ranks by score alone, towards 1 hits may resemble each other less (maximal marginal relevance,
            Carbonell and Goldstein 1998, with lambda = 1 - diversity).
        exact: never ask an approximate index.
        way: gather, scan or index, where it is possible; None takes the cheapest.
    """

    k: int | None = 10
    offset: int = 0
    where: str | None = None
    min_score: float | None = None
    group_by: str | None = None
    diversity: float = 0.0
    exact: bool = False
    method: SearchMethod | None = None

    def __post_init__(self) -> None:
        if self.k is None and self.min_score is None:
            raise QueryError("without k, say the least score with min_score")
        if self.k is not None and not 1 <= self.k <= MAX_HITS:
            raise QueryError(
                f"k must be between 1 and {MAX_HITS:,}, not {self.k}; use `embedstore export` for everything"
            )
        if not 0 <= self.offset <= MAX_HITS:
            raise QueryError(f"offset must be between 0 and {MAX_HITS:,}, not {self.offset}")
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise QueryError(f"min_score is a cosine similarity between -1 and 1, not {self.min_score}")
        if not 0 <= self.diversity <= 1:
            raise QueryError(f"diversity is between 0 and 1, not {self.diversity}")

    @property
    def needs_exact_ranking(self) -> bool:
        """No item may be missed: all that reach a score are wanted, or a choice among very many is made."""
        return self.exact or self.k is None or self.diversity > 0


@dataclass(frozen=True)
class SearchResult:
    """Hits, and how they were found.

    Attributes:
        hits: best first. plan: way, counts, estimated and measured milliseconds.
        notes: what a person should know, e.g. an index that was passed by.
    """

    hits: list[Hit]
    plan: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def search(
    storage: Storage, space: SpaceRecord, query: NDArray[np.float32], *, k: int = 10, where: str | None = None
) -> list[Hit]:
    """The k present items nearest to a query, among those that match a filter; see :func:`answer`."""
    return execute_search(storage, space, query, SearchOptions(k=k, where=where)).hits


def execute_search(
    storage: Storage, space: SpaceRecord, query: NDArray[np.float32], options: SearchOptions
) -> SearchResult:
    """The present items nearest to a query.

    Args:
        storage: the store.
        space: the space of the query and of the vectors searched.
        query: ``(dim,)`` of any length.
        ask: how many, which, and how.

    Returns:
        Hits by descending score, equal scores by ascending item; fewer than k only if fewer items match.

    Raises:
        QueryError: a query that is not finite or is zero.
        DimensionMismatch: the query has another length than the space's vectors.
        BadFilter, UnknownColumn: the filter or the column to group by cannot be used.
    """
    unit = unit_query(space, query)
    begin = time.perf_counter()
    with snapshot.open_snapshot(storage, space, options.where, all_columns=options.group_by is not None) as now:
        chosen = _chosen(now, options.where)
        filtered = time.perf_counter()
        ranker = Ranker(
            now.con,
            now.space_snapshot,
            unit,
            selection=chosen,
            exact=options.needs_exact_ranking,
            method=options.method,
        )
        ranked, shown = _shown(now, ranker, options)
        hits = _hits(now, ranked, shown, options.offset)
        notes = now.space_snapshot.notes
    end = time.perf_counter()
    plan = vars(ranked.plan) | {
        "rounds": ranked.rounds,
        "filter_ms": round(1000 * (filtered - begin), 3),
        "score_ms": round(1000 * ranked.seconds, 3),
        "total_ms": round(1000 * (end - begin), 3),
    }
    return SearchResult(hits, plan, notes)


def item_vector(storage: Storage, space: SpaceRecord, item: int) -> NDArray[np.float32]:
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
        vectors = storage.vector_reader_in(con, space.space)
        vector: NDArray[np.float32] = vectors.read_float32(vectors.positions(np.array(found[:1]), np.array(found[1:])))[
            0
        ]
    return vector


def unit_query(space: SpaceRecord, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """The query, checked and scaled to length 1.

    Raises:
        DimensionMismatch: another length than the space's vectors. QueryError: zero or not finite.
    """
    q = np.asarray(query, dtype=np.float32)
    if q.shape != (space.space.dim,):
        raise DimensionMismatch(
            f"the query has shape {q.shape}, space {space.name} has vectors of {space.space.dim}; "
            "make the query with that space's backbone"
        )
    length = float(np.linalg.norm(q.astype(np.float64)))
    if not math.isfinite(length) or length == 0:
        raise QueryError("the query vector is zero or not finite; it has no direction to search in")
    unit: NDArray[np.float32] = (q.astype(np.float64) / length).astype(np.float32)  # rounded once
    return unit


def _chosen(now: snapshot.SnapshotReader, where: str | None) -> snapshot.Selection | None:
    """Which items and rows match a filter."""
    if where is None:
        return None

    def find() -> NDArray[np.bool_]:
        condition = item_filter.compile_filter(now.con, where)
        with item_filter.filter_errors(where):
            found = now.con.execute(f"SELECT item FROM items WHERE present AND ({condition})").fetchnumpy()
        return now.space_snapshot.row_index(now.con).entry_mask(np.asarray(found["item"], np.int64))

    return now.space_snapshot.selection(now.con, where, find)


def _shown(now: snapshot.SnapshotReader, ranker: Ranker, ask: SearchOptions) -> tuple[RankingResult, NDArray[np.int64]]:
    """A ranking deep enough, and which of its places are shown, in their order."""
    needed = MAX_HITS if ask.k is None else ask.offset + ask.k
    depth = _first_depth(needed, ask)
    while True:
        ranked = ranker.top_items(depth)
        places = np.arange(len(ranked.items))
        below = 0
        if ask.min_score is not None:
            places = places[ranked.scores >= ask.min_score]
            below = len(ranked.items) - len(places)
        if ask.group_by is not None:
            places = places[_firsts(_values(now, ranked.items[places], ask.group_by))]
        if len(places) >= needed or below or len(ranked.items) < depth:
            break
        depth *= 4
    if ask.diversity > 0:
        vectors = now.space_snapshot.vectors.read_float32(ranked.positions[places])
        places = places[maximal_marginal_relevance(vectors, ranked.scores[places], needed, ask.diversity)]
    return ranked, places[ask.offset : needed]


def _first_depth(needed: int, ask: SearchOptions) -> int:
    """How many items to rank at first. With diversity a fixed pool, so that pages are parts of one list."""
    if ask.diversity > 0:
        return DIVERSITY_POOL_SIZE * math.ceil(needed / DIVERSITY_POOL_SIZE) if ask.k is not None else needed
    if ask.k is None:
        return _FIRST
    return needed if ask.group_by is None else 4 * needed


def _values(now: snapshot.SnapshotReader, items: NDArray[np.int64], column: str) -> list[str | None]:
    """A column's values as text, for some items, in their order."""
    columns = now.space_snapshot.catalog_snapshot.columns
    if column.lower() not in {c.lower() for c in columns}:
        raise UnknownColumn(
            f"the items have no column {column!r}{did_you_mean(column, columns)}; they have "
            f"{', '.join(sorted(columns))}"
        )
    wanted = {"item": items, "n": np.arange(len(items))}  # noqa: F841 - read by SQL
    rows = now.con.execute(
        f"SELECT i.{quote_identifier(column)}::VARCHAR FROM wanted w JOIN items i ON i.item = w.item ORDER BY w.n"
    ).fetchall()
    return [value for (value,) in rows]


def _firsts(values: list[str | None]) -> NDArray[np.int64]:
    """Where each value stands first; None is a value of its own everywhere."""
    seen: set[str] = set()
    out = []
    for n, value in enumerate(values):
        if value is None or value not in seen:
            out.append(n)
        if value is not None:
            seen.add(value)
    return np.array(out, np.int64)


def _hits(now: snapshot.SnapshotReader, ranked: RankingResult, shown: NDArray[np.int64], offset: int) -> list[Hit]:
    """What the catalog knows of the items shown."""
    own = now.space_snapshot.catalog_snapshot.hit_columns[4:]
    items = ranked.items[shown]
    known = {item: rest for item, *rest in now.hit_rows(items)}
    out = []
    for rank, (item, score) in enumerate(zip(items.tolist(), ranked.scores[shown].tolist(), strict=True), offset + 1):
        uri, label, split, *values = known[item]
        out.append(Hit(rank, score, item, uri, label, split, dict(zip(own, values, strict=True))))
    return out

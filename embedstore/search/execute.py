"""Run a search: from a query vector and a filter to hits. If k items match, k hits come back, at any selectivity."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import DimensionMismatch, QueryError
from embedstore.search.hybrid import HybridRanker
from embedstore.search.index.batch_scan import MAX_QUERIES, top_k_of_many
from embedstore.search.mmr import maximal_marginal_relevance
from embedstore.search.options import SearchOptions, Words
from embedstore.search.planner import SearchMethod, SearchPlan
from embedstore.search.query_arithmetic import normalize
from embedstore.search.ranker import SPARE_CANDIDATES, Ranker, Ranking
from embedstore.search.snapshot_cache import SearchView, SnapshotCache, ViewRequest
from embedstore.search.word_cache import WordIndexCache
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.types import Hit

DIVERSITY_POOL_SIZE = 1000  # nearest items among which diversity chooses; more only where a page needs them
_FIRST_DEPTH = 256  # items ranked at first where the number of hits is not known
_MIN_BATCH = 32  # queries from which on reading and converting every row once pays
_MAX_SCANNED_ROWS = 2**20  # best rows that are kept for the queries of one scan, 12 bytes each
_GROWTH = 4  # items ranked per group at first, and how many times more in the next round


@dataclass(frozen=True)
class SearchResult:
    """Hits, and how they were found.

    Attributes:
        hits: best first.
        plan: the method, counts, estimated and measured milliseconds.
        notes: messages for the user, e.g. that an index was ignored.
    """

    hits: tuple[Hit, ...]
    plan: SearchPlan
    notes: tuple[str, ...] = ()


class Searcher:
    """Searches one store. Keep it: it caches what makes repeated searches fast. Threads may share it.

    Args:
        storage: the store.
    """

    def __init__(self, storage: Storage) -> None:
        self._snapshots = SnapshotCache(storage)
        self._words = WordIndexCache(storage)

    def search(self, space: SpaceRecord, query: NDArray[np.float32], options: SearchOptions) -> SearchResult:
        """Find the present items nearest to a query.

        Args:
            space: the space of the query and of the vectors searched.
            query: ``(dim,)`` of any length.
            options: how many hits, which, and how.

        Returns:
            Hits by descending score, equal scores by ascending item; fewer than k only if fewer items match.

        Raises:
            QueryError: if the query is zero or not finite.
            DimensionMismatch: if the query has another length than the space's vectors.
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the filter, ``group_by`` or ``words`` names a column that the items lack.
        """
        unit = unit_query(space, query)
        begin = time.perf_counter()
        with self._snapshots.open_view(space, _view_request(options)) as view:
            opened = time.perf_counter()
            ranker, word_notes = self._ranker(view, Ranker(view, unit, options), options.words)
            ranking, plan, places = _rank_shown(view, ranker, options)
            hits = _hits(view, ranking, places, options.offset)
            notes = view.snapshot.lookup.notes + view.cache.filter_notes(options.where) + word_notes
        end = time.perf_counter()
        filter_ms, total_ms = (round(1000 * (t - begin), 3) for t in (opened, end))
        return SearchResult(hits, replace(plan, filter_ms=filter_ms, total_ms=total_ms), notes)

    def search_many(
        self, space: SpaceRecord, queries: Sequence[NDArray[np.float32]], options: SearchOptions
    ) -> list[tuple[Hit, ...]]:
        """Find the present items nearest to each of many queries, all in one state of the store.

        Args:
            space: the space of the queries and of the vectors searched.
            queries: each ``(dim,)`` of any length.
            options: how many hits of each query, which, and how.

        Returns:
            The hits of each query as :meth:`search` gives them.

        Raises:
            As :meth:`search`.
        """
        units = [unit_query(space, query) for query in queries]
        found: list[tuple[Hit, ...]] = []
        with self._snapshots.open_view(space, _view_request(options)) as view:
            for by_vectors in _rankers(view, units, options):
                ranker, _ = self._ranker(view, by_vectors, options.words)
                ranking, _, places = _rank_shown(view, ranker, by_vectors.options)
                found.append(_hits(view, ranking, places, options.offset))
        return found

    def _ranker(
        self, view: SearchView, by_vectors: Ranker, words: Words | None
    ) -> tuple[Ranker | HybridRanker, tuple[str, ...]]:
        """Return what ranks the items, and what a person should know about the words of the query."""
        if words is None:
            return by_vectors, ()
        hybrid = HybridRanker(view, by_vectors, self._words.get(view.con, words.column), words)
        return hybrid, hybrid.notes()


def _view_request(options: SearchOptions) -> ViewRequest:
    """Return what a search wants to see."""
    return ViewRequest(options.where, options.within, all_columns=options.needs_catalog)


def _rankers(view: SearchView, units: list[NDArray[np.float32]], options: SearchOptions) -> Iterator[Ranker]:
    """Yield what ranks the items for each query by vectors; without an index the rows of many are scanned at once."""
    wanted = _first_depth(options) + SPARE_CANDIDATES
    count = min(MAX_QUERIES, max(1, _MAX_SCANNED_ROWS // wanted))
    for begin in range(0, len(units), count):
        part = units[begin : begin + count]
        if len(part) < _MIN_BATCH or Ranker(view, part[0], options).uses_index(wanted - SPARE_CANDIDATES):
            yield from (Ranker(view, unit, options) for unit in part)
            continue
        mask = view.selection.row_mask if view.selection else None
        arrays = view.snapshot.vectors.shard_arrays()
        scanned = top_k_of_many(arrays, np.stack(part), wanted, unit=view.snapshot.unit, mask=mask)
        by_scan = replace(options, exact=True, method=SearchMethod.SCAN)
        yield from (Ranker(view, unit, by_scan, rows) for unit, rows in zip(part, scanned, strict=True))


def item_vector(storage: Storage, space: SpaceRecord, item: int) -> NDArray[np.float32]:
    """Return the stored vector of an item: float32 ``(dim,)``.

    Raises:
        QueryError: if there is no such item, or it has no vector in this space.
    """
    with storage.catalog.read() as con:
        placement = queries.item_placement(con, space.key, item)
        if placement is None:
            raise QueryError(f"item {item} does not exist or has no vector in space {space.name}")
        vectors = storage.vector_reader_in(con, space.space)
        positions = vectors.positions(np.array(placement[:1]), np.array(placement[1:]))
        vector: NDArray[np.float32] = vectors.read_float32(positions)[0]
    return vector


def unit_query(space: SpaceRecord, query: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the query scaled to length 1: float32 ``(dim,)``.

    Raises:
        DimensionMismatch: if the query has another length than the space's vectors.
        QueryError: if the query is zero or not finite.
    """
    if query.shape != (space.space.dim,):
        raise DimensionMismatch(
            f"the query has shape {query.shape}, space {space.name} has vectors of {space.space.dim}; "
            "make the query with that space's backbone"
        )
    return normalize(query)


def _rank_shown(
    view: SearchView, ranker: Ranker | HybridRanker, options: SearchOptions
) -> tuple[Ranking, SearchPlan, NDArray[np.int64]]:
    """Return a ranking that is deep enough, its plan, and the places in it that are shown, in their order."""
    depth = _first_depth(options)
    while True:
        ranking, plan = ranker.rank(depth)
        places = _eligible_places(view, ranking, options)
        reached_min_score = options.min_score is not None and bool((ranking.scores < options.min_score).any())
        if len(places) >= options.end or reached_min_score or len(ranking.items) < depth:
            break
        depth *= _GROWTH
    if options.diversity > 0:
        vectors = view.snapshot.vectors.read_float32(ranking.positions[places])
        places = places[maximal_marginal_relevance(vectors, ranking.scores[places], options.end, options.diversity)]
    return ranking, plan, places[options.offset : options.end]


def _eligible_places(view: SearchView, ranking: Ranking, options: SearchOptions) -> NDArray[np.int64]:
    """Return the places of the items that reach the score and are the best of their group."""
    places = np.arange(len(ranking.items))
    if options.min_score is not None:
        places = places[ranking.scores >= options.min_score]
    if options.group_by is not None:
        places = places[_first_of_each(view.column_values(ranking.items[places], options.group_by))]
    return places


def _first_depth(options: SearchOptions) -> int:
    """Return how many items to rank at first; with diversity a fixed pool, so that pages are parts of one list."""
    if options.diversity > 0:
        return options.end if options.k is None else DIVERSITY_POOL_SIZE * math.ceil(options.end / DIVERSITY_POOL_SIZE)
    if options.k is None:
        return _FIRST_DEPTH
    return options.end if options.group_by is None else _GROWTH * options.end


def _first_of_each(values: list[str | None]) -> NDArray[np.int64]:
    """Return the first place of each value, and every place of None."""
    seen: set[str] = set()
    places = []
    for n, value in enumerate(values):
        if value is None or value not in seen:
            places.append(n)
        if value is not None:
            seen.add(value)
    return np.array(places, np.int64)


def _hits(view: SearchView, ranking: Ranking, places: NDArray[np.int64], offset: int) -> tuple[Hit, ...]:
    """Return the items at some places of a ranking with what the catalog knows of them."""
    items, scores = ranking.items[places], ranking.scores[places]
    rows = {item: values for item, *values in view.hit_rows(items)}
    columns, hits = view.user_columns, []
    for rank, (item, score) in enumerate(zip(items.tolist(), scores.tolist(), strict=True), offset + 1):
        uri, label, split, *values = rows[item]
        hits.append(Hit(rank, score, item, uri, label, split, dict(zip(columns, values, strict=True))))
    return tuple(hits)

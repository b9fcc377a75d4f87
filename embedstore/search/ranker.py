"""Items in the order of their scores, as many as asked: candidates by the plan, then exact scores, then one order.

However candidates were found, every score that counts is computed alike (float64 sums over the stored rows), and
equal scores stand by ascending item. So the order does not depend on the way, and pages of one list fit together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.search.index import approximate
from embedstore.search.index.exact import ScoredRows as Scored
from embedstore.search.index.exact import select_top_k
from embedstore.search.index.files import LoadedIndex
from embedstore.search.index.scan import PIECE_ROWS, Scanner
from embedstore.search.planner import IndexCandidate, RowCosts, SearchMethod, SearchPlan, plan_search
from embedstore.search.snapshot import MAX_SQL_LOOKUPS, Selection, SpaceSnapshot
from embedstore.storage.vectors import VectorReader

SCORE_TOLERANCE = 1e-5  # a float32 sum of up to 4,096 products of unit vectors is off by about 2e-6
_SPARE = 16  # candidates beyond those wanted, so that a rounding rarely asks for another round
_CLOSE = 4  # ... beyond those shown that are scored exactly, for the same reason
_CHUNK = 4096  # rows scored exactly at a time: 16 MiB of float64 at 512 dimensions
_TAKEN = 2 * PIECE_ROWS  # rows read out of order at a time: 128 MiB of float16 at 512 dimensions
_ASKED = 2  # times an index is asked, the second time for more; then every row is scored
_SAMPLE = 16384  # rows timed to learn this machine's costs


@dataclass(frozen=True)
class Ranking:
    """Items in one order.

    Attributes:
        items, positions: int64 ``(n,)``. scores: float64 ``(n,)``.
        complete: nothing else matches. rounds: of widening, from 1.
    """

    items: NDArray[np.int64]
    positions: NDArray[np.int64]
    scores: NDArray[np.float64]
    is_complete: bool
    rounds: int

    def head(self, depth: int) -> Ranking:
        """The first ``depth`` of them."""
        whole = self.is_complete and len(self.items) <= depth
        return Ranking(self.items[:depth], self.positions[:depth], self.scores[:depth], whole, self.rounds)

    def then(self, other: Ranking) -> Ranking:
        """All of these, then what the other has besides, in its order."""
        new = ~np.isin(other.items, self.items)
        return Ranking(
            np.concatenate([self.items, other.items[new]]),
            np.concatenate([self.positions, other.positions[new]]),
            np.concatenate([self.scores, other.scores[new]]),
            other.is_complete,
            self.rounds + other.rounds,
        )


@dataclass(frozen=True)
class RankingResult(Ranking):
    """The nearest items, best first.

    Attributes:
        plan: what was done. seconds: it took.
    """

    plan: SearchPlan
    seconds: float


class Ranker:
    """One query against one generation of a space.

    Args:
        con: a reader. field: what is searched.
        query: float32 ``(dim,)`` of length 1.
        chosen: what the filter leaves; None without one.
        exact: never ask an approximate index. way: this one, where it is possible.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        space_snapshot: SpaceSnapshot,
        query: NDArray[np.float32],
        *,
        selection: Selection | None = None,
        exact: bool = False,
        method: SearchMethod | None = None,
    ) -> None:
        self._con, self._field, self._query = con, space_snapshot, query
        self._exact, self._way = exact, method
        self._chosen = selection
        self._instead: SearchMethod | None = None  # of an index that yielded too few

    @property
    def _mask(self) -> NDArray[np.bool_] | None:
        """The rows that may be hits."""
        return self._chosen.row_mask if self._chosen else None

    @property
    def _matching(self) -> int:
        """How many they are."""
        return self._chosen.row_count if self._chosen else len(self._field.vectors)

    def plan(self, depth: int) -> SearchPlan:
        """What :meth:`top` will do."""
        return self._planned(depth, _approximate(self._field), exact=self._exact, method=self._way)

    def _planned(self, depth: int, index: IndexCandidate | None = None, **how: Any) -> SearchPlan:
        """With an index, or without."""
        return plan_search(
            rows=len(self._field.vectors),
            matching=self._matching,
            depth=depth,
            costs=lambda: measure_row_costs(self._field, self._query),
            index=index,
            **how,
        )

    def top_items(self, depth: int) -> RankingResult:
        """The ``depth`` nearest items, or all of them where there are fewer.

        Where an index answers, the same questions to it fill the first hundred ranks, whatever depth is asked for;
        behind them stand all other items in exact order, those too that the index missed. So every page is part of
        one list.
        """
        plan = self.plan(depth)
        begin = time.perf_counter()
        found = self._by_index(depth) if plan.way is SearchMethod.INDEX else self._ranking(plan.way, depth)
        if self._instead:
            plan = replace(plan, way=self._instead, why="an index is there, but of what matches it yielded too few")
        return RankingResult(**vars(found.head(depth)), plan=plan, seconds=time.perf_counter() - begin)

    def _by_index(self, depth: int) -> Ranking:
        """Ranks filled by one question to the index after another, as far as they are needed, then exactly."""
        first, *others = approximate.RANK_TIERS
        found = self._ranking(SearchMethod.INDEX, first, min(depth, first))
        for ranks in others:
            if len(found.items) < depth and not found.is_complete:
                found = found.then(self._ranking(SearchMethod.INDEX, ranks, min(depth, ranks))).head(ranks)
        if len(found.items) < depth and not found.is_complete:
            found = found.then(self._ranking(self._planned(depth).way, depth))
        return found

    def _ranking(self, way: SearchMethod, depth: int, shown: int | None = None) -> Ranking:
        """At least ``depth`` items found in one way, or all of them; the first ``shown`` of them are put in order."""
        wanted, rounds, shown = depth + _SPARE, 0, shown or depth
        while True:
            rounds += 1
            near = self._proposed(wanted, 4 ** (rounds - 1)) if way is SearchMethod.INDEX and rounds <= _ASKED else None
            if near is None:
                if way is SearchMethod.INDEX:
                    way = self._instead = self._planned(depth).way
                near = self._nearest(way, wanted)
            cut = len(near[0]) == wanted  # what was left out may be as good as the last
            floor = float(near[0][-1]) if cut else -np.inf
            items, places, scores, count = self._sorted(near, shown)
            everything = way is not SearchMethod.INDEX and wanted >= self._matching
            if everything or (count >= depth and scores[shown - 1] > floor + SCORE_TOLERANCE):
                break
            if count < depth and self._chosen is None:
                self._rule_out_the_dead()
            wanted = 4 * wanted
        return Ranking(items, places, scores, everything, rounds).head(shown)

    def _nearest(self, way: SearchMethod, wanted: int) -> Scored:
        """The best rows of all, best first."""
        if way is SearchMethod.SCAN:
            return self._field.scanner.top_k(self._query, min(wanted, self._matching), mask=self._mask)
        chosen = self._chosen or self._rule_out_the_dead()
        return self._best(np.flatnonzero(chosen.row_mask), wanted)

    def _best(self, positions: NDArray[np.int64], wanted: int) -> Scored:
        """The best of the rows at some positions, read into one piece of memory after another."""
        return top_rows(self._field.vectors, positions, self._query, wanted, unit=self._field.space.space.unit)

    def _proposed(self, wanted: int, widen: int) -> Scored | None:
        """What the index proposes, looking ``widen`` times as far as usual, and the best rows it does not cover.

        None where it says that it might miss too many.
        """
        field = self._field
        assert field.index is not None  # noqa: S101 - the plan names an index only where there is one
        sidecar, covered = field.index.sidecar, field.covered_rows
        count = approximate.proposal_count(wanted, lossless=sidecar.lossless)
        near = self._asked(field.index, count, sidecar.probe * widen)
        if near is None:
            return None
        if not sidecar.lossless:
            near = self._best(np.sort(near[1]), wanted)
        if covered == len(field.vectors):
            return near
        outside = None if self._mask is None else self._mask[covered:]
        scores, beside = field.uncovered_scanner.top_k(self._query, wanted, mask=outside)
        return select_top_k(np.concatenate([near[0], scores]), np.concatenate([near[1], beside + covered]), wanted)

    def _asked(self, index: LoadedIndex, count: int, probe: int) -> Scored | None:
        """What the index alone proposes; None as above, also where all that matches has come since it was built."""
        only = self._chosen.index_filter if self._chosen else None
        if only is None or only.matching_share == 1:
            return approximate.propose_rows(index.faiss, self._query, count, probe=probe)
        if only.matching_share < approximate.min_matching_share(index.sidecar.kind):
            return None
        return approximate.propose_filtered_rows(index.faiss, self._query, count, probe=probe, row_filter=only)

    def _sorted(
        self, near: Scored, shown: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], int]:
        """The (matching) items at some rows in the one order, the first ``shown`` at least.

        Args:
            near: rows, best first, with scores that are right to EPS.

        Returns:
            ``(items, positions, exact scores)``, and how many items there are with those left out.
        """
        scores, positions = near
        items, which = self._items(positions)
        upto = int(which[shown + _CLOSE]) + 1 if len(which) > shown + _CLOSE else len(positions)
        while True:
            some = which[which < upto]
            exact = exact_scores(self._field.vectors, positions[:upto], self._query, unit=self._field.space.space.unit)
            exact, those = exact[some], items[: len(some)]
            order = np.lexsort((those, -exact))
            if upto == len(positions) or exact[order[shown - 1]] > scores[upto] + SCORE_TOLERANCE:
                return those[order], positions[some][order], exact[order], len(items)
            upto = len(positions)

    def _items(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``(items, which)``, ``which`` ascending: from memory if items and rows have met, else by SQL for these few.

        A look-up by SQL reads two columns of a table with a row a vector: 8 ms at a million. To let all of them meet
        costs forty times that, so it waits until a generation has been asked a few times.
        """
        self._field.lookup_count += 1
        entries = self._chosen.entry_mask if self._chosen else None
        if entries is not None or self._field.has_row_index or self._field.lookup_count > MAX_SQL_LOOKUPS:
            return self._field.row_index(self._con).items_at(positions, entries)
        shards, places = self._field.vectors.locate(positions)
        near = {"shard": shards, "place": places, "n": np.arange(len(positions))}  # noqa: F841 - read by SQL
        found = self._con.execute(
            "WITH c AS (SELECT v.content, near.n FROM vectors v JOIN near ON v.shard = near.shard "
            'AND v."row" = near.place WHERE v.space = ?) '
            "SELECT i.item, c.n FROM items i JOIN c ON i.content = c.content WHERE i.present ORDER BY c.n, i.item",
            [self._field.space.key],
        ).fetchnumpy()
        return np.asarray(found["item"], np.int64), np.asarray(found["n"], np.int64)

    def _rule_out_the_dead(self) -> Selection:
        """Leave out rows whose items are gone: they stood among the nearest, or every row is to be looked at."""
        self._chosen = self._field.present_selection(self._con)
        return self._chosen


def top_rows(
    vectors: VectorReader, positions: NDArray[np.int64], query: NDArray[np.float32], k: int, *, unit: bool
) -> Scored:
    """The k best of the rows at ascending positions: ``(scores float32, positions)``, best first, as a scan's."""
    scores, places = np.empty(0, np.float32), np.empty(0, np.int64)
    for begin in range(0, len(positions), _TAKEN):
        part = positions[begin : begin + _TAKEN]
        found, where = Scanner([vectors.read_stored(part)], unit=unit).top_k(query, k)
        scores, places = select_top_k(np.concatenate([scores, found]), np.concatenate([places, part[where]]), k)
    return scores, places


def exact_scores(
    vectors: VectorReader, positions: NDArray[np.int64], query: NDArray[np.float32], *, unit: bool
) -> NDArray[np.float64]:
    """Cosine of the query with rows, float64 ``(n,)``: the same number for a row whatever else is asked with it."""
    out = np.empty(len(positions), np.float64)
    q = query.astype(np.float64)
    for begin in range(0, len(positions), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        rows = vectors.read_stored(positions[part]).astype(np.float64)
        out[part] = (rows * q).sum(axis=1)
        if not unit:
            out[part] /= np.sqrt((rows * rows).sum(axis=1))
    return out


_costs: dict[tuple[int, str, bool], RowCosts] = {}


def measure_row_costs(space_snapshot: SpaceSnapshot, query: NDArray[np.float32]) -> RowCosts:
    """What scoring, skipping and gathering a row cost here, timed once a process on at most 16,384 rows."""
    key = (space_snapshot.vectors.dim, space_snapshot.space.dtype, space_snapshot.space.space.unit)
    if key not in _costs:
        if len(space_snapshot.vectors) < _SAMPLE // 4:
            return RowCosts(score=1e-6, skip=1e-8, gather=5e-6)  # too few to time: any way takes no time
        _costs[key] = _timed(space_snapshot, query)
    return _costs[key]


def _approximate(field: SpaceSnapshot) -> IndexCandidate | None:
    """What a plan wants to know of the index."""
    if field.index is None:
        return None
    sidecar = field.index.sidecar
    return IndexCandidate(field.covered_rows, sidecar.ms / 1000, approximate.min_matching_share(sidecar.kind))


def _timed(field: SpaceSnapshot, query: NDArray[np.float32]) -> RowCosts:
    """Time each kind of work, on the first files: to read more takes longer than a search."""
    some: list[NDArray[np.floating[Any]]] = []
    for rows in field.vectors.shard_arrays():
        some.append(rows[: _SAMPLE - sum(map(len, some))])
        if sum(map(len, some)) >= _SAMPLE:
            break
    sample = Scanner(some, unit=field.space.space.unit)
    one = np.zeros(sample.row_count, np.bool_)
    one[0] = True
    few = np.unique(np.random.default_rng(0).integers(0, min(len(field.vectors), 32 * _SAMPLE), _SAMPLE // 4))
    score = _fastest(lambda: sample.top_k(query, 10)) / sample.row_count
    skip = _fastest(lambda: sample.top_k(query, 10, mask=one)) / sample.row_count
    gather = _fastest(lambda: top_rows(field.vectors, few, query, 10, unit=field.space.space.unit)) / len(few)
    return RowCosts(score=score, skip=skip, gather=gather)


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the faster of three runs."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)

"""Items in the order of their scores, to any depth: candidates by the plan, then exact scores, then one order.

However candidates are found, every score that counts is computed in the same way (float64 sums over the stored rows),
and equal scores are ordered by ascending item. So the order does not depend on the method, and pages of one list fit
together.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedstore.search.candidates import CandidateSource
from embedstore.search.index import approximate
from embedstore.search.index.top_k import ScoredRows
from embedstore.search.options import SearchOptions
from embedstore.search.planner import SearchMethod, SearchPlan, plan_search
from embedstore.search.row_costs import measure_row_costs
from embedstore.search.row_index import Selection
from embedstore.search.row_scores import exact_scores
from embedstore.search.snapshot_cache import SearchView

SCORE_TOLERANCE = 1e-5  # a float32 sum of up to 4,096 products of unit vectors is off by about 2e-6
SPARE_CANDIDATES = 16  # beyond those wanted, so that rounding rarely costs another round
_SPARE_SCORES = 4  # rows scored exactly beyond those shown, for the same reason
_MAX_INDEX_ROUNDS = 2  # the second time for more; then every row is scored


@dataclass(frozen=True)
class Ranking:
    """Items in one order.

    Attributes:
        items: int64 ``(n,)`` ids.
        positions: int64 ``(n,)`` of their rows.
        scores: float64 ``(n,)``.
        is_complete: whether nothing else matches.
        rounds: how often candidates were collected.
    """

    items: NDArray[np.int64]
    positions: NDArray[np.int64]
    scores: NDArray[np.float64]
    is_complete: bool
    rounds: int

    def head(self, depth: int) -> Ranking:
        """Return the first ``depth`` items."""
        whole = self.is_complete and len(self.items) <= depth
        return Ranking(self.items[:depth], self.positions[:depth], self.scores[:depth], whole, self.rounds)

    def extended_with(self, other: Ranking) -> Ranking:
        """Return these items, followed by the other items of another ranking in its order."""
        new = ~np.isin(other.items, self.items)
        return Ranking(
            np.concatenate([self.items, other.items[new]]),
            np.concatenate([self.positions, other.positions[new]]),
            np.concatenate([self.scores, other.scores[new]]),
            other.is_complete,
            self.rounds + other.rounds,
        )


_NO_ITEMS = Ranking(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64), is_complete=False, rounds=0)


class _Step(NamedTuple):
    """A ranking, the method that gave it, and the rows it considered."""

    ranking: Ranking
    method: SearchMethod
    source: CandidateSource


@dataclass(frozen=True)
class ItemOrder:
    """Orders the items of candidate rows by their exact scores.

    Attributes:
        view: what the search sees.
        query: float32 ``(D,)`` of length 1.
    """

    view: SearchView
    query: NDArray[np.float32]

    def sort(self, near: ScoredRows, selection: Selection | None, shown: int) -> tuple[Ranking, int]:
        """Return the (selected) items at some rows, at least the first ``shown`` in order.

        Args:
            near: rows, best first, with scores that are right to ``SCORE_TOLERANCE``.
            selection: only items of this selection.
            shown: items that need exact scores.

        Returns:
            The ordered items, and how many items are at these rows in all.
        """
        scores, positions = near
        items, which = self.view.items_at(positions, selection)
        end = int(which[shown + _SPARE_SCORES]) + 1 if len(which) > shown + _SPARE_SCORES else len(positions)
        while True:
            ranking = self._sort_exactly(positions[:end], items, which[which < end])
            if end == len(positions) or ranking.scores[shown - 1] > scores[end] + SCORE_TOLERANCE:
                return ranking, len(items)
            end = len(positions)

    def _sort_exactly(
        self, positions: NDArray[np.int64], items: NDArray[np.int64], which: NDArray[np.int64]
    ) -> Ranking:
        """Return the items at some rows by descending exact score, then ascending id."""
        snapshot = self.view.snapshot
        scores = exact_scores(snapshot.vectors, positions, self.query, unit=snapshot.unit)[which]
        items = items[: len(which)]
        order = np.lexsort((items, -scores))
        return Ranking(items[order], positions[which][order], scores[order], is_complete=False, rounds=0)


@dataclass(frozen=True)
class Ranker:
    """Ranks the items of one view for one query.

    Attributes:
        view: what the search sees.
        query: float32 ``(D,)`` of length 1.
        options: the options of the search.
        scanned: the best rows where they were scanned for many queries at once.
    """

    view: SearchView
    query: NDArray[np.float32]
    options: SearchOptions
    scanned: ScoredRows | None = None

    @property
    def source(self) -> CandidateSource:
        """The rows that may be hits."""
        return CandidateSource(self.view.snapshot, self.query, self.view.selection, self.scanned)

    def rank(self, depth: int) -> tuple[Ranking, SearchPlan]:
        """Return the ``depth`` nearest items, or all of them where there are fewer, and how they were found.

        Where an index answers, it is queried in the same way for the first hundred ranks, whatever the depth; behind
        them come all other items in exact order, including those that the index missed. So every page is part of one
        list.
        """
        source = self.source
        plan = self._plan(source, depth)
        begin = time.perf_counter()
        if plan.method is SearchMethod.INDEX:
            ranking, method = self._rank_by_index(source, depth)
        else:
            ranking, method, _ = self._collect(source, plan.method, depth, depth)
        milliseconds = 1000 * (time.perf_counter() - begin)
        if method is not plan.method:
            reason = "the space has an index, but it yielded too few of the rows that match"
            plan = replace(plan, method=method, reason=reason)
        return ranking.head(depth), replace(plan, rounds=ranking.rounds, score_ms=round(milliseconds, 3))

    def uses_index(self, depth: int) -> bool:
        """Return whether an index would propose the candidates of so many items."""
        return self._plan(self.source, depth).method is SearchMethod.INDEX

    def _plan(self, source: CandidateSource, depth: int, *, with_index: bool = True) -> SearchPlan:
        """Choose how to answer; without the index, by the cheaper exact method."""
        return plan_search(
            rows=len(source.snapshot.vectors),
            matching=source.matching,
            depth=depth,
            costs=partial(measure_row_costs, source.snapshot, self.query),
            index=source.index_candidate if with_index else None,
            exact=self.options.needs_exact_ranking,
            method=self.options.method if with_index else None,
        )

    def _rank_by_index(self, source: CandidateSource, depth: int) -> tuple[Ranking, SearchMethod]:
        """Fill the ranks of one tier after another from the index, as far as they are needed, then exactly.

        Returns:
            The ranking, and the exact method that filled a tier in the index's place, or ``INDEX``.
        """
        ranking, method = _NO_ITEMS, SearchMethod.INDEX
        for tier in approximate.RANK_TIERS:
            if len(ranking.items) < depth and not ranking.is_complete:
                step = self._collect(source, SearchMethod.INDEX, tier, min(depth, tier))
                ranking, source = ranking.extended_with(step.ranking).head(tier), step.source
                method = method if step.method is SearchMethod.INDEX else step.method
        if len(ranking.items) < depth and not ranking.is_complete:
            step = self._collect(source, self._plan(source, depth, with_index=False).method, depth, depth)
            ranking = ranking.extended_with(step.ranking)
        return ranking, method

    def _collect(self, source: CandidateSource, method: SearchMethod, depth: int, shown: int) -> _Step:
        """Find at least ``depth`` items by one method, or all of them, and order the first ``shown``.

        Candidates are widened until the items shown are certain to be the best. Rows without a present item are
        excluded once they turn out to be among the candidates.
        """
        order, wanted, rounds = ItemOrder(self.view, self.query), depth + SPARE_CANDIDATES, 0
        while True:
            rounds += 1
            by_index = method is SearchMethod.INDEX
            near = source.propose(wanted, 4 ** (rounds - 1)) if by_index and rounds <= _MAX_INDEX_ROUNDS else None
            if near is None:
                method = self._plan(source, depth, with_index=False).method if by_index else method
                if method is SearchMethod.GATHER and source.selection is None:
                    source = source.restrict(self.view.select_present())
                near = source.nearest(method, wanted)
            ranking, count = order.sort(near, source.selection, shown)
            is_complete = method is not SearchMethod.INDEX and wanted >= source.matching
            # rows left out of a full list of candidates may be as good as the last candidate
            floor = float(near[0][-1]) if len(near[0]) == wanted else -np.inf
            if is_complete or (count >= depth and ranking.scores[shown - 1] > floor + SCORE_TOLERANCE):
                return _Step(replace(ranking, is_complete=is_complete, rounds=rounds).head(shown), method, source)
            if count < depth and source.selection is None:
                source = source.restrict(self.view.select_present())
            wanted *= 4

"""Two rankings as one: by vectors, and by the words of a column, joined by reciprocal rank fusion.

An item's score is the sum of 1 / (60 + rank) over both rankings (Cormack, Clarke and Buettcher 2009). A rank counts up
to 1,000; behind them come all other items in the order of their vectors. So every page is part of one list, and if k
items match, k come back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedstore.search.options import Words
from embedstore.search.planner import SearchPlan
from embedstore.search.ranker import Ranker, Ranking
from embedstore.search.snapshot_cache import SearchView
from embedstore.search.words import WordIndex
from embedstore.wording import counted

FUSION_CONSTANT = 60  # of the paper
COUNTED_RANKS = 1000  # of each ranking


@dataclass(frozen=True)
class HybridRanker:
    """Ranks the items of one view by vectors and words.

    Attributes:
        view: what the search sees, with its catalog open.
        by_vectors: ranks by vectors alone.
        index: the index of the words of the column.
        words: what is looked for.
    """

    view: SearchView
    by_vectors: Ranker
    index: WordIndex
    words: Words

    def rank(self, depth: int) -> tuple[Ranking, SearchPlan]:
        """Return the first ``depth`` items of the joined list, or all of them, and how they were found.

        The scores are those of the fusion; equal ones are in the order of the vectors.
        """
        near, plan = self.by_vectors.rank(max(depth, COUNTED_RANKS))
        lexical = self.index.rank(self.words.text, self._allowed(), COUNTED_RANKS)
        items, scores = fuse(near.items, lexical)
        reason = f"{plan.reason}; joined with {counted(len(lexical), 'item')} by the words of {self.words.column}"
        ranking = Ranking(items, self._positions(items), scores, near.is_complete, near.rounds)
        return ranking.head(depth), replace(plan, reason=reason)

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know about the words."""
        unknown = self.index.unknown_words(self.words.text)
        if not unknown:
            return ()
        listed = ", ".join(repr(word) for word in unknown[:5]) + (" and others" if len(unknown) > 5 else "")
        return (f"no text of {self.words.column} has {listed}",)

    def _allowed(self) -> NDArray[np.bool_]:
        """Return which items of the index have a vector and match the filter: bool ``(n,)``."""
        rows = self.view.cache.require_row_index(self.view.con)
        mask = self.view.selection.entry_mask if self.view.selection else None
        return np.isin(self.index.items, rows.items if mask is None else rows.items[mask])

    def _positions(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of items among the rows of the space."""
        rows = self.view.cache.require_row_index(self.view.con)
        return rows.positions[rows.entry_by_item[items]]


def fuse(near: NDArray[np.int64], lexical: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Join two rankings.

    Args:
        near: int64 ``(n,)`` items by vectors, best first; all of them, or more than are shown.
        lexical: int64 ``(m,)`` items by words, best first; at most :data:`COUNTED_RANKS`.

    Returns:
        Every item of both, best first, and its score, float64. Equal scores are in the order of the vectors, which
        names every item but those of the words alone, whose scores differ.
    """
    items = np.union1d(near, lexical)
    scores = np.zeros(len(items))
    counted = near[:COUNTED_RANKS]
    scores[np.searchsorted(items, counted)] += _contributions(len(counted))
    scores[np.searchsorted(items, lexical)] += _contributions(len(lexical))
    at = np.searchsorted(items, near)
    beyond = scores[at] == 0
    scores[at[beyond]] = _contributions(len(near))[beyond]
    places = np.full(len(items), len(near))
    places[at] = np.arange(len(near))
    order = np.lexsort((places, -scores))
    return items[order], scores[order]


def _contributions(count: int) -> NDArray[np.float64]:
    """Return what each rank from 1 contributes: float64 ``(count,)``."""
    return 1.0 / (FUSION_CONSTANT + np.arange(1, count + 1, dtype=np.float64))

"""The options of a search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.search.planner import SearchMethod

MAX_HITS = 100_000  # hits of one query; export serves larger results


@dataclass(frozen=True)
class Words:
    """What a hybrid search looks for besides the vector.

    Attributes:
        text: the words.
        column: the column of the items that has them.
    """

    text: str
    column: str


@dataclass(frozen=True)
class SearchOptions:
    """Everything about a search but its query.

    Attributes:
        k: number of hits, 1 to 100,000; None returns every item that reaches ``min_score``.
        offset: number of hits to skip at the front.
        where: only items that match this filter.
        min_score: least cosine similarity of a hit.
        group_by: return one hit, the best, per value of this column of the items; items without a value are not
            grouped. ``content`` returns one hit per content.
        diversity: 0 ranks by score alone; towards 1, hits resemble each other less (maximal marginal relevance,
            Carbonell and Goldstein 1998, with lambda = 1 - diversity).
        exact: never use an approximate index.
        method: use this method where it is possible; None chooses.
        within: only items with these ids: int64 ``(n,)``, ascending, each once.
        words: join the ranking by vectors with one by these words.
    """

    k: int | None = 10
    offset: int = 0
    where: str | None = None
    min_score: float | None = None
    group_by: str | None = None
    diversity: float = 0.0
    exact: bool = False
    method: SearchMethod | None = None
    within: NDArray[np.int64] | None = None
    words: Words | None = None

    def __post_init__(self) -> None:
        if self.k is None and self.min_score is None:
            raise QueryError("a search without k needs min_score, the least score of a hit")
        if self.k is not None and not 1 <= self.k <= MAX_HITS:
            raise QueryError(
                f"k must be between 1 and {MAX_HITS:,}, not {self.k}; `embedstore export STORE FOLDER` writes "
                "everything"
            )
        if not 0 <= self.offset <= MAX_HITS:
            raise QueryError(f"offset must be between 0 and {MAX_HITS:,}, not {self.offset}")
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise QueryError(f"min_score is a cosine similarity between -1 and 1, not {self.min_score}")
        if not 0 <= self.diversity <= 1:
            raise QueryError(f"diversity is between 0 and 1, not {self.diversity}")
        if self.words is not None and (self.min_score is not None or self.diversity > 0):
            raise QueryError(
                "a hybrid search ranks by places, not by similarity; leave out min_score and diversity, or hybrid"
            )

    @property
    def needs_exact_ranking(self) -> bool:
        """Whether no item may be missed: every item above a score is wanted, or diversity chooses among very many."""
        return self.exact or self.k is None or self.diversity > 0

    @property
    def needs_catalog(self) -> bool:
        """Whether columns are read that hits do not show."""
        return self.group_by is not None or self.words is not None

    @property
    def end(self) -> int:
        """How many hits are ranked, with those that ``offset`` skips."""
        return MAX_HITS if self.k is None else self.offset + self.k

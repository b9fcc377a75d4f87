"""Choose how to answer a query, from numbers alone.

``gather``: read the matching rows one by one. ``scan``: score all rows, skipping those that do not match.
``index``: let an approximate index propose rows, and score these and the rows added since exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from embedstore.search.index.approximate import RANK_TIERS


class SearchMethod(StrEnum):
    """Where candidate rows come from."""

    GATHER = "gather"
    SCAN = "scan"
    INDEX = "index"


@dataclass(frozen=True)
class RowCosts:
    """Seconds per row, measured on this machine with the rows of the space.

    Attributes:
        score: the time to score a row in storage order.
        skip: the time to skip a row that a mask excludes.
        gather: the time to read and score a row out of order.
    """

    score: float
    skip: float
    gather: float


@dataclass(frozen=True)
class IndexCandidate:
    """The index that a query could use.

    Attributes:
        covered_rows: rows in the index.
        seconds: the duration of one query without a filter, measured at the build.
        min_matching_share: least share of the rows that must match.
    """

    covered_rows: int
    seconds: float
    min_matching_share: float


@dataclass(frozen=True)
class SearchPlan:
    """How a query is answered, and at what cost.

    Attributes:
        method: the method used.
        rows: vectors of the space.
        matching: rows that may be hits.
        depth: items ranked, offset and k together.
        covered_rows: rows in the index.
        estimated_ms: estimated milliseconds of each method that was considered.
        reason: one sentence.
        rounds: how often candidates were collected; 0 before the search.
        filter_ms: milliseconds to open the snapshot and evaluate the filter.
        score_ms: milliseconds to rank.
        total_ms: milliseconds of the whole search.
    """

    method: SearchMethod
    rows: int
    matching: int
    depth: int
    covered_rows: int
    estimated_ms: dict[str, float]
    reason: str
    rounds: int = 0
    filter_ms: float = 0.0
    score_ms: float = 0.0
    total_ms: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the mapping that ``search --explain`` prints."""
        return {
            "way": self.method.value, "rows": self.rows, "matching": self.matching, "depth": self.depth,
            "covered": self.covered_rows, "estimates": self.estimated_ms, "why": self.reason, "rounds": self.rounds,
            "filter_ms": self.filter_ms, "score_ms": self.score_ms, "total_ms": self.total_ms,
        }  # fmt: skip


def plan_search(
    *,
    rows: int,
    matching: int,
    depth: int,
    costs: Callable[[], RowCosts],
    index: IndexCandidate | None = None,
    exact: bool = False,
    method: SearchMethod | None = None,
) -> SearchPlan:
    """Choose the index where there is one and it may be used, else the cheaper exact method.

    The exact methods give the same hits. An index may give others, so its use never depends on a timing: pages that
    different processes request are parts of one list.

    Args:
        rows: vectors of the space.
        matching: rows that may be hits.
        depth: items ranked.
        costs: measures this machine; called only for an exact method, since measuring takes longer than an index.
        index: the index, or None.
        exact: do not use the index.
        method: use this method where it is possible.
    """
    obstacle = _index_obstacle(index, matching / max(1, rows), exact=exact)
    covered = index.covered_rows if index else 0
    if index and obstacle is None and method in (None, SearchMethod.INDEX):
        estimates = {SearchMethod.INDEX.value: round(index.seconds * rows / max(1, matching) * 1000, 3)}
        reason = _requested(method) if method else _index_reason(depth)
        return SearchPlan(SearchMethod.INDEX, rows, matching, depth, covered, estimates, reason)
    row_costs = costs()
    seconds = {
        SearchMethod.SCAN: (rows - matching) * row_costs.skip + matching * row_costs.score,
        SearchMethod.GATHER: matching * row_costs.gather,
    }
    estimates = {m.value: round(s * 1000, 3) for m, s in seconds.items()}
    if method in seconds:
        return SearchPlan(method, rows, matching, depth, covered, estimates, _requested(method))
    cheapest = min(seconds, key=lambda m: seconds[m])
    reason = f"{cheapest} is the cheaper of scan and gather ({obstacle})"
    return SearchPlan(cheapest, rows, matching, depth, covered, estimates, reason)


def _requested(method: SearchMethod) -> str:
    """Return the reason of a method that the caller chose."""
    return f"{method} was requested"


def _index_reason(depth: int) -> str:
    """Return the reason to use an index, and which ranks it fills."""
    beyond = f"; ranks beyond {RANK_TIERS[-1]} are exact" if depth > RANK_TIERS[-1] else ""
    return f"the space has an index{beyond}"


def _index_obstacle(index: IndexCandidate | None, matching_share: float, *, exact: bool) -> str | None:
    """Return why an index cannot be used, or None."""
    if index is None:
        return "no index"
    if exact:
        return "exact ranking was requested"
    if matching_share < index.min_matching_share:
        return f"under {index.min_matching_share:.0%} of the rows match, so an index would miss too many"
    return None

"""How a query will be answered, decided from numbers alone.

``gather``: read the matching rows one by one. ``scan``: go through all rows, skipping those that do not match.
``index``: ask an approximate index, and score exactly what it proposes and the rows added since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from embedstore.search.index.approximate import RANK_TIERS


class SearchMethod(StrEnum):
    """Where candidates come from."""

    GATHER = "gather"
    SCAN = "scan"
    INDEX = "index"


@dataclass(frozen=True)
class RowCosts:
    """Seconds, measured on this machine with this space's rows.

    Attributes:
        score: of one row, in order. skip: ... that a mask rules out. gather: ... read out of order.
    """

    score: float
    skip: float
    gather: float


@dataclass(frozen=True)
class IndexCandidate:
    """The index that might be asked.

    Attributes:
        covered: rows in it. least: share of the rows that must match.
        seconds: of one query without a filter, as measured when it was built.
    """

    covered_rows: int
    seconds: float
    min_matching_share: float


@dataclass(frozen=True)
class SearchPlan:
    """What will be done, and what else could have been.

    Attributes:
        way: the cheapest. rows: vectors of the space. matching: those that may be hits.
        depth: items ranked (offset and k together). covered: rows in the index.
        estimates: milliseconds by way, of those that were weighed.
        why: one sentence.
    """

    way: SearchMethod
    rows: int
    matching: int
    depth: int
    covered: int
    estimates: dict[str, float]
    why: str


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
    """The index where there is one and it may be asked, else the cheaper exact way.

    Which of the exact ways answers changes no hit. Whether an index does may, so that never depends on a timing:
    pages that different processes ask for are parts of one list.

    Args:
        rows: vectors of the space. matching: those that may be hits. depth: items ranked.
        costs: of this machine, asked for only where an exact way is taken: to time them takes longer than an index.
        index: None where there is none.
        exact: the index may not be asked.
        forced: this way, where it is possible.
    """
    covered = index.covered_rows if index else 0
    why = _barred(matching / max(1, rows), index.min_matching_share, exact) if index else "no index"
    if index and why is None and method in (None, SearchMethod.INDEX):
        estimates = {SearchMethod.INDEX.value: round(index.seconds * rows / max(1, matching) * 1000, 3)}
        why = f"{method} was asked for" if method else f"an index is there{_and(depth)}"
        return SearchPlan(SearchMethod.INDEX, rows, matching, depth, covered, estimates, why)
    known = costs()
    seconds = {
        SearchMethod.SCAN: (rows - matching) * known.skip + matching * known.score,
        SearchMethod.GATHER: matching * known.gather,
    }
    estimates = {w.value: round(s * 1000, 3) for w, s in seconds.items()}
    if method in seconds:
        return SearchPlan(method, rows, matching, depth, covered, estimates, f"{method} was asked for")
    way = min(seconds, key=lambda w: seconds[w])
    return SearchPlan(
        way, rows, matching, depth, covered, estimates, f"{way} is the cheaper of scan and gather ({why})"
    )


def _and(depth: int) -> str:
    """What comes behind the ranks of an index."""
    return f"; ranks beyond {RANK_TIERS[-1]} are exact" if depth > RANK_TIERS[-1] else ""


def _barred(share: float, least: float, exact: bool) -> str | None:
    """Why the index may not be asked, or None."""
    if exact:
        return "an exact list was asked for"
    if share < least:
        return f"under {least:.0%} of the rows match, and an index would miss too many"
    return None

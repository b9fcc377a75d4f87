"""Candidate rows of one query: from a scan, from gathered rows, or proposed by an index."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index import approximate
from embedstore.search.index.files import LoadedIndex
from embedstore.search.index.top_k import ScoredRows, merge_top_k
from embedstore.search.planner import IndexCandidate, SearchMethod
from embedstore.search.row_index import Selection
from embedstore.search.row_scores import gather_top_k
from embedstore.search.snapshot import SpaceSnapshot


@dataclass(frozen=True)
class CandidateSource:
    """The rows that may be hits of one query.

    Attributes:
        snapshot: the space.
        query: float32 ``(D,)`` of length 1.
        selection: the rows that may be hits; None for all.
        scanned: the best of these rows where they were scanned for many queries at once, with scores that are right
            to 1e-5, best first; None where they were not.
    """

    snapshot: SpaceSnapshot
    query: NDArray[np.float32]
    selection: Selection | None
    scanned: ScoredRows | None = None

    @property
    def matching(self) -> int:
        """How many rows may be hits."""
        return self.selection.row_count if self.selection else len(self.snapshot.vectors)

    @property
    def index_candidate(self) -> IndexCandidate | None:
        """What the planner needs to know of the index; None without one."""
        if self.snapshot.index is None:
            return None
        sidecar = self.snapshot.index.sidecar
        share = approximate.min_matching_share(sidecar.kind)
        return IndexCandidate(self.snapshot.covered_rows, sidecar.ms / 1000, share)

    def restrict(self, selection: Selection) -> CandidateSource:
        """Return the same query over other rows."""
        return replace(self, selection=selection, scanned=None)

    def nearest(self, method: SearchMethod, count: int) -> ScoredRows:
        """Return the best rows of all that may be hits, by scan or gather.

        Args:
            method: ``SCAN`` or ``GATHER``; gathering needs a selection.
            count: rows wanted.

        Returns:
            ``(scores float32 (n,), positions int64 (n,))``, best first, right to 1e-5.
        """
        if self.scanned is not None and len(self.scanned[0]) >= min(count, self.matching):
            scores, positions = self.scanned
            return scores[:count], positions[:count]
        if method is SearchMethod.GATHER and self.selection is not None:
            return self._gather(np.flatnonzero(self.selection.row_mask), count)
        row_mask = self.selection.row_mask if self.selection else None
        return self.snapshot.scanner.top_k(self.query, min(count, self.matching), mask=row_mask)

    def propose(self, count: int, widening: int) -> ScoredRows | None:
        """Return what the index proposes, merged with the best rows that it does not cover.

        Args:
            count: rows wanted.
            widening: how many times as far as usual the index looks.

        Returns:
            As :meth:`nearest`; None where there is no index or it might miss too many.
        """
        index = self.snapshot.index
        proposed = self._from_index(index, count, widening) if index else None
        if index is None or proposed is None:
            return None
        if not index.sidecar.lossless:
            proposed = self._gather(np.sort(proposed[1]), count)
        covered = self.snapshot.covered_rows
        if covered == len(self.snapshot.vectors):
            return proposed
        uncovered_mask = self.selection.row_mask[covered:] if self.selection else None
        scores, rows = self.snapshot.uncovered_scanner.top_k(self.query, count, mask=uncovered_mask)
        return merge_top_k([proposed, (scores, rows + covered)], count)

    def _from_index(self, index: LoadedIndex, count: int, widening: int) -> ScoredRows | None:
        """Return what the index alone proposes; None where too few of the rows that it covers match."""
        sidecar = index.sidecar
        count = approximate.proposal_count(count, lossless=sidecar.lossless)
        probe = sidecar.probe * widening
        row_filter = self.selection.index_filter if self.selection else None
        if row_filter is None or row_filter.matching_share == 1:
            return approximate.propose_rows(index.faiss, self.query, count, probe=probe)
        if row_filter.matching_share < approximate.min_matching_share(sidecar.kind):
            return None
        return approximate.propose_filtered_rows(index.faiss, self.query, count, probe=probe, row_filter=row_filter)

    def _gather(self, positions: NDArray[np.int64], count: int) -> ScoredRows:
        """Return the best of the rows at ascending positions."""
        return gather_top_k(self.snapshot.vectors, positions, self.query, count, unit=self.snapshot.unit)

"""Measure the recall of an index against exact search, and tune its probe to a target."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.search.index import approximate
from embedstore.search.index.approximate import IndexSettings
from embedstore.search.index.faiss_library import faiss
from embedstore.storage.vectors import VectorReader

RECALL_QUERIES = 200  # held-out rows: the standard error of a recall of 0.95 is under 0.5%
_NEAREST = 10  # rows of each query that an index should find
_TIE_TOLERANCE = 1e-6  # two orders of summation give cosines of equal rows that differ by this much


class ProbeTuning(NamedTuple):
    """A probe and what was measured with it.

    Attributes:
        probe: efSearch or nprobe.
        recall: recall at 10.
        milliseconds: the duration of one query.
    """

    probe: int
    recall: float
    milliseconds: float


@dataclass(frozen=True)
class GroundTruth:
    """Held-out queries, and what their ten nearest other rows score.

    A proposed row is a hit if it scores as high as the tenth nearest: of rows that tie, any may be proposed.

    Attributes:
        vectors: the space.
        held_out: int64 ``(n,)`` positions of the queries.
        queries: float32 ``(n, D)`` unit rows of the space.
        wanted: int64 ``(n,)``: ten, or as many other rows as there are.
        least_scores: float32 ``(n,)``, the cosine of the last wanted row.
    """

    vectors: VectorReader
    held_out: NDArray[np.int64]
    queries: NDArray[np.float32]
    wanted: NDArray[np.int64]
    least_scores: NDArray[np.float32]

    @classmethod
    def compute(cls, vectors: VectorReader, held_out: NDArray[np.int64]) -> GroundTruth:
        """Search for all held-out rows at once, block by block.

        Args:
            vectors: the space.
            held_out: int64 ``(n,)`` positions of the queries, ascending.
        """
        queries = unit_rows(vectors.read_float32(held_out))
        scores = np.full((len(queries), _NEAREST + 1), -np.inf, np.float32)
        places = np.full(scores.shape, -1, np.int64)
        for first, rows in vectors.iter_blocks():
            block_scores, block_rows = faiss().knn(
                queries, unit_rows(rows), _NEAREST + 1, metric=faiss().METRIC_INNER_PRODUCT
            )
            block_scores[block_rows < 0] = -np.inf
            all_scores = np.hstack([scores, block_scores])
            all_places = np.hstack([places, np.where(block_rows < 0, -1, block_rows + first)])
            best = np.argsort(-all_scores, axis=1, kind="stable")[:, : _NEAREST + 1]
            scores, places = (np.take_along_axis(a, best, axis=1) for a in (all_scores, all_places))
        is_other = (places >= 0) & (places != held_out[:, None])
        wanted = np.minimum(is_other.sum(axis=1), _NEAREST)
        nearest = -np.sort(-np.where(is_other, scores, -np.inf), axis=1)
        least_scores = nearest[np.arange(len(queries)), np.maximum(wanted, 1) - 1]
        return cls(vectors, held_out, queries, wanted, least_scores)

    def tune(self, index: Any, settings: IndexSettings, target: float) -> ProbeTuning:
        """Return the cheapest probe that reaches a recall, else the largest.

        Args:
            index: the FAISS index, filled.
            settings: the settings of the index.
            target: recall at 10.
        """
        count = approximate.proposal_count(approximate.RANK_TIERS[0], lossless=settings.lossless)
        tuning = ProbeTuning(0, 0.0, 0.0)
        for probe in settings.probes:
            begin = time.perf_counter()
            proposed = [approximate.propose_rows(index, q, count, probe=probe)[1] for q in self.queries]
            milliseconds = 1000 * (time.perf_counter() - begin) / len(proposed)
            tuning = ProbeTuning(probe, self._recall(proposed), milliseconds)
            if tuning.recall >= target:
                break
        return tuning

    def _recall(self, proposed: list[NDArray[np.int64]]) -> float:
        """Return the share of the wanted rows that were proposed."""
        if not self.wanted.any():
            return 1.0
        hits = sum(
            min(int(wanted), self._hits(query, rows[rows != own], least))
            for query, rows, own, wanted, least in zip(
                self.queries, proposed, self.held_out, self.wanted, self.least_scores, strict=True
            )
        )
        return hits / int(self.wanted.sum())

    def _hits(self, query: NDArray[np.float32], rows: NDArray[np.int64], least_score: np.float32) -> int:
        """Return how many rows score at least as high as the last wanted one."""
        exact = unit_rows(self.vectors.read_float32(np.sort(rows))) @ query
        return int((exact >= least_score - _TIE_TOLERANCE).sum())

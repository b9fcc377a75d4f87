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


class ProbeTuning(NamedTuple):
    """A probe and what was measured with it.

    Attributes:
        probe: efSearch or nprobe.
        recall: recall at 10.
        milliseconds: of one query.
    """

    probe: int
    recall: float
    milliseconds: float


@dataclass(frozen=True)
class GroundTruth:
    """Held-out queries and their nearest rows.

    Attributes:
        queries: float32 ``(n, D)`` unit rows of the space.
        nearest: the positions of the ten nearest other rows of each.
    """

    queries: NDArray[np.float32]
    nearest: list[set[int]]

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
        nearest = [
            set([p for p in row if p not in (own, -1)][:_NEAREST])
            for row, own in zip(places.tolist(), held_out.tolist(), strict=True)
        ]
        return cls(queries, nearest)

    def tune(self, index: Any, settings: IndexSettings, target: float) -> ProbeTuning:
        """Return the cheapest probe that reaches a recall, else the largest.

        Args:
            index: of FAISS, filled.
            settings: of the index.
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
        """Return the share of the nearest rows that were proposed."""
        if not any(self.nearest):
            return 1.0
        hits = sum(len(near & set(rows.tolist())) for near, rows in zip(self.nearest, proposed, strict=True))
        return hits / sum(len(near) for near in self.nearest)

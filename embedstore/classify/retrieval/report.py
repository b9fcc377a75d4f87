"""The result of a retrieval evaluation: a table with one row per direction and metric."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from embedstore.classify.evaluation.leaks import LeakedScore
from embedstore.classify.evaluation.slice_report import SliceReport
from embedstore.classify.metrics import MetricEstimate
from embedstore.tables import Record, Table


@dataclass(frozen=True)
class RetrievalDirection:
    """One kind of queries against one gallery.

    Attributes:
        name: such as ``text to image``.
        n_queries: queries whose figures are averaged.
        n_without_relevant: queries without a relevant item in the gallery; they are in no figure.
        n_groups: groups of the averaged queries; a group is one draw in every interval.
        n_gallery: items that can be found.
        n_excluded: pairs of a query and a gallery item that are not compared, because they are copies of each other or
            share a group.
        scores: the mean of each metric with its 95% interval.
        slices: R@1 by the values of a column; None without one.
        leak: R@1 of the queries with and without a near-duplicate in the gallery; None if none has one, or each item
            queries in turn.
    """

    name: str
    n_queries: int
    n_without_relevant: int
    n_groups: int
    n_gallery: int
    n_excluded: int
    scores: dict[str, MetricEstimate]
    slices: SliceReport | None = None
    leak: LeakedScore | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {
            "slices": self.slices.to_json() if self.slices else None,
            "leak": self.leak and self.leak.to_json(),
        }


@dataclass(frozen=True)
class RetrievalReport(Table):
    """How well the vectors of a space retrieve; as a table, one row per direction and metric.

    Attributes:
        relevance: what makes an item relevant, in words.
        space: name of the space.
        queries: the split that queries, or ``each item in turn``.
        directions: one, or for captions both.
        n_unlabeled: items left out because they have no label, or no caption.
        near_duplicate_thresholds: the cosine from which two items were one group, by space; empty where nothing was
            searched for.
        notes: what a person should know about the labels or texts, one sentence each.
        seconds: the duration of the evaluation.
    """

    relevance: str
    space: str
    queries: str
    directions: tuple[RetrievalDirection, ...]
    n_unlabeled: int
    near_duplicate_thresholds: dict[str, float]
    notes: tuple[str, ...]
    seconds: float

    def __getitem__(self, name: str) -> RetrievalDirection:
        """Return a direction by its name."""
        return next(d for d in self.directions if d.name == name)

    def records(self) -> list[Record]:
        """Return one mapping per direction and metric."""
        return [
            {"direction": d.name, "metric": m, "value": s.value, "low": s.low, "high": s.high, "queries": d.n_queries}
            for d in self.directions
            for m, s in d.scores.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "relevance": self.relevance,
            "space": self.space,
            "queries": self.queries,
            "directions": [d.to_json() for d in self.directions],
            "unlabelled": self.n_unlabeled,
            "near_duplicate_thresholds": self.near_duplicate_thresholds,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

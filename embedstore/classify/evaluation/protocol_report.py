"""What a published protocol tried, what it selected, and on which items."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from embedstore.classify.metrics import MetricEstimate
from embedstore.tables import Record, Table


@dataclass(frozen=True, slots=True)
class ProtocolCandidate:
    """One value that was tried.

    Attributes:
        value: the value of C, or of k.
        choice_accuracy: accuracy on the items that select; None where they do not select.
        accuracy: accuracy on the held-out items, with its 95% interval; None where only the selected value has one.
        top5_accuracy: likewise the share of items whose label is among the five first.
    """

    value: float
    choice_accuracy: float | None
    accuracy: MetricEstimate | None = None
    top5_accuracy: MetricEstimate | None = None


@dataclass(frozen=True)
class ProtocolReport(Table):
    """A protocol by its name, as it ran; as a table, one row per value that was tried.

    Attributes:
        name: the protocol, such as ``dinov2``.
        parameter: ``C`` or ``k``.
        selected: the value of the evaluated head.
        chosen_on: the items that selected it, in words.
        n_choice: how many items these are.
        n_fitted: the items that the candidates were fitted on, before the refit.
        n_trained: the items that the evaluated head was fitted on.
        candidates: every value that was tried, ascending.
        source: where the protocol is published.
        notes: what differs from the published procedure, one sentence each.
        mean_accuracy: the mean held-out accuracy of the candidates, where that is the figure of the protocol: they are
            draws, and none is selected.
    """

    name: str
    parameter: str
    selected: float
    chosen_on: str
    n_choice: int
    n_fitted: int
    n_trained: int
    candidates: tuple[ProtocolCandidate, ...]
    source: str
    notes: tuple[str, ...] = ()
    mean_accuracy: float | None = None

    @property
    def best_on_held_out(self) -> ProtocolCandidate | None:
        """Return the candidate with the highest held-out accuracy; None where only the selected value has one.

        It is picked on the held-out items themselves, and so no honest estimate. None where the mean counts.
        """
        if self.mean_accuracy is not None:
            return None
        evaluated = [c for c in self.candidates if c.accuracy is not None]
        return max(evaluated, key=lambda c: c.accuracy.value if c.accuracy else 0.0) if evaluated else None

    def records(self) -> list[Record]:
        """Return one mapping per value that was tried."""
        return [
            {
                self.parameter: c.value,
                "choice_accuracy": c.choice_accuracy,
                "accuracy": c.accuracy and c.accuracy.value,
                "low": c.accuracy and c.accuracy.low,
                "high": c.accuracy and c.accuracy.high,
                "top5_accuracy": c.top5_accuracy and c.top5_accuracy.value,
                "selected": c.value == self.selected,
            }
            for c in self.candidates
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        best = self.best_on_held_out
        return asdict(self) | {
            "candidates": self.records(),
            "notes": list(self.notes),
            "picked_on_held_out": best
            and {self.parameter: best.value, "accuracy": best.accuracy and best.accuracy.value},
        }

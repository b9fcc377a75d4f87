"""A statement with a level, and the simulation that shows what is delivered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Statement:
    """One line of the table.

    Attributes:
        statement: what is promised.
        situation: the simulated rows.
        promised: the level.
        simulate: returns the delivered share of each situation for a number of runs; nothing where none is promised.
        divisor: of the runs, for a simulation that is slow.
    """

    statement: str
    situation: str
    promised: str
    simulate: Callable[[int], Sequence[float]]
    divisor: int = 1

    def line(self, runs: int) -> str:
        """Simulate, and return the line of the table, with the date of today in UTC.

        Args:
            runs: simulated test sets per situation, before the divisor.
        """
        runs = max(1, runs // self.divisor)
        return f"{self.words} {_range(self.simulate(runs))} | {runs} | {datetime.now(UTC).date()} |"

    @property
    def words(self) -> str:
        """Return the part of the line that no simulation changes."""
        return f"| {self.statement} | {self.situation} | {self.promised} |"


def _range(values: Sequence[float]) -> str:
    if not len(values):
        return "no interval is given"
    low, high = min(values), max(values)
    return f"{low:.3f}" if round(low, 3) == round(high, 3) else f"{low:.3f} to {high:.3f}"

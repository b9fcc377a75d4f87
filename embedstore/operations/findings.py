"""What a checkup reports: one fault of a set."""

from __future__ import annotations

from dataclasses import dataclass

MAX_ITEMS = 200  # ids that a finding names


@dataclass(frozen=True)
class Finding:
    """One fault of the set.

    Attributes:
        check: the check that found it.
        severity: 3 breaks results, 2 distorts them, 1 is worth a look.
        count: how many items, pairs, classes or columns.
        text: one sentence.
        command: what shows or corrects it.
        items: ids of some of the items.
    """

    check: str
    severity: int
    count: int
    text: str
    command: str
    items: tuple[int, ...] = ()

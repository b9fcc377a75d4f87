"""What a checkup reports: one fault of a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_ITEMS = 200  # ids that a finding names
COMMAND_ITEMS = 20  # ids in a command


@dataclass(frozen=True)
class Finding:
    """One fault of the set.

    Attributes:
        check: the check that found it.
        severity: 3 breaks results, 2 distorts them, 1 is worth a look.
        count: how many items, pairs, classes or columns.
        text: one sentence.
        command: what shows it.
        items: ids of some of the items.
        cure: the command that corrects it after a look; empty where it has to be decided item by item.
    """

    check: str
    severity: int
    count: int
    text: str
    command: str
    items: tuple[int, ...] = ()
    cure: str = ""


def listed_items(items: Sequence[int]) -> str:
    """Return the first ids as they are written in a filter."""
    return ",".join(map(str, items[:COMMAND_ITEMS]))


def listed_note(items: Sequence[int]) -> str:
    """Return that a command lists the first ids only, where there are more."""
    return f"; the command lists {COMMAND_ITEMS} of them" if len(items) > COMMAND_ITEMS else ""


def delete_options(items: Sequence[int]) -> str:
    """Return the options of ``delete`` for all of these items; empty where they are too many for a command."""
    return f'--where "item in ({listed_items(items)})"' if len(items) <= COMMAND_ITEMS else ""

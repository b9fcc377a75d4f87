"""The table of the page: what is promised, and what simulations delivered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.evaluation_promises import comparisons, copies, heads, intervals, numbers, sets
from tools.evaluation_promises.statement import Statement

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
BEGIN, END = "<!-- promises: begin -->", "<!-- promises: end -->"
HEADER = (
    "| statement | situation | promised | delivered | runs each | simulated |\n| --- | --- | --- | --- | --- | --- |"
)


def statements() -> Iterator[Statement]:
    """Return every statement with a level."""
    for room in (intervals, comparisons, heads, copies, numbers, sets):
        yield from room.statements()


def render(lines: Sequence[str]) -> str:
    """Return the table as Markdown."""
    return "\n".join([HEADER, *lines])


def with_table(page: str, table: str) -> str:
    """Return the page with another table."""
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return f"{page[:begin]}\n{table}\n{page[end:]}"


def table_of(page: str) -> list[str]:
    """Return the lines of the table without its header."""
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return page[begin:end].strip().splitlines()[2:]


def date_of(line: str) -> str:
    """Return the date of a line of the table, as ISO 8601; no text where it has none."""
    return line.removesuffix("|").rsplit("|", 1)[-1].strip()

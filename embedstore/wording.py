"""Words of messages that depend on a number."""

from __future__ import annotations


def counted(count: int, one: str, several: str | None = None) -> str:
    """Return a number with what is counted: "1 image", "2,000 images".

    Args:
        count: how many.
        one: the words after the number 1, with the verb where it follows: ``item is``.
        several: the words after other numbers; ``one`` and an s by default.
    """
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def per_second(rate: float, several: str) -> str:
    """Return a rate: "2,000 images/s", below ten with a digit after the point: "0.5 clips/s".

    Args:
        rate: how many in one second.
        several: what is counted.
    """
    digits = ",.0f" if rate >= 10 else ".1f" if rate >= 1 else ".1g"
    return f"{rate:{digits}} {several}/s"

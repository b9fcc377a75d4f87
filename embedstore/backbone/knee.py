"""The batch size from which more images at once bring no more speed."""

from __future__ import annotations

from collections.abc import Callable

GAIN = 1.05  # by which twice the images must be faster to be worth twice the memory


def knee(rate: Callable[[int], float | None], start: int, most: int) -> tuple[int, dict[int, float]]:
    """Double the batch as long as that pays.

    Args:
        rate: images per second at a batch size; None where it does not fit into memory.
        start, most: the first and the largest size that is tried.

    Returns:
        The smallest size that is within 5% of every larger one tried, and what was measured.
    """
    found: dict[int, float] = {}
    size = start
    while size <= most:
        reached = rate(size)
        if reached is None:
            break
        found[size] = reached
        if size > start and reached < GAIN * found[size // 2]:
            break
        size *= 2
    if not found:
        return max(1, start // 2), found
    best = max(found.values())
    return min(s for s, r in found.items() if r * GAIN >= best), found

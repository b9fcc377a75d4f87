"""Choose hits that resemble the query and not each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows


def maximal_marginal_relevance(
    vectors: NDArray[np.float32], scores: NDArray[np.float64], count: int, diversity: float
) -> NDArray[np.int64]:
    """Choose hits by greedy maximal marginal relevance (Carbonell and Goldstein 1998).

    Args:
        vectors: float32 ``(n, D)`` of any length, best first.
        scores: float64 ``(n,)``, cosine of each with the query.
        count: places wanted.
        diversity: 1 - lambda of the paper, in [0, 1].

    Returns:
        int64 ``(min(count, n),)``: places in the order in which they are chosen; of equal gains the better place.
    """
    unit = unit_rows(vectors)
    closest = np.full(len(unit), -np.inf)
    left = np.ones(len(unit), np.bool_)
    order: list[int] = []
    for _ in range(min(count, len(unit))):
        penalty = closest if order else np.zeros(len(unit))
        gain = np.where(left, (1 - diversity) * scores - diversity * penalty, -np.inf)
        best = int(np.argmax(gain))
        order.append(best)
        left[best] = False
        closest = np.maximum(closest, unit @ unit[best])
    return np.array(order, np.int64)

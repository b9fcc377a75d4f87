"""How much of what is labeled next should look for classes that nobody has named yet.

The share of items whose class has no label is estimated by the share of labels that are the only one of their class
(Good 1953). As far as it is above zero, items count more that are far from every labeled item, and that have near
neighbors: a class of its own, not a stray item.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray, unit_rows

REFERENCE_ROWS = 2_000  # unlabeled rows that density is measured against
NEIGHBORS = 20
_POWER = 2.0  # of distance and of density where no class is known; on 14 data sets 4 was no better
_LEAST = 1e-3


def unseen_share(class_counts: Counter[str]) -> float:
    """Return the estimated share of items whose class has no label, 0 to 1."""
    return sum(n == 1 for n in class_counts.values()) / max(class_counts.total(), 1)


@dataclass(frozen=True)
class Exploration:
    """Weighs items by how much they may be of a class without a label.

    Attributes:
        share: the share of items whose class has no label.
        labeled: unit rows with a label, float32 ``(M, D)``.
        reference: unit rows without a label, float32 ``(R, D)``.
    """

    share: float
    labeled: FloatArray
    reference: FloatArray

    def weights(self, X: FloatArray) -> NDArray[np.float32]:
        """Return how much each item counts, ``(N,)``; 1 for all where every class is known.

        Args:
            X: unit rows, float32 ``(N, D)``.
        """
        center = self.reference.mean(axis=0, dtype=np.float32)
        rows, labeled, reference = (unit_rows(part - center) for part in (X, self.labeled, self.reference))
        distance = 1 - (rows @ labeled.T).max(axis=1)
        density = _density(rows, reference)
        return np.asarray((np.maximum(distance, _LEAST) * density) ** (_POWER * self.share), dtype=np.float32)


def _density(rows: FloatArray, reference: FloatArray) -> FloatArray:
    """Return the mean cosine of each row with its nearest reference rows, but for the first, which may be itself."""
    count = min(NEIGHBORS + 1, len(reference))
    nearest = np.sort(np.partition(rows @ reference.T, -count, axis=1)[:, -count:], axis=1)
    cosine = nearest[:, : max(count - 1, 1)].mean(axis=1)
    return np.asarray(np.maximum(cosine, _LEAST))

"""Many ids in little memory: a bit each where they ascend without large gaps, as those of a filter do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PackedIds:
    """Ids in an order.

    Attributes:
        values: int64 ``(n,)`` ids, or uint8 with a bit per id from ``first`` on, the first one in the highest bit.
        first: what the first bit stands for; None where ``values`` are ids.
    """

    values: NDArray[np.int64] | NDArray[np.uint8]
    first: int | None

    @classmethod
    def of(cls, items: NDArray[np.int64]) -> PackedIds:
        """Return ids packed.

        Args:
            items: int64 ``(n,)``, in any order.
        """
        if not len(items):
            return cls(items, None)
        first, span = int(items[0]), int(items[-1]) - int(items[0]) + 1
        if not (0 < span <= 8 * items.nbytes and bool((items[1:] > items[:-1]).all())):
            return cls(items, None)
        marks = np.zeros(span, np.bool_)
        marks[items - first] = True
        return cls(np.packbits(marks), first)

    @property
    def nbytes(self) -> int:
        """How many bytes they take."""
        return int(self.values.nbytes)

    def unpack(self) -> NDArray[np.int64]:
        """Return the ids: int64 ``(n,)``, in their order."""
        if self.first is None:
            return self.values.astype(np.int64, copy=False)
        return np.flatnonzero(np.unpackbits(self.values.astype(np.uint8, copy=False))) + self.first

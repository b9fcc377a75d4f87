"""A random sample of a large space in memory, so that suggestions after the first one read no vectors.

A new label changes which contents are unlabeled, not their vectors. So the sample is drawn from all contents, and each
call takes those that are unlabeled now. It is drawn again when items or vectors were added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.search.space_rows import MatchingRows
from embedstore.storage.queries.streams import SpaceState, matching_item_ids, space_state
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage

LEAST_CONTENTS = 100_000  # of a space that is sampled; less is read each time
MAX_ROWS = 100_000
MAX_BYTES = 256 << 20
LEAST_ROWS = 10_000  # of the sample that must match; a narrower choice is read from disk
_BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class SampledPool:
    """The rows of the sample that match now; a pool for :func:`active_learning.suggest_labels`.

    Attributes:
        items: int64 ``(S,)``, the first matching item of each content.
        X: float32 ``(S, D)``.
        rows: how many contents match, in the sample or not.
    """

    items: NDArray[np.int64]
    X: NDArray[np.float32]
    rows: int

    def sample(self, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return items and vectors of a random sample, at most ``count``."""
        chosen = self._rows(count, seed)
        return self.items[chosen], self.X[chosen]

    def sample_blocks(self, count: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield the items and vectors of a random sample in blocks."""
        chosen = self._rows(count, seed)
        for begin in range(0, len(chosen), _BLOCK_ROWS):
            block = chosen[begin : begin + _BLOCK_ROWS]
            yield self.items[block], self.X[block]

    def _rows(self, count: int, seed: int) -> NDArray[np.int64]:
        if count >= len(self.items):
            return np.arange(len(self.items))
        return np.sort(np.random.default_rng(seed).choice(len(self.items), count, replace=False))


@dataclass(frozen=True)
class LabelSample:
    """A sample of the contents of one space.

    Attributes:
        state: what the space held when it was drawn.
        items: int64 ``(n,)``, all items with a vector, ascending.
        content: int64 ``(n,)``, the number of the content of each.
        sampled: int64 ``(S,)``, the contents of the sample, ascending.
        X: float32 ``(S, D)``, their vectors.
    """

    state: SpaceState
    items: NDArray[np.int64]
    content: NDArray[np.int64]
    sampled: NDArray[np.int64]
    X: NDArray[np.float32]

    @classmethod
    def draw(cls, storage: Storage, space: SpaceRecord, state: SpaceState) -> LabelSample:
        """Draw a sample of a space."""
        matching = MatchingRows.load(storage, space, None)
        count = min(len(matching), MAX_ROWS, MAX_BYTES // (4 * space.space.dim))
        sampled = np.sort(np.random.default_rng(0).choice(len(matching), count, replace=False))
        X = matching.vectors.read_float32(matching.positions[sampled])
        return cls(state, matching.items, matching.content, sampled, X)

    def pool(self, matching: NDArray[np.int64]) -> SampledPool:
        """Return the rows of the sample whose contents have a matching item.

        Args:
            matching: int64 ``(m,)`` ids, ascending.
        """
        place = np.minimum(np.searchsorted(self.items, matching), len(self.items) - 1)
        known = self.items[place] == matching
        content, matching = self.content[place[known]], matching[known]
        first = np.full(int(self.content.max()) + 1, -1, np.int64)
        first[content[::-1]] = matching[::-1]  # of several items the first one is written last
        rows = np.flatnonzero(first[self.sampled] >= 0)
        return SampledPool(first[self.sampled[rows]], self.X[rows], int((first >= 0).sum()))


class LabelSamples:
    """The sample of the space that was used last. Threads may share it.

    Args:
        storage: the store.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: LabelSample | None = None

    def pool(self, space: SpaceRecord, where: str | None, extra_condition: str) -> SampledPool | None:
        """Return a pool of the items that match; None where it is better to read them.

        Args:
            space: the space.
            where: only items that match this filter.
            extra_condition: SQL that the caller vouches for.

        Raises:
            BadFilter: if the filter is not valid.
            UnknownColumn: if the filter names a column that the items do not have.
        """
        with self._storage.catalog.read() as con:
            state = space_state(con, space.key)
            if state.vectors <= LEAST_CONTENTS:
                return None
            matching = matching_item_ids(con, where, extra_condition)
        kept = self._kept
        if kept is None or kept.state != state:
            kept = self._kept = LabelSample.draw(self._storage, space, state)
        pool = kept.pool(matching)
        return pool if len(pool.items) >= min(LEAST_ROWS, pool.rows) else None

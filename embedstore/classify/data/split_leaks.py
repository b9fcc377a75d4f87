"""Near-duplicates on both sides of a split: what they are, and which rows they concern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.copy_threshold import EQUAL_COSINE
from embedstore.classify.data.features import Features
from embedstore.classify.data.near_duplicates import MAX_LISTED_PAIRS, NearDuplicates
from embedstore.classify.data.splits import TrainTestSplit


@dataclass(frozen=True, slots=True)
class TrainHeldOutPair:
    """A training item and a held-out item that looks the same."""

    train_item: int
    held_out_item: int
    cosine: float


@dataclass(frozen=True)
class SplitNearDuplicates:
    """The near-duplicates across a split.

    Attributes:
        found: all near-duplicates among the rows, on whichever side.
        count: training rows with a near-duplicate on the held-out side.
        dropped: whether these rows were left out of training.
        held_out_items: int64, the held-out items with a near-duplicate or an identical image in training.
        n_identical: how many of them have an identical vector there, such as a file of the same bytes.
        pairs: the most similar pairs across the split by item, at most 1,000.
    """

    found: NearDuplicates
    count: int
    dropped: bool
    held_out_items: NDArray[np.int64]
    n_identical: int
    pairs: tuple[TrainHeldOutPair, ...]

    @property
    def threshold(self) -> float:
        """Return the cosine from which a pair counts."""
        return self.found.threshold

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "threshold": round(self.threshold, 6),
            "count": self.count,
            "held_out": len(self.held_out_items),
            "identical": self.n_identical,
            "dropped": self.dropped,
            "pairs": [[p.train_item, p.held_out_item, round(p.cosine, 6)] for p in self.pairs],
            "found": self.found.to_json(),
        }


def split_near_duplicates(
    data: Features, split: TrainTestSplit, *, drop: bool
) -> tuple[NDArray[np.int64], SplitNearDuplicates | None]:
    """Find the training rows that are near-duplicates of a held-out row, and drop them on request.

    Rows are near-duplicates if they are a pair, or in one group that near-duplicates form.

    Args:
        data: the rows that are split, with their near-duplicates.
        split: the training rows and the held-out rows.
        drop: leave the near-duplicates out of the training rows.

    Returns:
        The training rows, int64 ``(M,)``, and what was found, or None if near-duplicates were not searched for.
    """
    found = data.near_duplicates
    if found is None:
        return split.train, None
    train, held_out = data.ids[np.concatenate([split.train, split.leaks])], data.ids[split.held_out]
    pairs, cosine = _cross_pairs(found, train, held_out)
    groups = data.groups
    is_near = np.isin(groups[split.train], groups[split.held_out]) | np.isin(data.ids[split.train], pairs[:, 0])
    is_held_near = np.isin(groups[split.held_out], groups[split.train]) | np.isin(held_out, pairs[:, 1])
    rows = zip(pairs[:MAX_LISTED_PAIRS].tolist(), cosine.tolist(), strict=False)
    return split.train[~is_near] if drop else split.train, SplitNearDuplicates(
        found=found,
        count=int(is_near.sum()),
        dropped=drop,
        held_out_items=held_out[is_held_near],
        n_identical=len(np.unique(pairs[cosine >= EQUAL_COSINE, 1])),
        pairs=tuple(TrainHeldOutPair(a, b, c) for (a, b), c in rows),
    )


def _cross_pairs(
    found: NearDuplicates, train: NDArray[np.int64], held_out: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs ``(training item, held-out item)``, int64 ``(P, 2)``, and their cosines."""
    in_train, in_held_out = np.isin(found.items, train), np.isin(found.items, held_out)
    forward, backward = in_train[:, 0] & in_held_out[:, 1], in_held_out[:, 0] & in_train[:, 1]
    crossing = forward | backward
    items = np.where(backward[crossing, None], found.items[crossing, ::-1], found.items[crossing])
    return items, found.cosine[crossing]


def merge_split_near_duplicates(searches: Sequence[SplitNearDuplicates | None]) -> SplitNearDuplicates | None:
    """Merge what was found in all folds into one result; None where nothing was searched for."""
    known = [s for s in searches if s is not None]
    if len(known) < 2:
        return known[0] if known else None
    pairs = sorted((p for s in known for p in s.pairs), key=lambda p: -p.cosine)[:MAX_LISTED_PAIRS]
    return SplitNearDuplicates(
        found=known[0].found,
        count=sum(s.count for s in known),
        dropped=known[0].dropped,
        held_out_items=np.concatenate([s.held_out_items for s in known]),
        n_identical=sum(s.n_identical for s in known),
        pairs=tuple(pairs),
    )

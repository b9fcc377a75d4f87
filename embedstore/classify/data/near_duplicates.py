"""Near-duplicates across a split: other bytes, the same picture. They inflate a classifier's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify.data.features import Features
from embedstore.classify.data.splits import TrainTestSplit

DEFAULT_NEAR_DUPLICATE_THRESHOLD = 0.95
"""Cosine from which two images count as near-duplicates.

The cosine that separates copies from similar images depends on the space, so it is reported with every count. Measured
on MobileNetV2 features of hymenoptera photos: no two different photos across the split are above 0.77; 41 photos
saved again at JPEG quality 50 have 0.86 to 1 (median 0.93), mirrored 0.89 to 1 (0.93), halved in size 0.73 to 1 (0.85).
There 0.85 finds nearly all copies; CLIP's spaces are narrower and need 0.95 and more.
"""
MAX_MULTIPLICATIONS = 2e12  # of a search that was not requested: about 20 s on two cores
MAX_LISTED_PAIRS = 1000  # the most similar pairs are listed by item
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class NearDuplicatePair:
    """A training item and its nearest held-out item."""

    train_item: int
    held_out_item: int
    cosine: float


@dataclass(frozen=True)
class SplitNearDuplicates:
    """The result of a search for near-duplicates across a split.

    Attributes:
        threshold: cosine from which a pair counts.
        count: training rows with such a held-out row.
        pairs: the most similar pairs by item, at most 1,000.
        dropped: whether these rows were left out of training.
        searched: False if the search would have taken long and was not requested; then nothing is known.
    """

    threshold: float
    count: int
    pairs: tuple[NearDuplicatePair, ...]
    dropped: bool
    searched: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return plain values; ``count`` is None if nothing was searched."""
        return {
            "threshold": self.threshold,
            "count": self.count if self.searched else None,
            "dropped": self.dropped,
            "pairs": [[p.train_item, p.held_out_item, round(p.cosine, 6)] for p in self.pairs],
        }


def filter_near_duplicates(
    data: Features, split: TrainTestSplit, threshold: float | None, *, drop: bool
) -> tuple[NDArray[np.int64], SplitNearDuplicates | None]:
    """Find training rows that are near-duplicates of a held-out row, and drop them on request.

    Args:
        data: the rows that are split.
        split: the training rows and the held-out rows.
        threshold: cosine from which a pair counts; None takes the default and skips a very long search; 0 searches
            only where ``drop`` is set.
        drop: leave the near-duplicates out of the training rows.

    Returns:
        The training rows, int64 ``(M,)``, and the result of the search, or None where none was made.
    """
    if threshold == 0 and not drop:
        return split.train, None
    requested = threshold is not None or drop
    threshold = threshold or DEFAULT_NEAR_DUPLICATE_THRESHOLD
    if not requested and exceeds_search_limit(len(split.train), len(split.held_out), data.X.shape[1]):
        return split.train, SplitNearDuplicates(threshold, 0, (), dropped=False, searched=False)
    cosines, places = nearest_held_out(data.X, split.train, split.held_out)
    rows = np.flatnonzero(cosines >= threshold)
    nearest_first = rows[np.argsort(-cosines[rows], kind="stable")][:MAX_LISTED_PAIRS]
    pairs = tuple(
        NearDuplicatePair(int(data.ids[split.train[i]]), int(data.ids[split.held_out[places[i]]]), float(cosines[i]))
        for i in nearest_first.tolist()
    )
    train = np.delete(split.train, rows) if drop else split.train
    return train, SplitNearDuplicates(threshold, len(rows), pairs, dropped=drop)


def merge_near_duplicates(searches: Sequence[SplitNearDuplicates | None]) -> SplitNearDuplicates | None:
    """Merge the searches of all folds into one result; None where no fold was searched for."""
    known = [s for s in searches if s is not None]
    if len(known) < 2:
        return known[0] if known else None
    pairs = sorted((p for s in known for p in s.pairs), key=lambda p: -p.cosine)[:MAX_LISTED_PAIRS]
    return SplitNearDuplicates(
        known[0].threshold, sum(s.count for s in known), tuple(pairs), known[0].dropped, all(s.searched for s in known)
    )


def exceeds_search_limit(n_train: int, n_held_out: int, dim: int) -> bool:
    """Return whether a search among so many rows takes longer than a check should."""
    return float(n_train) * n_held_out * dim > MAX_MULTIPLICATIONS


def nearest_held_out(
    X: NDArray[np.float32], train: NDArray[np.int64], held_out: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the most similar held-out row of every training row; besides X only the held-out rows are in memory.

    Args:
        X: features ``(N, D)`` of any length.
        train: row numbers.
        held_out: row numbers, at least one.

    Returns:
        Cosines float32 ``(len(train),)``, and places in ``held_out`` int64 ``(len(train),)``.
    """
    import faiss

    index = faiss.IndexFlatIP(X.shape[1])
    for begin in range(0, len(held_out), _BLOCK):
        index.add(unit_rows(X[held_out[begin : begin + _BLOCK]]))
    cosines = np.empty(len(train), dtype=np.float32)
    places = np.empty(len(train), dtype=np.int64)
    for begin in range(0, len(train), _BLOCK):
        scores, ids = index.search(unit_rows(X[train[begin : begin + _BLOCK]]), 1)
        cosines[begin : begin + _BLOCK], places[begin : begin + _BLOCK] = scores[:, 0], ids[:, 0]
    return cosines, places

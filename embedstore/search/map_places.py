"""Places on a map for items that were not projected: next to the projected items that they resemble most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

NEIGHBORS = 3  # projected items that decide the place of another one
_TEMPERATURE = 0.02  # of a cosine: a neighbor that is 0.05 nearer has twelve times the weight
_SPREAD = 0.004  # of the unit square: items with the same neighbors would hide each other
_BLOCK_ROWS = 8192


def place_near(
    anchors: NDArray[np.float32],
    anchor_xy: NDArray[np.float32],
    read_rows: Callable[[int, int], NDArray[np.float32]],
    items: NDArray[np.int64],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return a place for each item: float32 ``(n, 2)``.

    Args:
        anchors: float32 ``(m, D)`` unit vectors of projected items.
        anchor_xy: float32 ``(m, 2)`` their places.
        read_rows: returns the unit vectors of the items from one number up to another.
        items: int64 ``(n,)`` ids; the place of an item depends on nothing but its vector, its id and the anchors.
        progress: called with the placed items and all of them; what it raises ends the work.
    """
    import faiss

    out = np.empty((len(items), 2), np.float32)
    count = min(NEIGHBORS, len(anchors))
    for begin in range(0, len(items), _BLOCK_ROWS):
        end = min(len(items), begin + _BLOCK_ROWS)
        cosines, near = faiss.knn(read_rows(begin, end), anchors, count, metric=faiss.METRIC_INNER_PRODUCT)
        weights = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / _TEMPERATURE)
        weights /= weights.sum(axis=1, keepdims=True)
        out[begin:end] = (anchor_xy[near] * weights[:, :, None]).sum(axis=1)
        if progress is not None:
            progress(end, len(items))
    return out + _spread(items)


def _spread(items: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a small step for each id, the same in every run: float32 ``(n, 2)`` inside a disk."""
    golden = 0.6180339887498949
    angle = 2 * np.pi * ((items * golden) % 1.0)
    radius = _SPREAD * np.sqrt((items * golden * golden) % 1.0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)

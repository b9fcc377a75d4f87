"""The best rows of many queries at once: each row is read and converted once, and scored by matrix products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.search.index.faiss_library import faiss
from embedstore.search.index.scan import RowMask
from embedstore.search.index.top_k import ScoredRows

_BLOCK_ROWS = 16384  # rows in float32 at a time: 32 MiB at 512 dimensions

Block = tuple[NDArray[np.float32], NDArray[np.int64]]


def top_k_of_many(
    arrays: Iterable[NDArray[np.floating[Any]]],
    queries: NDArray[np.float32],
    k: int,
    *,
    unit: bool,
    mask: RowMask | None = None,
) -> list[ScoredRows]:
    """Return the k best rows of each query.

    Args:
        arrays: the rows of a space in order, ``(n, D)`` float16 or float32.
        queries: float32 ``(Q, D)``, each of length 1.
        k: at least 1.
        unit: whether the rows have length 1; otherwise they are scaled.
        mask: bool ``(rows,)``: only these rows.

    Returns:
        For each query ``(scores float32 (k',), positions int64 (k',))``, best first. Scores are right to about 1e-6;
        rows whose scores differ by less may be in any order, and of those at the end some may be missing.
    """
    scores = np.empty((len(queries), 0), np.float32)
    positions = np.empty((len(queries), 0), np.int64)
    for rows, places in _float32_blocks(arrays, mask):
        block_scores, nearest = faiss().knn(
            queries, rows if unit else unit_rows(rows), min(k, len(rows)), metric=faiss().METRIC_INNER_PRODUCT
        )
        scores = np.concatenate([scores, block_scores], axis=1)
        positions = np.concatenate([positions, places[nearest]], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, positions = (np.take_along_axis(column, order, axis=1) for column in (scores, positions))
    return list(zip(scores, positions, strict=True))


def _float32_blocks(arrays: Iterable[NDArray[np.floating[Any]]], mask: RowMask | None) -> Iterator[Block]:
    """Yield blocks of the rows of a mask, and their positions."""
    start = 0
    for array in arrays:
        for begin in range(0, len(array), _BLOCK_ROWS):
            part = array[begin : begin + _BLOCK_ROWS]
            places = np.arange(start + begin, start + begin + len(part))
            if mask is not None:
                chosen = mask[places]
                part, places = (part, places) if chosen.all() else (part[chosen], places[chosen])
            if len(part):
                yield np.ascontiguousarray(part, dtype=np.float32), places
        start += len(array)

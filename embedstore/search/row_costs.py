"""What scoring, skipping and gathering a row cost on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index.scan import Scanner
from embedstore.search.planner import RowCosts
from embedstore.search.row_scores import gather_top_k
from embedstore.search.snapshot import SpaceSnapshot

_SAMPLE_ROWS = 16384
_SMALL_SPACE = RowCosts(score=1e-6, skip=1e-8, gather=5e-6)  # of a space too small to time: any method is fast

_measured: dict[tuple[int, str, bool], RowCosts] = {}


def measure_row_costs(snapshot: SpaceSnapshot, query: NDArray[np.float32]) -> RowCosts:
    """Return the costs of a row, timed on at most 16,384 rows once per process and kind of row."""
    if len(snapshot.vectors) < _SAMPLE_ROWS // 4:
        return _SMALL_SPACE
    key = (snapshot.vectors.dim, snapshot.space.dtype, snapshot.unit)
    if key not in _measured:
        _measured[key] = _time_rows(snapshot, query)
    return _measured[key]


def _time_rows(snapshot: SpaceSnapshot, query: NDArray[np.float32]) -> RowCosts:
    """Time each kind of work on the first vector files: to read more takes longer than a search."""
    arrays: list[NDArray[np.floating[Any]]] = []
    for rows in snapshot.vectors.shard_arrays():
        arrays.append(rows[: _SAMPLE_ROWS - sum(map(len, arrays))])
        if sum(map(len, arrays)) >= _SAMPLE_ROWS:
            break
    sample = Scanner(arrays, unit=snapshot.unit)
    one_row = np.zeros(sample.row_count, np.bool_)
    one_row[0] = True
    reach = min(len(snapshot.vectors), 32 * _SAMPLE_ROWS)
    scattered = np.unique(np.random.default_rng(0).integers(0, reach, _SAMPLE_ROWS // 4))
    score = _fastest(lambda: sample.top_k(query, 10)) / sample.row_count
    skip = _fastest(lambda: sample.top_k(query, 10, mask=one_row)) / sample.row_count
    gather = _fastest(lambda: gather_top_k(snapshot.vectors, scattered, query, 10, unit=snapshot.unit))
    return RowCosts(score=score, skip=skip, gather=gather / len(scattered))


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of three runs."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)

"""Approximate indexes: which to build for a number of rows, a recall and a memory, and how they propose rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index.faiss_library import faiss
from embedstore.search.index.top_k import ScoredRows, no_rows

RANK_TIERS = (
    16,
    100,
)  # ranks filled by an index: the first with a narrow probe, enough for most, the rest with a wide one
HNSW_MAX_ROWS = 2_000_000  # beyond, two cores take hours to link the rows
FLAT_MAX_ROWS = 20_000  # an exact scan of these takes under 3 ms
_PQ_MIN_ROWS = 10_000  # training of 256 centroids per sub-vector needs some rows
_MAX_LISTS = 4096  # lists of an IVF up to 17 million rows: more take longer to train and fill than they save
_TRAINING_ROWS_PER_LIST = 64  # most rows per list that k-means is trained with
_MIN_TRAINING_ROWS_PER_LIST = _TRAINING_ROWS_PER_LIST // 4
MIN_TRAINING_BYTES_PER_DIM = (
    _MIN_TRAINING_ROWS_PER_LIST * _MAX_LISTS * 8
)  # to train the most lists with the fewest rows
_CENTROID_LINKS = 32  # of an HNSW over the centroids of an IVF
_LINKED_MIN_LISTS = 512  # fewer centroids are compared as fast as linked ones are walked
_COARSE_PROPOSALS = (
    400  # rows proposed by coarse codes: 64 bytes for 512 dimensions need about 400 for a recall of 0.95
)
_MAX_FILTER_WIDENING = (
    2  # times the lists that the filter's share suggests; if they hold too few matches, an IVF may err
)
_HNSW_DEGREE = 16  # links per node; Malkov and Yashunin 2016 use 5 to 48, and twice as many take twice as long


@dataclass(frozen=True)
class IndexSettings:
    """One kind of index.

    Attributes:
        kind: flat, hnsw or ivf.
        factory: FAISS's factory string.
        memory_bytes: about the size of the loaded index.
        build_memory_bytes: about the peak during the build: arrays are copied when they grow, k-means works on a copy.
        probes: efSearch or nprobe to try, ascending; (0,) where there is nothing to set.
        training_rows: rows to train with.
        lossless: whether float16 rows are stored unchanged, so that the index gives the scores of a scan.
    """

    kind: str
    factory: str
    memory_bytes: int
    build_memory_bytes: int
    probes: tuple[int, ...]
    training_rows: int
    lossless: bool = False


def candidate_settings(
    rows: int, dim: int, *, recall: float, memory_bytes: int, kind: str | None = None
) -> list[IndexSettings]:
    """Return the settings to try, the most promising first; only those whose build fits the memory.

    Args:
        rows: the number of rows of the space.
        dim: the length of the vectors of the space.
        recall: wanted recall at 10.
        memory_bytes: memory for the index, loaded or while it is built.
        kind: only this kind.
    """
    flat = _one_array("flat", "SQfp16", rows * dim * 2, (0,))
    hnsw_bytes = rows * (dim * 2 + _HNSW_DEGREE * 2 * 4 + 24)
    hnsw = _one_array("hnsw", f"HNSW{_HNSW_DEGREE},SQfp16", hnsw_bytes, _probes(64, 1024))
    ivf = [_ivf(rows, dim, code, memory_bytes) for code in ("SQfp16", "SQ8", f"PQ{dim // 8}")]
    if dim % 8 or rows < _PQ_MIN_ROWS:
        ivf.pop()
    if recall >= 1 or rows <= FLAT_MAX_ROWS:
        order = [flat, hnsw, *ivf]
    elif rows <= HNSW_MAX_ROWS // 10:
        order = [hnsw, *ivf, flat]
    else:
        order = [*ivf, hnsw, flat] if rows <= HNSW_MAX_ROWS else [*ivf, flat]
    if kind == "hnsw" and hnsw not in order:
        order.append(hnsw)
    return [s for s in order if s.build_memory_bytes <= memory_bytes and kind in (None, s.kind)]


def _one_array(kind: str, factory: str, size: int, probes: tuple[int, ...]) -> IndexSettings:
    """Return settings of an index whose rows are one array, which is copied when it grows."""
    return IndexSettings(kind, factory, size, 2 * size, probes, 1, lossless=True)


def _ivf(rows: int, dim: int, code: str, memory_bytes: int) -> IndexSettings:
    """Return settings of inverted lists of one kind of codes."""
    lists = max(1, min(int(4 * rows**0.5), max(_MAX_LISTS, int(rows**0.5)), rows // 40 or 1))
    bytes_per_row = {"SQfp16": 2 * dim, "SQ8": dim}.get(code, dim // 8)
    size = rows * (bytes_per_row + 8) + lists * (dim * 4 + _CENTROID_LINKS * 8 + 24)
    affordable_rows = max(_MIN_TRAINING_ROWS_PER_LIST * lists, memory_bytes // (8 * dim))
    training_rows = min(rows, _TRAINING_ROWS_PER_LIST * lists, affordable_rows)
    peak = max(size * 3 // 2, training_rows * dim * 8)
    return IndexSettings("ivf", f"IVF{lists},{code}", size, peak, _probes(1, lists), training_rows, code == "SQfp16")


def _probes(first: int, most: int) -> tuple[int, ...]:
    """Return ``first``, then half as much again and again, up to ``most``."""
    out = [first]
    while out[-1] < most:
        out.append(min(most, -(-out[-1] * 3 // 2)))
    return tuple(out)


def train_index(settings: IndexSettings, sample: NDArray[np.float32]) -> Any:
    """Return an empty FAISS index, ready for rows.

    Args:
        settings: which index.
        sample: unit rows ``(n, dim)`` to train with.
    """
    index = faiss().index_factory(sample.shape[1], settings.factory, faiss().METRIC_INNER_PRODUCT)
    if settings.kind == "ivf":
        index.cp.seed = 0
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _TRAINING_ROWS_PER_LIST
        index.by_residual = not settings.lossless
    if settings.kind == "hnsw":
        index.hnsw.efConstruction = 100
    index.train(sample)
    return index


def enable_parallel_search(index: Any) -> Any:
    """Let one query open the lists of an IVF on all cores; return the index."""
    if isinstance(index, faiss().IndexIVF):
        index.parallel_mode = 1  # FAISS does not write it to the file
    return index


def link_centroids(index: Any) -> Any:
    """Link the centroids of a filled IVF, and return the index: comparing all of them took half of a query's time."""
    if not isinstance(index, faiss().IndexIVF) or index.nlist < _LINKED_MIN_LISTS:
        return enable_parallel_search(index)
    flat = index.quantizer
    linked = faiss().IndexHNSWFlat(index.d, _CENTROID_LINKS, faiss().METRIC_INNER_PRODUCT)
    linked.hnsw.efConstruction, linked.hnsw.efSearch = 100, 64
    linked.add(flat.reconstruct_n(0, index.nlist))
    index.quantizer = linked
    linked.this.disown()  # the index now owns it,
    flat.this.own(True)  # and no longer owns the flat one
    return enable_parallel_search(index)


def proposal_count(k: int, *, lossless: bool) -> int:
    """Return how many rows an index proposes where k are wanted: scores of coarse codes say less about the order."""
    return k if lossless else max(k, _COARSE_PROPOSALS)


def min_matching_share(kind: str) -> float:
    """Return the least share of matching rows at which an index is used: it looks 1 / share times as far."""
    return 0.02 if kind == "ivf" else 0.05  # the cost of an HNSW grows faster than how far it looks


@dataclass(frozen=True)
class RowFilter:
    """The rows of an index that may be proposed.

    Attributes:
        bitmap: one bit per row, the first in the lowest bit.
        matching_share: share of the rows.
        matching_per_list: int64, matching rows in each list of an IVF; None for other kinds.
    """

    bitmap: NDArray[np.uint8]
    matching_share: float
    matching_per_list: NDArray[np.int64] | None

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_], lists: InvertedLists | None) -> RowFilter:
        """Create a filter from one bool per row, and the lists of the index where it has any."""
        per_list = None if lists is None else np.bincount(lists.list_by_row[mask], minlength=lists.count)
        return cls(np.packbits(mask, bitorder="little"), np.count_nonzero(mask) / max(1, len(mask)), per_list)


@dataclass(frozen=True)
class InvertedLists:
    """The lists of an IVF.

    Attributes:
        list_by_row: int32, the list of each row.
        count: number of lists.
    """

    list_by_row: NDArray[np.int32]
    count: int

    @classmethod
    def from_index(cls, index: Any) -> InvertedLists | None:
        """Read the lists of an index; None where it has none."""
        if not isinstance(index, faiss().IndexIVF):
            return None
        list_by_row = np.empty(index.ntotal, np.int32)
        for n in range(index.nlist):
            if size := index.invlists.list_size(n):
                list_by_row[faiss().rev_swig_ptr(index.invlists.get_ids(n), size)] = n
        return cls(list_by_row, index.nlist)


def propose_rows(index: Any, query: NDArray[np.float32], count: int, *, probe: int) -> ScoredRows:
    """Return the rows that an index considers nearest, best first, with the scores of its codes.

    Args:
        index: the FAISS index.
        query: float32 ``(D,)`` of length 1.
        count: rows wanted.
        probe: efSearch or nprobe.
    """
    return _search_faiss(index, query, min(count, index.ntotal), probe)


def propose_filtered_rows(
    index: Any, query: NDArray[np.float32], count: int, *, probe: int, row_filter: RowFilter
) -> ScoredRows | None:
    """Return proposals among the rows that a filter allows; the index looks further to meet as many as without it.

    An HNSW finds the allowed rows among its nearest ones, so none of them is too far. An IVF would propose whatever is
    allowed in the lists it opens.

    Args:
        index: the FAISS index.
        query: float32 ``(D,)`` of length 1.
        count: rows wanted.
        probe: efSearch or nprobe of a search without a filter.
        row_filter: the rows that may be proposed.

    Returns:
        As :func:`propose_rows`; None for an IVF where far fewer rows are allowed around the query than overall.
    """
    count = min(count, index.ntotal)
    if row_filter.matching_per_list is not None:
        return _search_lists(index, query, count, probe, row_filter, row_filter.matching_per_list)
    probe = max(probe, int(count / max(row_filter.matching_share, 1 / index.ntotal)))
    return _search_faiss(index, query, count, probe, sel=faiss().IDSelectorBitmap(row_filter.bitmap))


def _search_faiss(index: Any, query: NDArray[np.float32], count: int, probe: int, **options: Any) -> ScoredRows:
    """Return FAISS's answer without the places that it left empty."""
    if isinstance(index, faiss().IndexHNSW):
        parameters = faiss().SearchParametersHNSW(efSearch=min(max(probe, 2 * count), index.ntotal), **options)
    elif isinstance(index, faiss().IndexIVF):
        parameters = faiss().SearchParametersIVF(nprobe=min(probe, index.nlist), **options)
    else:
        parameters = faiss().SearchParameters(**options)
    scores, rows = index.search(query[None], count, params=parameters)
    is_row = rows[0] >= 0
    return scores[0][is_row], rows[0][is_row]


def _search_lists(
    index: Any,
    query: NDArray[np.float32],
    count: int,
    probe: int,
    row_filter: RowFilter,
    matching_per_list: NDArray[np.int64],
) -> ScoredRows | None:
    """Open the nearest lists until as many allowed rows were met as rows are met without a filter."""
    max_lists = min(
        index.nlist, int(_MAX_FILTER_WIDENING * probe / max(row_filter.matching_share, 1 / index.ntotal)) + 1
    )
    near, lists = index.quantizer.search(query[None], max_lists)
    near, lists = near[0][lists[0] >= 0], lists[0][lists[0] >= 0]
    matching = matching_per_list[lists]
    enough = int(np.searchsorted(np.cumsum(matching), probe * index.ntotal / index.nlist)) + 1
    if enough > len(lists) and max_lists < index.nlist:
        return None
    opened = np.flatnonzero(matching[: max(probe, enough)])
    if not len(opened):
        return no_rows()
    near, lists = near[opened], lists[opened]
    scores, rows = np.empty(count, np.float32), np.empty(count, np.int64)
    selector = faiss().IDSelectorBitmap(row_filter.bitmap)
    parameters = faiss().SearchParametersIVF(nprobe=len(opened), sel=selector)
    ptr = faiss().swig_ptr
    index.search_preassigned_c(1, ptr(query), count, ptr(lists), ptr(near), ptr(scores), ptr(rows), False, parameters)
    return scores[rows >= 0], rows[rows >= 0]

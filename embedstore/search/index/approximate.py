"""Approximate indexes: which to build for a number of rows, a recall and a memory; how they propose rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index.exact import ScoredRows
from embedstore.search.index.faiss_library import faiss

RANK_TIERS = (
    16,
    100,
)  # filled by an index: the first by a narrow question, for most look no further, the others by a wide one
HNSW_MAX_ROWS = 2_000_000  # rows: beyond, two cores take hours to link them
FLAT_MAX_ROWS = 20_000  # rows: an exact scan takes under 3 ms
_FEWEST_FOR_PQ = 10_000  # rows: 256 centroids a piece want some to be trained with
_LISTS = 4096  # lists of an IVF up to 17 million rows: to train and to fill more takes longer than it ever saves
_TRAIN = 64  # rows a list that k-means is trained with
MIN_TRAINING_BYTES_PER_DIM = (
    _TRAIN // 4 * _LISTS * 8
)  # bytes a dimension while as few of them as may be train as many lists as may be
_CENTRE_LINKS = 32  # of an HNSW over the centroids of an IVF
_FEWEST_LINKED = 512  # centroids: fewer are compared as fast as linked ones are walked
_COARSE = 400  # rows proposed by coarse codes: 64 bytes for 512 dimensions need about as many for a recall of 0.95
_AT_ODDS = 2  # times the lists that a filter's share suggests; where they hold too few matching rows, an IVF may err
_DEGREE = 16  # links of an HNSW node; Malkov and Yashunin 2016 use 5 to 48, and twice as many links take twice as long


@dataclass(frozen=True)
class IndexSettings:
    """One kind of index.

    Attributes:
        kind: flat, hnsw or ivf. factory: FAISS's string. memory: bytes when loaded, about.
        peak: bytes while it is built, about: arrays are copied where they grow, and k-means works on a copy.
        probes: efSearch or nprobe to try, ascending; (0,) where there is nothing to set.
        train: rows to train with; 0 for none.
        lossless: float16 rows are held as they are, so that scores found by the index are a scan's.
    """

    kind: str
    factory: str
    memory: int
    build_memory_bytes: int
    probes: tuple[int, ...]
    training_rows: int
    lossless: bool = False


def candidate_settings(
    rows: int, dim: int, *, recall: float, memory_bytes: int, kind: str | None = None
) -> list[IndexSettings]:
    """What to try, the most promising first; only what fits the memory, while it is built too.

    Args:
        rows, dim: of the space.
        recall: wanted at 10. memory: bytes that the index may take, loaded or while it is built.
        kind: only this one.
    """
    flat = _whole("flat", "SQfp16", rows * dim * 2, (0,))
    hnsw = _whole("hnsw", f"HNSW{_DEGREE},SQfp16", rows * (dim * 2 + _DEGREE * 2 * 4 + 24), _probes(64, 1024))
    ivf = [_ivf(rows, dim, code, memory_bytes) for code in ("SQfp16", "SQ8", f"PQ{dim // 8}")]
    if dim % 8 or rows < _FEWEST_FOR_PQ:
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


def _whole(kind: str, factory: str, memory: int, probes: tuple[int, ...]) -> IndexSettings:
    """One array that holds everything, and is copied whole where it grows."""
    return IndexSettings(kind, factory, memory, 2 * memory, probes, 1, lossless=True)


def _ivf(rows: int, dim: int, code: str, memory: int) -> IndexSettings:
    """Inverted lists of one kind of codes."""
    lists = max(1, min(int(4 * rows**0.5), max(_LISTS, int(rows**0.5)), rows // 40 or 1))
    bytes_a_row = {"SQfp16": 2 * dim, "SQ8": dim}.get(code, dim // 8)
    size = rows * (bytes_a_row + 8) + lists * (dim * 4 + _CENTRE_LINKS * 8 + 24)
    train = min(rows, _TRAIN * lists, max(_TRAIN // 4 * lists, memory // (8 * dim)))
    peak = max(size * 3 // 2, train * dim * 8)
    return IndexSettings("ivf", f"IVF{lists},{code}", size, peak, _probes(1, lists), train, code == "SQfp16")


def _probes(first: int, most: int) -> tuple[int, ...]:
    """``first``, then half as much again and again, until ``most``."""
    out = [first]
    while out[-1] < most:
        out.append(min(most, -(-out[-1] * 3 // 2)))
    return tuple(out)


def train_index(settings: IndexSettings, sample: NDArray[np.float32]) -> Any:
    """An empty index of FAISS, ready for rows.

    Args:
        setting: which. sample: unit rows ``(n, dim)`` to train with.
    """
    index = faiss().index_factory(sample.shape[1], settings.factory, faiss().METRIC_INNER_PRODUCT)
    if settings.kind == "ivf":
        index.cp.seed = 0
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _TRAIN
        index.by_residual = not settings.lossless
    if settings.kind == "hnsw":
        index.hnsw.efConstruction = 100
    index.train(sample)
    return index


def enable_parallel_search(index: Any) -> Any:
    """An index as it is asked: one query opens the lists of an IVF on all cores."""
    if isinstance(index, faiss().IndexIVF):
        index.parallel_mode = 1  # FAISS keeps it in no file
    return index


def link_centroids(index: Any) -> Any:
    """A filled index, made quick to ask: the centroids of an IVF are linked; to compare all took half its time."""
    if not isinstance(index, faiss().IndexIVF) or index.nlist < _FEWEST_LINKED:
        return enable_parallel_search(index)
    flat = index.quantizer
    linked = faiss().IndexHNSWFlat(index.d, _CENTRE_LINKS, faiss().METRIC_INNER_PRODUCT)
    linked.hnsw.efConstruction, linked.hnsw.efSearch = 100, 64
    linked.add(flat.reconstruct_n(0, index.nlist))
    index.quantizer = linked
    linked.this.disown()  # the index owns it now,
    flat.this.own(True)  # and no longer the other
    return enable_parallel_search(index)


def proposal_count(k: int, *, lossless: bool) -> int:
    """Rows that an index proposes where so many are wanted: scores of coarse codes say less about the order."""
    return k if lossless else max(k, _COARSE)


def min_matching_share(kind: str) -> float:
    """Share of the rows that must match before an index is asked: it looks 1 / share as far."""
    return 0.02 if kind == "ivf" else 0.05  # what an HNSW takes grows faster than how far it looks


@dataclass(frozen=True)
class RowFilter:
    """The rows that may be proposed.

    Attributes:
        bits: one a row, the first in the lowest. share: of the rows, how many.
        met: of each list of an IVF, how many of its rows; None for other kinds.
    """

    bitmap: NDArray[np.uint8]
    matching_share: float
    matching_per_list: NDArray[np.int64] | None

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_], lists: InvertedLists | None) -> RowFilter:
        """From a bool a row of the index, and its lists where it has any."""
        met = None if lists is None else np.bincount(lists.list_by_row[mask], minlength=lists.count)
        return cls(np.packbits(mask, bitorder="little"), np.count_nonzero(mask) / max(1, len(mask)), met)


@dataclass(frozen=True)
class InvertedLists:
    """Which rows stand in which list of an IVF.

    Attributes:
        of_row: int32, a list a row. count: of the lists.
    """

    list_by_row: NDArray[np.int32]
    count: int

    @classmethod
    def from_index(cls, index: Any) -> InvertedLists | None:
        """Read from an index; None where it has no lists."""
        if not isinstance(index, faiss().IndexIVF):
            return None
        of_row = np.empty(index.ntotal, np.int32)
        for n in range(index.nlist):
            if size := index.invlists.list_size(n):
                of_row[faiss().rev_swig_ptr(index.invlists.get_ids(n), size)] = n
        return cls(of_row, index.nlist)


def propose_rows(index: Any, query: NDArray[np.float32], count: int, *, probe: int) -> ScoredRows:
    """Rows that an index believes to be near, best first, with the scores of its codes.

    Args:
        index: of FAISS. query: float32 ``(D,)`` of length 1.
        count: rows wanted. probe: efSearch or nprobe.
    """
    return _asked(index, query, min(count, index.ntotal), probe)


def propose_filtered_rows(
    index: Any, query: NDArray[np.float32], count: int, *, probe: int, row_filter: RowFilter
) -> ScoredRows | None:
    """The same where only some rows may be proposed: it looks further, until it meets as many as it would of all.

    An HNSW finds those that match of the nearest so many, and so none too far. An IVF would take for near whatever
    matches in the lists it opens, and says None where far fewer rows match around the query than everywhere.

    Args:
        index: of FAISS. query: float32 ``(D,)`` of length 1.
        count: rows wanted. probe: efSearch or nprobe where all rows may be proposed. only: these may.
    """
    count = min(count, index.ntotal)
    if row_filter.matching_per_list is not None:
        return _in_lists(index, query, count, probe, row_filter, row_filter.matching_per_list)
    probe = max(probe, int(count / max(row_filter.matching_share, 1 / index.ntotal)))
    return _asked(index, query, count, probe, sel=faiss().IDSelectorBitmap(row_filter.bitmap))


def _asked(index: Any, query: NDArray[np.float32], count: int, probe: int, **options: Any) -> ScoredRows:
    """FAISS's answer, without the places that it left empty."""
    if isinstance(index, faiss().IndexHNSW):
        parameters = faiss().SearchParametersHNSW(efSearch=min(max(probe, 2 * count), index.ntotal), **options)
    elif isinstance(index, faiss().IndexIVF):
        parameters = faiss().SearchParametersIVF(nprobe=min(probe, index.nlist), **options)
    else:
        parameters = faiss().SearchParameters(**options)
    scores, found = index.search(query[None], count, params=parameters)
    there = found[0] >= 0
    return scores[0][there], found[0][there]


def _in_lists(
    index: Any, query: NDArray[np.float32], count: int, probe: int, only: RowFilter, of_lists: NDArray[np.int64]
) -> ScoredRows | None:
    """Open the nearest lists until as many matching rows were met as rows are without a filter."""
    furthest = min(index.nlist, int(_AT_ODDS * probe / max(only.matching_share, 1 / index.ntotal)) + 1)
    near, lists = index.quantizer.search(query[None], furthest)
    near, lists = near[0][lists[0] >= 0], lists[0][lists[0] >= 0]
    matching = of_lists[lists]
    enough = int(np.searchsorted(np.cumsum(matching), probe * index.ntotal / index.nlist)) + 1
    if enough > len(lists) and furthest < index.nlist:
        return None
    opened = np.flatnonzero(matching[: max(probe, enough)])
    if not len(opened):
        return np.empty(0, np.float32), np.empty(0, np.int64)
    near, lists = near[opened], lists[opened]
    scores, found = np.empty(count, np.float32), np.empty(count, np.int64)
    selector = faiss().IDSelectorBitmap(only.bitmap)
    parameters = faiss().SearchParametersIVF(nprobe=len(opened), sel=selector)
    at = faiss().swig_ptr
    index.search_preassigned_c(1, at(query), count, at(lists), at(near), at(scores), at(found), False, parameters)
    return scores[found >= 0], found[found >= 0]

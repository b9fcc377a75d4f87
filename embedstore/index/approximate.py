"""Approximate indexes: which to build for a number of rows, a recall and a memory; how they propose rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.index.library import faiss

HNSW_MOST = 2_000_000  # rows: beyond, two cores take hours to link them
FLAT_MOST = 20_000  # rows: an exact scan takes under 3 ms
_FEWEST_FOR_PQ = 10_000  # rows: 256 centroids a piece want some to be trained with
_LISTS = 4096  # lists of an IVF up to 17 million rows: to train and to fill more takes longer than it ever saves
_TRAIN = 64  # rows a list that k-means is trained with
LEAST_TRAIN = _TRAIN // 4 * _LISTS * 8  # bytes a dimension while as few of them as may be train as many lists as may be
_DEGREE = 16  # links of an HNSW node; Malkov and Yashunin 2016 use 5 to 48, and twice as many links take twice as long


@dataclass(frozen=True)
class Setting:
    """One kind of index.

    Attributes:
        kind: flat, hnsw or ivf. factory: FAISS's string. memory: bytes when loaded, about.
        peak: bytes while it is built, about: arrays are copied where they grow, and k-means works on a copy.
        probes: efSearch or nprobe to try, ascending; (0,) where there is nothing to set.
        train: rows to train with; 0 for none.
    """

    kind: str
    factory: str
    memory: int
    peak: int
    probes: tuple[int, ...]
    train: int


def settings(rows: int, dim: int, *, recall: float, memory: int, kind: str | None = None) -> list[Setting]:
    """What to try, the most promising first; only what fits the memory, while it is built too.

    Args:
        rows, dim: of the space.
        recall: wanted at 10. memory: bytes that the index may take, loaded or while it is built.
        kind: only this one.
    """
    flat = _whole("flat", "SQfp16", rows * dim * 2, (0,))
    hnsw = _whole("hnsw", f"HNSW{_DEGREE},SQfp16", rows * (dim * 2 + _DEGREE * 2 * 4 + 24), _probes(16, 1024))
    ivf = [_ivf(rows, dim, code, memory) for code in ("SQfp16", "SQ8", f"PQ{dim // 8}")]
    if dim % 8 or rows < _FEWEST_FOR_PQ:
        ivf.pop()
    if recall >= 1 or rows <= FLAT_MOST:
        order = [flat, hnsw, *ivf]
    elif rows <= HNSW_MOST // 10:
        order = [hnsw, *ivf, flat]
    else:
        order = [*ivf, hnsw, flat] if rows <= HNSW_MOST else [*ivf, flat]
    if kind == "hnsw" and hnsw not in order:
        order.append(hnsw)
    return [s for s in order if s.peak <= memory and kind in (None, s.kind)]


def _whole(kind: str, factory: str, memory: int, probes: tuple[int, ...]) -> Setting:
    """One array that holds everything, and is copied whole where it grows."""
    return Setting(kind, factory, memory, 2 * memory, probes, 1)


def _ivf(rows: int, dim: int, code: str, memory: int) -> Setting:
    """Inverted lists of one kind of codes."""
    lists = max(1, min(int(4 * rows**0.5), max(_LISTS, int(rows**0.5)), rows // 40 or 1))
    bytes_a_row = {"SQfp16": 2 * dim, "SQ8": dim}.get(code, dim // 8)
    size = rows * (bytes_a_row + 8) + lists * dim * 4
    train = min(rows, _TRAIN * lists, max(_TRAIN // 4 * lists, memory // (8 * dim)))
    return Setting("ivf", f"IVF{lists},{code}", size, max(size * 3 // 2, train * dim * 8), _probes(1, lists), train)


def _probes(first: int, most: int) -> tuple[int, ...]:
    """``first``, doubled until ``most``."""
    out = [first]
    while out[-1] < most:
        out.append(min(most, out[-1] * 2))
    return tuple(out)


def trained(setting: Setting, sample: NDArray[np.float32]) -> Any:
    """An empty index of FAISS, ready for rows.

    Args:
        setting: which. sample: unit rows ``(n, dim)`` to train with.
    """
    index = faiss().index_factory(sample.shape[1], setting.factory, faiss().METRIC_INNER_PRODUCT)
    if setting.kind == "ivf":
        index.cp.seed = 0
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _TRAIN
    if setting.kind == "hnsw":
        index.hnsw.efConstruction = 100
    index.train(sample)
    return index


def proposed(kind: str) -> int:
    """Rows that an index proposes, whatever is asked: one list for every page. They are scored exactly."""
    return 200 if kind == "hnsw" else 400  # an HNSW takes longer for more


def least(kind: str) -> float:
    """Share of the rows that must match before an index is asked: it looks 1 / share as far, and may miss more."""
    return 0.2 if kind == "hnsw" else 0.05  # what an HNSW takes grows faster than how far it looks


def propose(
    index: Any, query: NDArray[np.float32], count: int, *, probe: int, mask: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Rows that an index believes to be near, in no order that counts.

    Where only some rows may be proposed it looks as many times further as these are fewer, so that it meets as many.

    Args:
        index: of FAISS. query: float32 ``(D,)`` of length 1.
        count: rows wanted. probe: efSearch or nprobe without a mask. mask: bool ``(ntotal,)``: only these rows.
    """
    parameters, _kept = _parameters(index, probe, count, mask)
    _, found = index.search(query[None], min(count, index.ntotal), params=parameters)
    proposed: NDArray[np.int64] = np.unique(found[0][found[0] >= 0])
    return proposed


def _parameters(index: Any, probe: int, count: int, mask: NDArray[np.bool_] | None) -> tuple[Any, Any]:
    """FAISS's search parameters, and what they point into."""
    options: dict[str, Any] = {}
    bits = selector = None
    if isinstance(index, faiss().IndexHNSW):
        probe = max(probe, count)
    if mask is not None:
        bits = np.packbits(mask, bitorder="little")
        selector = options["sel"] = faiss().IDSelectorBitmap(bits)
        probe = probe * len(mask) // max(1, int(np.count_nonzero(mask)))
    if isinstance(index, faiss().IndexHNSW):
        return faiss().SearchParametersHNSW(efSearch=min(probe, index.ntotal), **options), (bits, selector)
    if isinstance(index, faiss().IndexIVF):
        return faiss().SearchParametersIVF(nprobe=min(probe, index.nlist), **options), (bits, selector)
    return faiss().SearchParameters(**options), (bits, selector)

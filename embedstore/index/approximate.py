"""Approximate indexes: which to build for a number of rows, a recall and a memory; how they propose rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.index.library import faiss

PROPOSED = 400  # rows an index proposes, whatever is asked: one list for every page; they are scored exactly
HNSW_MOST = 2_000_000  # rows: beyond, two cores take hours to link them
FLAT_MOST = 20_000  # rows: an exact scan takes under 3 ms
_DEGREE = 32  # links of an HNSW node; Malkov and Yashunin 2016 use 16 to 48 for high dimensions


@dataclass(frozen=True)
class Setting:
    """One kind of index.

    Attributes:
        kind: flat, hnsw or ivf. factory: FAISS's string. memory: bytes when loaded, about.
        probes: efSearch or nprobe to try, ascending; (0,) where there is nothing to set.
        train: rows to train with; 0 for none.
    """

    kind: str
    factory: str
    memory: int
    probes: tuple[int, ...]
    train: int


def settings(rows: int, dim: int, *, recall: float, memory: int, kind: str | None = None) -> list[Setting]:
    """What to try, the most promising first; only what fits the memory.

    Args:
        rows, dim: of the space.
        recall: wanted at 10. memory: bytes that the loaded index may take.
        kind: only this one.
    """
    lists = max(1, min(65536, int(4 * rows**0.5), rows // 40 or 1))
    probes = _probes(1, lists)
    efs = tuple(e for e in (16, 32, 64, 128, 256, 512, 1024))
    flat = Setting("flat", "SQfp16", rows * dim * 2, (0,), 1)
    hnsw = Setting("hnsw", f"HNSW{_DEGREE},SQfp16", rows * (dim * 2 + _DEGREE * 2 * 4 + 24), efs, 1)
    table = lists * dim * 4 + rows * 8
    train = min(rows, 64 * lists)
    ivf = [
        Setting("ivf", f"IVF{lists},SQfp16", rows * dim * 2 + table, probes, train),
        Setting("ivf", f"IVF{lists},SQ8", rows * dim + table, probes, train),
    ]
    if dim % 8 == 0 and rows >= 10_000:
        ivf.append(Setting("ivf", f"IVF{lists},PQ{dim // 8}", rows * dim // 8 + table, probes, train))
    if recall >= 1 or rows <= FLAT_MOST:
        order = [flat, hnsw, *ivf]
    elif rows <= HNSW_MOST // 10:
        order = [hnsw, *ivf, flat]
    else:
        order = [*ivf, hnsw, flat] if rows <= HNSW_MOST else [*ivf, flat]
    if kind == "hnsw" and hnsw not in order:
        order.append(hnsw)
    return [s for s in order if s.memory <= memory and kind in (None, s.kind)]


def _probes(first: int, most: int) -> tuple[int, ...]:
    """``first``, doubled until ``most``."""
    out = [first]
    while out[-1] < most:
        out.append(min(most, out[-1] * 2))
    return tuple(out)


def build(
    setting: Setting, dim: int, sample: NDArray[np.float32], blocks: Iterator[NDArray[np.float32]]
) -> Iterator[tuple[int, Any]]:
    """Build an index block by block.

    Args:
        setting: which. dim: of a vector.
        sample: unit rows to train with. blocks: unit rows, all of them, in order.

    Yields:
        ``(rows added so far, the index)`` after every block; the last one is whole.
    """
    index = faiss().index_factory(dim, setting.factory, faiss().METRIC_INNER_PRODUCT)
    if setting.kind == "ivf":
        index.cp.seed = 0
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 64
    if setting.kind == "hnsw":
        index.hnsw.efConstruction = 100
    index.train(sample)
    for rows in blocks:
        index.add(rows)
        yield index.ntotal, index


def propose(
    index: Any, query: NDArray[np.float32], count: int, *, probe: int, mask: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Rows that an index believes to be near, in no order that counts.

    Args:
        index: of FAISS. query: float32 ``(D,)`` of length 1.
        count: rows wanted. probe: efSearch or nprobe. mask: bool ``(ntotal,)``: only these rows.
    """
    parameters, _kept = _parameters(index, probe, count, mask)
    _, found = index.search(query[None], min(count, index.ntotal), params=parameters)
    proposed: NDArray[np.int64] = np.unique(found[0][found[0] >= 0])
    return proposed


def _parameters(index: Any, probe: int, count: int, mask: NDArray[np.bool_] | None) -> tuple[Any, Any]:
    """FAISS's search parameters, and what they point into."""
    options: dict[str, Any] = {}
    bits = selector = None
    if mask is not None:
        bits = np.packbits(mask, bitorder="little")
        selector = options["sel"] = faiss().IDSelectorBitmap(bits)
    if isinstance(index, faiss().IndexHNSW):
        return faiss().SearchParametersHNSW(efSearch=max(probe, min(count, index.ntotal)), **options), (bits, selector)
    if isinstance(index, faiss().IndexIVF):
        return faiss().SearchParametersIVF(nprobe=min(probe, index.nlist), **options), (bits, selector)
    return faiss().SearchParameters(**options), (bits, selector)

"""Near-duplicates of a store beside FAISS alone doing the same comparisons: time and peak memory.

``python -m tests.benchmarks.bench_duplicates [ROWS] [--folder FOLDER]``. FAISS alone: k-means with as many cells,
inverted lists over the same float16 vectors, and a range search of every row in its three nearest cells, nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import embedstore as es
from embedstore.search.index import self_join
from tests.benchmarks import corpus, peak

THRESHOLD = 0.95
_BLOCK = 16384


def ours(path: str) -> dict[str, Any]:
    """Groups through the store, with what the catalog knows of every item in them."""
    found = es.open(path).duplicates(threshold=THRESHOLD)
    return {k: v for k, v in found.to_json().items() if k in ("groups", "items", "compared", "recall")}


def by_faiss(path: str) -> dict[str, Any]:
    """Pairs by FAISS's own inverted lists."""
    store = es.open(path)
    vectors = store._session.storage.vector_reader(store.spaces[0].space).map_shards()
    cells = max(2, len(vectors) // self_join.ROWS_PER_CELL)
    index = faiss.index_factory(vectors.dim, f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.nprobe = 40, self_join.CELLS_PER_ROW
    order = np.random.default_rng(0).permutation(len(vectors))[: 40 * cells]
    index.train(vectors.read_float32(np.sort(order)))
    for _, rows in vectors.iter_blocks():
        index.add(rows)
    found = 0
    for first, rows in vectors.iter_blocks(_BLOCK):
        limits, _, others = index.range_search(rows, THRESHOLD)
        own = np.repeat(np.arange(first, first + len(rows)), np.diff(limits.astype(np.int64)))
        found += int((others > own).sum())
    return {"pairs": found}


def main() -> None:
    """Two lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = str(corpus.store_of(given.folder or Path(temporary), given.rows))
        print(f"{given.rows:,} × {corpus.DIM}, cosine at least {THRESHOLD}")
        print("| what | seconds | peak resident GiB | found |\n| --- | --- | --- | --- |")
        for name, work in (("embedstore", ours), ("FAISS alone", by_faiss)):
            found, seconds, top = peak.measured(work, path)
            said = ", ".join(f"{v} {k}" if isinstance(v, int) else f"{k} {v}" for k, v in found.items())
            print(f"| {name} | {seconds:.0f} | {top:.2f} | {said} |", flush=True)


if __name__ == "__main__":
    main()

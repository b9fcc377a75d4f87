"""Near-duplicates of a store against FAISS alone with the same comparisons: time and peak memory.

``python -m tests.benchmarks.bench_duplicates [ROWS] [--folder FOLDER]``. FAISS alone runs k-means with the same number
of cells, inverted lists over the same float16 vectors, and a range search of every row in its three nearest cells.
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
_BLOCK_ROWS = 16384


def run_embedstore(path: str) -> dict[str, Any]:
    """Return the groups of the store, including the catalog's data of every item in them."""
    report = es.open(path).duplicates(threshold=THRESHOLD)
    return {k: v for k, v in report.to_json().items() if k in ("groups", "items", "compared", "recall")}


def run_faiss(path: str) -> dict[str, Any]:
    """Return the pairs of FAISS's own inverted lists."""
    store = es.open(path)
    vectors = store._session.storage.vector_reader(store.spaces[0].space).map_shards()
    cells = max(2, len(vectors) // self_join.ROWS_PER_CELL)
    index = faiss.index_factory(vectors.dim, f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.nprobe = 40, self_join.CELLS_PER_ROW
    order = np.random.default_rng(0).permutation(len(vectors))[: 40 * cells]
    index.train(vectors.read_float32(np.sort(order)))
    for _, rows in vectors.iter_blocks():
        index.add(rows)
    pairs = 0
    for first, rows in vectors.iter_blocks(_BLOCK_ROWS):
        limits, _, others = index.range_search(rows, THRESHOLD)
        queries = np.repeat(np.arange(first, first + len(rows)), np.diff(limits.astype(np.int64)))
        pairs += int((others > queries).sum())
    return {"pairs": pairs}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = str(corpus.open_or_create_store(options.folder or Path(temporary), options.rows))
        print(f"{options.rows:,} × {corpus.DIM}, cosine at least {THRESHOLD}")
        print("| what | seconds | peak resident GiB | found |\n| --- | --- | --- | --- |")
        for name, work in (("embedstore", run_embedstore), ("FAISS alone", run_faiss)):
            result, seconds, peak_gib = peak.measured(work, path)
            text = ", ".join(f"{v} {k}" if isinstance(v, int) else f"{k} {v}" for k, v in result.items())
            print(f"| {name} | {seconds:.0f} | {peak_gib:.2f} | {text} |", flush=True)


if __name__ == "__main__":
    main()

"""Near-duplicates of a store against FAISS alone with the same comparisons: time and peak memory.

``python -m tests.benchmarks.bench_duplicates [ROWS] [--folder FOLDER] [--brute-force ROWS]``. FAISS alone runs k-means
with the same number of cells, inverted lists over the same float16 vectors, and a range search of every row in its
three nearest cells. ``--brute-force`` compares so many rows with all by plain products, and reports the share of their
pairs that comparing within cells finds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

import embedstore as es
from embedstore.arrays import unit_rows
from embedstore.search.index import self_join
from embedstore.search.index.short_rows import short_rows
from tests.benchmarks import corpus, peak

THRESHOLD = 0.95
_FAISS_CELLS_PER_ROW = 3
_BLOCK_ROWS = 16384


def run_embedstore(path: str) -> dict[str, Any]:
    """Return the groups of the store, including the catalog's data of every item in them."""
    report = es.open(path).duplicates(threshold=THRESHOLD)
    return {k: v for k, v in report.to_json().items() if k in ("groups", "items", "pairs", "recall")}


def run_faiss(path: str) -> dict[str, Any]:
    """Return the pairs of FAISS's own inverted lists."""
    store = es.open(path)
    vectors = store._session.storage.vector_reader(store.spaces[0].space).map_shards()
    cells = max(2, len(vectors) // self_join.ROWS_PER_CELL)
    index = faiss.index_factory(vectors.dim, f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.nprobe = 40, _FAISS_CELLS_PER_ROW
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


def recall_of_cells(path: str, rows: int) -> str:
    """Return the share of the pairs of the first rows with all that comparing within cells finds."""
    store = es.open(path)
    vectors = store._session.storage.vector_reader(store.spaces[0].space).map_shards()

    def read_rows(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return unit_rows(vectors.read_float32(ids))

    first, true = read_rows(np.arange(rows)), set()
    for begin, others in vectors.iter_blocks(_BLOCK_ROWS):
        i, j = np.nonzero(first @ unit_rows(others).T >= THRESHOLD)
        true |= {(a, b) for a, b in zip(i.tolist(), (j + begin).tolist(), strict=True) if a < b}
    with short_rows(read_rows, len(vectors)) as short:
        join = self_join.SelfJoin(read_rows, short, THRESHOLD)
        found = {(a, b) for p in join.pairs_in_cells() for a, b in zip(p[0].tolist(), p[1].tolist(), strict=True)}
    return f"{len(true & found):,} of {len(true):,} pairs of the first {rows:,} rows"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--brute-force", type=int, default=0, metavar="ROWS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = str(corpus.open_or_create_store(options.folder or Path(temporary), options.rows))
        print(f"{options.rows:,} × {corpus.DIM}, cosine at least {THRESHOLD}")
        print("| what | seconds | peak resident GiB | found |\n| --- | --- | --- | --- |")
        for name, work in (("embedstore", run_embedstore), ("FAISS alone", run_faiss)):
            result, seconds, peak_gib = peak.measured(work, path)
            text = ", ".join(f"{v} {k}" if isinstance(v, int) else f"{k} {v}" for k, v in result.items())
            print(f"| {name} | {seconds:.0f} | {peak_gib:.2f} | {text} |", flush=True)
        if options.brute_force:
            print(f"found within cells: {recall_of_cells(path, options.brute_force)}")


if __name__ == "__main__":
    main()

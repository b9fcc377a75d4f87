"""The votes of nearest neighbors next to their limit: FAISS's exact search, and the matrix product alone.

``python -m tests.benchmarks.bench_knn [ROWS ...]`` searches the neighbors of a fifth of generated rows of 512 numbers
among the others, as an evaluation does, by the head, by ``faiss.knn`` and by NumPy's product, in turns. The table has
the least processor time of all threads together, and its ratio to FAISS.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from embedstore.classify.heads import WeightedKNN
from embedstore.threads import single_threaded_algebra
from tests.benchmarks.corpus import blocks

ROUNDS = 2
BLOCK = 2048


def product(queries: np.ndarray, rows: np.ndarray) -> None:
    """Multiply all queries with all rows, in blocks that stay in the cache."""
    for begin in range(0, len(queries), BLOCK):
        for first in range(0, len(rows), BLOCK):
            queries[begin : begin + BLOCK] @ rows[first : first + BLOCK].T


def contestants(rows: int) -> dict[str, Callable[[], Any]]:
    """Return the ways to search the neighbors of a fifth of the rows."""
    X = np.concatenate([x for _, x, _ in blocks(rows)])
    queries, training = X[: rows // 5], X[rows // 5 :]
    head = WeightedKNN(5).fit(training, np.arange(len(training)) % 10)
    return {
        "faiss.knn": lambda: faiss.knn(queries, training, 5, metric=faiss.METRIC_INNER_PRODUCT),
        "the head": lambda: head.nearest_neighbors(queries),
        "product alone": lambda: product(queries, training),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", type=int, default=[10_000, 30_000, 100_000])
    print("| rows | way | processor time, s | ratio to FAISS |\n| --- | --- | --- | --- |")
    faiss.omp_set_num_threads(1)  # its threads wait actively where the machine is busy
    for rows in parser.parse_args().rows:
        ways = contestants(rows)
        best = dict.fromkeys(ways, float("inf"))
        for _ in range(ROUNDS):
            for name, work in ways.items():
                with single_threaded_algebra():
                    begin = time.process_time()
                    work()
                    best[name] = min(best[name], time.process_time() - begin)
        for name, seconds in best.items():
            print(f"| {rows:,} | {name} | {seconds:.2f} | {seconds / best['faiss.knn']:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""What a filter costs that no search used before, and what the same filter costs again.

``python -m tests.benchmarks.bench_filter FOLDER [ROWS] [--queries 20]`` uses vectors of ``corpus.py`` (the store
is created in FOLDER if it is missing). At each share of matching items it takes in turns, with another constant in
each query: the condition evaluated by DuckDB alone, ids as an array; the exact search with a fresh filter; and the
search with the same filter again, which costs the scan of the matches. The table has the median processor time of the
process in ms, all threads together. The first search of the process, which maps the vectors, is not counted.
"""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore.storage.queries.search import matching_items
from tests.benchmarks.corpus import arrays_of, open_or_create_store

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5)


def milliseconds(work: Callable[[], Any]) -> float:
    """Return the processor time of a call."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(store: es.Store, query: np.ndarray, share: float, number: int) -> tuple[float, float, float]:
    """Return the times of DuckDB alone, of a fresh filter and of the same filter again."""
    begin = 0.4 * number / 100
    fresh, other = (f"u >= {begin + shift:.7f} AND u < {begin + shift + share:.7f}" for shift in (0.0, 1e-6))
    with store._session.storage.catalog.read() as con:
        alone = milliseconds(lambda: matching_items(con, other))

    def search() -> Any:
        return store.search(query, where=fresh, k=10, exact=True)

    return alone, milliseconds(search), milliseconds(search)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=20)
    options = parser.parse_args()
    store = es.open(open_or_create_store(options.folder, options.rows))
    queries = arrays_of(options.folder, options.rows)[2]
    for query in queries[:5]:
        store.search(query, where="u < 0.5", k=10, exact=True)  # warm: the row index and the columns of hits
    print("| share that matches | DuckDB alone, ms | fresh, ms | repeated, ms | fresh / (DuckDB + repeated) |")
    print("| --- | --- | --- | --- | --- |")
    for share in SHARES:
        times = [measure(store, queries[n % len(queries)], share, n) for n in range(options.queries)]
        alone, fresh, again = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {share:.2%} | {alone:.1f} | {fresh:.1f} | {again:.1f} | {fresh / (alone + again):.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""Measure an approximate index within a memory budget, and rows added after the build: time, recall and peak memory.

``python -m tests.benchmarks.bench_index [ROWS] [--max-memory 4GB] [--folder FOLDER]`` runs every line in its own
process; resident memory includes mapped pages. A named folder keeps the vectors for another run.

``--search-memory 512MB`` also searches with filters in a cgroup of that size, in which the cache of the files counts,
and prints the median and the 99th percentile of ``--queries`` searches.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore.search.execute import Searcher
from embedstore.search.options import SearchOptions
from embedstore.storage.query_limits import parse_size
from tests.benchmarks import corpus, memory_limit, peak

QUERIES = 50
SHARES = (1.0, 0.5, 0.1, 0.01)  # of the rows, that a filter selects


def build(path: str, memory: str) -> dict[str, Any]:
    """Build an index."""
    return es.open(path).build_index(recall=0.95, max_memory=memory).to_json()


def near_rows(store: es.Store, rows: int, count: int) -> Any:
    """Return queries that are near rows of the store, float32 ``(count, dim)``."""
    rng = np.random.default_rng(3)
    space = store.spaces[0].space
    vectors = store._session.storage.vector_reader(space).read_float32(np.sort(rng.integers(0, rows, count)))
    return vectors + 0.02 * rng.standard_normal(vectors.shape, np.float32)


def search(path: str, rows: int, exact: bool) -> dict[str, Any]:
    """Search for near rows; the first query is separate, because it loads what the others find in memory."""
    store = es.open(path)
    storage, space = store._session.storage, store.spaces[0]
    queries = near_rows(store, rows, QUERIES)
    searcher = Searcher(storage)
    begin = time.perf_counter()
    searcher.search(space, queries[0], SearchOptions(exact=exact))
    first = time.perf_counter() - begin
    times, items, method = _run_queries(searcher, space, queries, SearchOptions(exact=exact))
    return {"first": first, "ms": 1000 * float(np.median(times)), "items": items, "method": method}


def _run_queries(
    searcher: Searcher, space: Any, queries: Any, options: SearchOptions
) -> tuple[list[float], list[list[int]], str]:
    """Return the seconds and the items of every query, and the search method."""
    times, items, method = [], [], ""
    for q in queries:
        begin = time.perf_counter()
        result = searcher.search(space, q, options)
        times.append(time.perf_counter() - begin)
        items.append([h.item for h in result.hits])
        method = str(result.plan.method)
    return times, items, method


def search_filtered(path: str, rows: int, count: int, memory: int) -> dict[str, Any]:
    """Search with filters within a limit of memory; 0 searches exactly, without one, for the first queries alone."""
    problem = memory_limit.limit_memory(memory) if memory else ""
    if problem:
        return {"problem": problem}
    store = es.open(path)
    space, queries, searcher = store.spaces[0], near_rows(store, rows, count), Searcher(store._session.storage)
    queries = queries if memory else queries[:QUERIES]
    found: dict[str, Any] = {}
    for share in SHARES:
        options = SearchOptions(where=None if share == 1 else f"u < {share}", exact=not memory)
        searcher.search(space, queries[0], options)
        times, items, method = _run_queries(searcher, space, queries, options)
        found[str(share)] = {"ms": [1000 * seconds for seconds in times], "items": items, "method": method}
    return {"shares": found, "most": memory_limit.most_used()}


def add_rows(path: str, rows: int, more: int) -> None:
    """Add more rows."""
    corpus.add(es.open(path), rows + more, first=rows)


def main() -> None:
    """Search exactly, build, search, add one row in a hundred, search again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--max-memory", default="4GB")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--search-memory", type=parse_size, default=0, help="such as 512MB")
    parser.add_argument("--queries", type=int, default=500, help="searches of each filter within --search-memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        path = str(corpus.open_or_create_store(folder, options.rows))
        print("| what | seconds | ms a query, warm | recall@10 | peak resident GiB |\n| --- | --- | --- | --- | --- |")
        _run(path, options.rows, options.max_memory)
        if options.search_memory:
            _print_filtered(path, options.rows, options.queries, options.search_memory)


def _run(path: str, rows: int, memory: str) -> None:
    """Print the table."""
    exact, _, gib = peak.measured(search, path, rows, True)
    print(f"| exact search, the first {exact['first']:.1f} s | | {exact['ms']:.1f} | 1.000 | {gib:.2f} |", flush=True)
    index, seconds, gib = peak.measured(build, path, memory)
    print(
        f"| build of {index['setting']} within {memory}, probe {index['probe']} | {seconds:.0f} | {index['ms']:.1f} "
        f"(proposals alone) | {index['recall']:.3f} (held out) | {gib:.2f} |",
        flush=True,
    )
    _print_search("search", path, rows, exact["items"])
    more = max(corpus.BLOCK, rows // 100)
    _, seconds, gib = peak.measured(add_rows, path, -(-rows // corpus.BLOCK) * corpus.BLOCK, more)
    print(f"| {more:,} rows more | {seconds:.1f} | | | {gib:.2f} |", flush=True)
    exact, _, _ = peak.measured(search, path, rows, True)
    _print_search("search, without a build", path, rows, exact["items"])


def _print_search(what: str, path: str, rows: int, exact_items: list[list[int]]) -> None:
    """Print one line of a search with the index."""
    result, _, gib = peak.measured(search, path, rows, False)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(result["items"], exact_items, strict=True)])
    name = f"{what} by {result['method']}, the first {result['first']:.1f} s"
    print(f"| {name} | | {result['ms']:.1f} | {recall:.3f} | {gib:.2f} |", flush=True)


def _print_filtered(path: str, rows: int, count: int, memory: int) -> None:
    """Print a table of filtered searches within a limit of memory."""
    limited, _, _ = peak.measured(search_filtered, path, rows, count, memory)
    if "problem" in limited:
        print(limited["problem"])
        return
    memory_limit.remove_groups()
    exact, _, _ = peak.measured(search_filtered, path, rows, count, 0)
    print(f"\nwithin {memory / 1e6:.0f} MB, of which {(limited['most'] or 0) / 1e6:.0f} were used at most:\n")
    print("| share that matches | method | median, ms | 99th percentile, ms | recall@10 |")
    print("| --- | --- | --- | --- | --- |")
    for share, found in limited["shares"].items():
        pairs = zip(found["items"], exact["shares"][share]["items"], strict=False)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in pairs])
        median, high = np.percentile(found["ms"], [50, 99])
        print(f"| {float(share):.0%} | {found['method']} | {median:.1f} | {high:.1f} | {recall:.3f} |")


if __name__ == "__main__":
    main()

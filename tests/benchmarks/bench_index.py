"""An approximate index within a memory budget, and rows added beside it: time, recall and peak memory.

``python -m tests.benchmarks.bench_index [ROWS] [--max-memory 4GB] [--folder FOLDER]``. Every line is a process of its
own; resident memory counts mapped pages too. A folder that is named keeps the vectors for another run.
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
from tests.benchmarks import corpus, peak

QUERIES = 50


def built(path: str, memory: str) -> dict[str, Any]:
    """Build an index."""
    return es.open(path).index(recall=0.95, max_memory=memory).to_json()


def searched(path: str, rows: int, exact: bool) -> dict[str, Any]:
    """Ask near rows; the first query apart, as it loads what the others find in memory."""
    store = es.open(path)
    storage, space = store._session.storage, store.spaces[0]
    rng = np.random.default_rng(3)
    vectors = storage.vector_reader(space.space).read_float32(np.sort(rng.integers(0, rows, QUERIES)))
    queries = vectors + 0.02 * rng.standard_normal(vectors.shape, np.float32)
    searcher = Searcher(storage)
    begin = time.perf_counter()
    searcher.search(space, queries[0], SearchOptions(exact=exact))
    first = time.perf_counter() - begin
    times, found, plan = _asked(searcher, space, queries, SearchOptions(exact=exact))
    return {"first": first, "ms": 1000 * float(np.median(times)), "found": found, "way": plan}


def _asked(
    searcher: Searcher, space: Any, queries: Any, ask: SearchOptions
) -> tuple[list[float], list[list[int]], str]:
    """Times, items and the way."""
    times, found, way = [], [], ""
    for q in queries:
        begin = time.perf_counter()
        got = searcher.search(space, q, ask)
        times.append(time.perf_counter() - begin)
        found.append([h.item for h in got.hits])
        way = str(got.plan.method)
    return times, found, way


def added(path: str, rows: int, more: int) -> None:
    """More rows."""
    corpus.add(es.open(path), rows + more, first=rows)


def main() -> None:
    """Exact, build, search, add one row in a hundred, search again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--max-memory", default="4GB")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        path = str(corpus.open_or_create_store(folder, given.rows))
        print("| what | seconds | ms a query, warm | recall@10 | peak resident GiB |\n| --- | --- | --- | --- | --- |")
        _run(path, given.rows, given.max_memory)


def _run(path: str, rows: int, memory: str) -> None:
    """The table."""
    right, _, top = peak.measured(searched, path, rows, True)
    print(f"| exact search, the first {right['first']:.1f} s | | {right['ms']:.1f} | 1.000 | {top:.2f} |", flush=True)
    made, seconds, top = peak.measured(built, path, memory)
    print(
        f"| build of {made['setting']} within {memory}, probe {made['probe']} | {seconds:.0f} | {made['ms']:.1f} "
        f"(proposals alone) | {made['recall']:.3f} (held out) | {top:.2f} |",
        flush=True,
    )
    _searched("search", path, rows, right["found"])
    more = max(corpus.BLOCK, rows // 100)
    _, seconds, top = peak.measured(added, path, -(-rows // corpus.BLOCK) * corpus.BLOCK, more)
    print(f"| {more:,} rows more | {seconds:.1f} | | | {top:.2f} |", flush=True)
    right, _, _ = peak.measured(searched, path, rows, True)
    _searched("search, without a build", path, rows, right["found"])


def _searched(what: str, path: str, rows: int, right: list[list[int]]) -> None:
    """One line of a search through the index."""
    got, _, top = peak.measured(searched, path, rows, False)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(got["found"], right, strict=True)])
    print(
        f"| {what} by {got['way']}, the first {got['first']:.1f} s | | {got['ms']:.1f} | {recall:.3f} | {top:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()

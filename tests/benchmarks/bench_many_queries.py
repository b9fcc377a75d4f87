"""The nearest items of many queries at once, against one search after another: processor time of each query.

``python -m tests.benchmarks.bench_many_queries [ROWS] [--queries 256] [--folder FOLDER]`` uses the vectors of
``corpus.py`` without an index. ``classify`` finds the evidence of its images in this way.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import embedstore as es
from embedstore.search.execute import Searcher
from embedstore.search.options import SearchOptions
from tests.benchmarks import corpus


def main() -> None:
    """Print a line for each number of queries, and check that both ways give the same hits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="?", default=300_000)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = corpus.open_or_create_store(options.folder or Path(temporary), options.rows)
        _, x, _ = next(corpus.blocks(min(corpus.BLOCK, options.rows)))
        compare(path, x[: options.queries])


def compare(path: Path, queries: np.ndarray) -> None:
    """Time both ways with 1, 16, 64 and all queries."""
    storage = es.open(path)._session.storage
    searcher, space, wanted = Searcher(storage), storage.space(), SearchOptions(k=5, where="u >= 0")
    for _ in range(5):
        searcher.search(space, queries[0], wanted)  # fills the caches
    for count in sorted({1, 16, 64, len(queries)}):
        part = list(queries[:count])
        alone, expected = timed(lambda part=part: [searcher.search(space, query, wanted).hits for query in part])
        together, found = timed(lambda part=part: searcher.search_many(space, part, wanted))
        assert found == expected
        print(
            f"{count:5} queries: {1000 * alone / count:.1f} ms of processor time each alone, "
            f"{1000 * together / count:.1f} together"
        )


def timed(work: Callable[[], list[object]]) -> tuple[float, list[object]]:
    """Return the seconds of processor time of all threads, and the result."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


if __name__ == "__main__":
    main()

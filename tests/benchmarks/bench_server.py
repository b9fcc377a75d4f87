"""Seconds until the page's server answers on a store of a million items: ``python -m tests.benchmarks.bench_server``.

The store is made of imported vectors, so no network and no image is needed. Each request is sent once after a change of
the store (cold: the order is sorted) and once more (warm), over a socket.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import httpx
import numpy as np

import embedstore as es
from embedstore.temporary import temporary_folder
from tests.server.conftest import running

DIM = 64
REQUESTS = {
    "first page": ("/items", {"limit": 100}),
    "middle": ("/items", {"limit": 100, "offset": 500_000}),
    "middle by a column": ("/items", {"limit": 100, "offset": 500_000, "order": "year", "descending": True}),
    "filter": ("/items", {"limit": 100, "where": "year >= 2015 and label <> 'c3'"}),
    "facets": ("/facets", {"columns": ["label", "year"]}),
    "completion": ("/complete", {"text": "label = 'c"}),
    "store": ("/store", {}),
}


def make_store(folder: Path, count: int) -> es.Store:
    """Return a store of random vectors with a label and a year."""
    rng = np.random.default_rng(0)
    store = es.create(folder / "million.store")
    table = {
        "uri": [f"photos/{n // 1000:04d}/{n}.jpg" for n in range(count)],
        "label": [f"c{v}" for v in rng.integers(0, 20, count)],
        "year": rng.integers(2000, 2026, count).tolist(),
    }
    store.add_vectors(rng.normal(size=(count, DIM)).astype(np.float32), table)
    return store


def seconds(client: httpx.Client, path: str, query: dict[str, object]) -> float:
    """Return how long one answer takes."""
    begin = time.perf_counter()
    client.get(f"/api/v1{path}", params=query).raise_for_status()
    return round(time.perf_counter() - begin, 4)


def main() -> None:
    """Make the store, send each request twice, and print the seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    items = parser.parse_args().items
    with temporary_folder() as folder:
        store = make_store(folder, items)
        with running(store) as server, server.client() as client:
            cold = {name: seconds(client, *request) for name, request in REQUESTS.items()}
            warm = {name: seconds(client, *request) for name, request in REQUESTS.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"items": items, "cold": cold, "warm": warm, "peak MB": round(peak)}, indent=1))


if __name__ == "__main__":
    main()

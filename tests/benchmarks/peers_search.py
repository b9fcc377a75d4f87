"""Filtered search with other tools over the same vectors; an interpreter that has them runs it.

``python peers_search.py FOLDER PEER`` reads ``x.npy`` (N, D) float32, ``u.npy`` (N,) and ``q.npy`` in FOLDER, and
prints JSON lines.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5, 1.0)


def lancedb(folder, x, u):
    """Search LanceDB without an index (float32 vectors), prefiltered."""
    import lancedb as lance
    import pyarrow as pa

    db = lance.connect(folder / "lance")
    if (folder / "lance" / "t.lance").exists():
        return _lancedb_query(db.open_table("t"))
    schema = pa.schema([("id", pa.int64()), ("u", pa.float64()), ("v", pa.list_(pa.float32(), x.shape[1]))])

    def batches():
        for b in range(0, len(x), 50_000):
            rows = x[b : b + 50_000]
            flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), x.shape[1])
            yield pa.record_batch(
                [pa.array(np.arange(b, b + len(rows))), pa.array(u[b : b + len(rows)]), flat], schema=schema
            )

    return _lancedb_query(db.create_table("t", data=batches(), schema=schema))


def _lancedb_query(table):
    """Return a prefiltered query."""
    return lambda q, share: [
        r["id"]
        for r in table.search(q)
        .distance_type("dot")
        .where(f"u < {share}", prefilter=True)
        .select(["id"])
        .limit(10)
        .to_list()
    ]


def hnswlib(folder, x, u):
    """Search hnswlib with a filter function."""
    import hnswlib as h

    index = h.Index("ip", x.shape[1])
    file = folder / "hnswlib.bin"
    if file.exists():
        index.load_index(str(file), max_elements=len(x))
    else:
        index.init_index(len(x), M=16, ef_construction=100)
        for b in range(0, len(x), 50_000):
            index.add_items(x[b : b + 50_000])
        index.save_index(str(file))
    index.set_ef(200)

    def query(q, share):
        try:
            return index.knn_query(q, 10, num_threads=1, filter=lambda i: u[i] < share)[0][0].tolist()
        except RuntimeError:
            return []  # fewer than k rows match: hnswlib then returns none

    return query


def chroma(folder, x, u):
    """Search Chroma on the disk."""
    import chromadb

    client = chromadb.PersistentClient(str(folder / "chroma"))
    c = client.get_or_create_collection("bench", metadata={"hnsw:space": "ip"})
    for b in range(c.count(), len(x), 5000):
        e = min(len(x), b + 5000)
        c.add([str(i) for i in range(b, e)], x[b:e], metadatas=[{"u": float(v)} for v in u[b:e]])
    return lambda q, share: [
        int(i) for i in c.query(q[None], n_results=10, where={"u": {"$lt": share}}, include=[])["ids"][0]
    ]


def main(folder, peer):
    """Ingest, then print the median of the queries at every selectivity."""
    folder = Path(folder)
    x, u, queries = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in "xuq")
    begin = time.perf_counter()
    query = {"lancedb": lancedb, "hnswlib": hnswlib, "chroma": chroma}[peer](folder, x, u)
    print(json.dumps({"peer": peer, "ready_s": time.perf_counter() - begin}), flush=True)
    for share in SHARES:
        times, found = [], []
        query(queries[0], share)
        for q in queries:
            begin = time.perf_counter()
            found.append([int(i) for i in query(np.ascontiguousarray(q), share)])
            times.append(time.perf_counter() - begin)
        print(
            json.dumps({"peer": peer, "share": share, "ms": 1000 * float(np.median(times)), "found": found}), flush=True
        )


if __name__ == "__main__":
    main(*sys.argv[1:])

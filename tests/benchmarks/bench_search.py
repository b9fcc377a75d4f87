"""Search and filtered search through a store, against a bare FAISS call and other tools, in one run.

``python -m tests.benchmarks.bench_search [ROWS] [--peers PYTHON] [--with lancedb,hnswlib,chroma] [--duckdb]
[--only-peers] [--recall 0.99] [--folder FOLDER]``. The vectors are those of ``corpus.py``. Every tool gets the same
queries (near rows of the corpus) and the filter ``u < share`` over uniform u. With ``--recall`` an index is built, and
"as it plans" are the searches that may ask it. A folder that is named keeps the vectors and what was made of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import faiss
import numpy as np
import pyarrow as pa

import embedstore as es
from embedstore.search.execute import Searcher
from embedstore.search.options import SearchOptions
from tests.benchmarks import corpus
from tests.benchmarks.peers_search import SHARES


def bare(x: np.ndarray) -> faiss.Index:
    """FAISS alone on the same float16 vectors."""
    index = faiss.IndexScalarQuantizer(corpus.DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    for begin in range(0, len(x), 65536):
        index.add(np.ascontiguousarray(x[begin : begin + 65536]))
    return index


def timed(ask, queries) -> tuple[float, list[list[int]]]:
    """Median milliseconds, and what was found."""
    ask(queries[0])
    times, found = [], []
    for q in queries:
        begin = time.perf_counter()
        found.append(ask(q))
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times)), found


def side_by_side(one, other, queries):
    """Two ways in turn, query by query, so that whatever else the machine does falls on both."""
    for ask in (one, other):
        ask(queries[0])
    times, found = ([], []), ([], [])
    for q in np.repeat(queries, 3, axis=0):
        for n, ask in enumerate((one, other)):
            begin = time.perf_counter()
            found[n].append(ask(q))
            times[n].append(time.perf_counter() - begin)
    return [(1000 * float(np.median(t)), f) for t, f in zip(times, found, strict=True)]


def ours(store: es.Store, share: float | None, **options):
    """A search through the store: row numbers of its hits (items are numbered from 1)."""
    where = None if share is None else f"u < {share}"
    searcher, space, options = Searcher(store._session.storage), store.spaces[0], SearchOptions(where=where, **options)
    return lambda q: [h.item - 1 for h in searcher.search(space, q, options).hits]


def by_faiss(index: faiss.Index, u: np.ndarray, share: float):
    """FAISS with a bitmap that is ready before the clock starts; the truth too."""
    bits = np.packbits(u < share, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)
    parameters = faiss.SearchParameters(sel=selector)
    return lambda q, keep=(bits, selector): index.search(q[None], 10, params=parameters)[1][0].tolist()


def by_duckdb(folder: Path, x: np.ndarray, u: np.ndarray):
    """DuckDB's brute force."""
    con = duckdb.connect(str(folder / "brute.duckdb"))
    begin = time.perf_counter()
    if con.execute("FROM duckdb_tables()").fetchone() is None:
        _filled(con, x, u)
        print(f"| DuckDB: ingest {time.perf_counter() - begin:.0f} s | | | | | |")
    sql = f"SELECT id FROM t WHERE u < ? ORDER BY array_inner_product(v, ?::FLOAT[{corpus.DIM}]) DESC LIMIT 10"
    return lambda share: lambda q: [r[0] for r in con.execute(sql, [share, q.tolist()]).fetchall()]


def _filled(con: duckdb.DuckDBPyConnection, x: np.ndarray, u: np.ndarray) -> None:
    """Vectors into a table."""
    con.execute(f"CREATE TABLE t (id BIGINT, u DOUBLE, v FLOAT[{corpus.DIM}])")
    for begin in range(0, len(x), 20_000):
        rows = np.ascontiguousarray(x[begin : begin + 20_000])
        given = pa.table(  # noqa: F841 - read by SQL
            {
                "id": np.arange(begin, begin + len(rows)),
                "u": u[begin : begin + len(rows)],
                "v": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), corpus.DIM),
            }
        )
        con.execute("INSERT INTO t SELECT * FROM given")


def recall(found: list[list[int]], truth: list[list[int]]) -> tuple[float, int]:
    """Recall@10, and the fewest hits of a query."""
    hits = sum(len(set(f) & {t for t in right if t >= 0}) for f, right in zip(found, truth, strict=True))
    return hits / max(1, sum(t >= 0 for right in truth for t in right)), min(len(f) for f in found)


def main() -> None:
    """Everything, as one table on stdout."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--peers", default=sys.executable)
    parser.add_argument("--with", dest="names", default="")
    parser.add_argument("--duckdb", action="store_true")
    parser.add_argument("--only-peers", action="store_true", help="leave out the lines of bare FAISS")
    parser.add_argument("--recall", type=float, help="of an index that is built first, if there is none")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        store = es.open(corpus.open_or_create_store(folder, given.rows))
        x, u, q = corpus.arrays_of(folder, given.rows)
        print(
            f"{given.rows:,} × {corpus.DIM}, {os.cpu_count()} cores, Python {platform.python_version()}, FAISS "
            f"{faiss.__version__}, DuckDB {duckdb.__version__}"
        )
        print("| what | share | ms | recall@10 | fewest hits | × embedstore |\n| --- | --- | --- | --- | --- | --- |")
        truth = None if given.only_peers else beside_faiss(store, x, u, q)
        if given.recall and not store.info().indexes:
            told(store.build_index(recall=given.recall))
        own, right = {}, {}
        for share in SHARES:
            exactly = ours(store, share, exact=True)
            right[share] = [exactly(v) for v in q]
            measured = timed(ours(store, share), q)
            own[share] = measured[0]
            if truth is None or given.recall:
                show("embedstore, as it plans", share, measured, right[share], own[share])
        for name in [n for n in given.names.split(",") if n]:
            peer(given.peers, folder, name, right, own)
        if given.duckdb:
            ask = by_duckdb(folder, x, u)
            for share in SHARES:
                show("DuckDB brute force", share, timed(ask(share), q[:3]), right[share][:3], own[share])


def beside_faiss(store: es.Store, x: np.ndarray, u: np.ndarray, q: np.ndarray) -> list[list[int]]:
    """The store and a bare FAISS index over the same float16 vectors, in turns; what is right without a filter."""
    index = bare(x)
    first, second = side_by_side(lambda v: index.search(v[None], 10)[1][0].tolist(), ours(store, None, exact=True), q)
    truth = first[1]
    show("bare FAISS", None, first, truth, second[0])
    show("embedstore", None, second, truth, second[0])
    for share in SHARES:
        first, second = side_by_side(by_faiss(index, u, share), ours(store, share, exact=True), q)
        show("bare FAISS, bitmap given", share, first, first[1], second[0])
        show("embedstore", share, second, first[1], second[0])
    return truth


def told(built) -> None:
    """An index that was built, as one line."""
    index = built.sidecar
    print(f"| {index.setting}, probe {index.probe}: built in {index.seconds:.0f} s | | | | | |", flush=True)


def show(what: str, share: float | None, measured, truth, base: float) -> None:
    """One line."""
    ms, found = measured
    part, fewest = recall(found, truth)
    print(f"| {what} | {'no filter' if share is None else f'{share:.2%}'} | {ms:.1f} | {part:.3f} | {fewest} "
          f"| {ms / base:.2f} |", flush=True)  # fmt: skip


def peer(python: str, folder: Path, name: str, truth, base) -> None:
    """Another tool in its own interpreter."""
    script = Path(__file__).with_name("peers_search.py")
    run = subprocess.run([python, script, folder, name], capture_output=True, text=True, check=False)
    for line in run.stdout.splitlines():
        said = json.loads(line)
        if "share" in said:
            show(name, said["share"], (said["ms"], said["found"]), truth[said["share"]], base[said["share"]])
        else:
            print(f"| {name}: ready after {said['ready_s']:.0f} s | | | | | |")
    if run.returncode:
        print(f"| {name} failed: {run.stderr.strip().splitlines()[-1]} | | | | | |")


if __name__ == "__main__":
    main()

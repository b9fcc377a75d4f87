"""Measure search and filtered search of a store against a bare FAISS call and other tools, in one run.

``python -m tests.benchmarks.bench_search [ROWS] [--peers PYTHON] [--with lancedb,hnswlib,chroma] [--duckdb]
[--only-peers] [--recall 0.99] [--folder FOLDER]`` uses the vectors of ``corpus.py``. Every tool gets the same queries
(near rows of the corpus) and the filter ``u < share`` over uniform u. With ``--recall`` an index is built, and "as it
plans" are the searches that may use it. A named folder keeps the vectors and the indexes. A peer that fails is reported
in one line.
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
from tests.benchmarks.peak import last_line
from tests.benchmarks.peers_search import SHARES


def build_bare_index(x: np.ndarray) -> faiss.Index:
    """Return a FAISS index of the same float16 vectors."""
    index = faiss.IndexScalarQuantizer(corpus.DIM, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    for begin in range(0, len(x), 65536):
        index.add(np.ascontiguousarray(x[begin : begin + 65536]))
    return index


def time_queries(search, queries) -> tuple[float, list[list[int]]]:
    """Return the median milliseconds and the rows of every query."""
    search(queries[0])
    times, rows = [], []
    for q in queries:
        begin = time.perf_counter()
        rows.append(search(q))
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times)), rows


def time_in_turns(one, other, queries):
    """Run two searches in turns, query by query, so that other work on the machine affects both."""
    for search in (one, other):
        search(queries[0])
    times, rows = ([], []), ([], [])
    for q in np.repeat(queries, 3, axis=0):
        for n, search in enumerate((one, other)):
            begin = time.perf_counter()
            rows[n].append(search(q))
            times[n].append(time.perf_counter() - begin)
    return [(1000 * float(np.median(t)), r) for t, r in zip(times, rows, strict=True)]


def search_store(store: es.Store, share: float | None, **options):
    """Return a search of the store that gives the row numbers of its hits (items are numbered from 1)."""
    where = None if share is None else f"u < {share}"
    searcher, space, options = Searcher(store._session.storage), store.spaces[0], SearchOptions(where=where, **options)
    return lambda q: [h.item - 1 for h in searcher.search(space, q, options).hits]


def search_faiss(index: faiss.Index, u: np.ndarray, share: float):
    """Return a FAISS search with a bitmap that is computed in advance; it is also the ground truth."""
    bits = np.packbits(u < share, bitorder="little")
    selector = faiss.IDSelectorBitmap(bits)
    parameters = faiss.SearchParameters(sel=selector)
    return lambda q, keep=(bits, selector): index.search(q[None], 10, params=parameters)[1][0].tolist()


def search_duckdb(folder: Path, x: np.ndarray, u: np.ndarray):
    """Return DuckDB's brute-force search."""
    con = duckdb.connect(str(folder / "brute.duckdb"))
    begin = time.perf_counter()
    if con.execute("FROM duckdb_tables()").fetchone() is None:
        _fill_table(con, x, u)
        print(f"| DuckDB: ingest {time.perf_counter() - begin:.0f} s | | | | | |")
    sql = f"SELECT id FROM t WHERE u < ? ORDER BY array_inner_product(v, ?::FLOAT[{corpus.DIM}]) DESC LIMIT 10"
    return lambda share: lambda q: [r[0] for r in con.execute(sql, [share, q.tolist()]).fetchall()]


def _fill_table(con: duckdb.DuckDBPyConnection, x: np.ndarray, u: np.ndarray) -> None:
    """Insert the vectors into a table."""
    con.execute(f"CREATE TABLE t (id BIGINT, u DOUBLE, v FLOAT[{corpus.DIM}])")
    for begin in range(0, len(x), 20_000):
        rows = np.ascontiguousarray(x[begin : begin + 20_000])
        part = pa.table(  # noqa: F841 - read by SQL
            {
                "id": np.arange(begin, begin + len(rows)),
                "u": u[begin : begin + len(rows)],
                "v": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), corpus.DIM),
            }
        )
        con.execute("INSERT INTO t SELECT * FROM part")


def recall(rows: list[list[int]], truth: list[list[int]]) -> tuple[float, int]:
    """Return recall@10 and the smallest number of hits of a query."""
    hits = sum(len(set(r) & {t for t in true if t >= 0}) for r, true in zip(rows, truth, strict=True))
    return hits / max(1, sum(t >= 0 for true in truth for t in true)), min(len(r) for r in rows)


def main() -> None:
    """Print everything as one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--peers", default=sys.executable)
    parser.add_argument("--with", dest="names", default="")
    parser.add_argument("--duckdb", action="store_true")
    parser.add_argument("--only-peers", action="store_true", help="leave out the lines of bare FAISS")
    parser.add_argument("--recall", type=float, help="of an index that is built first, if there is none")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        store = es.open(corpus.open_or_create_store(folder, options.rows))
        x, u, q = corpus.arrays_of(folder, options.rows)
        print(
            f"{options.rows:,} × {corpus.DIM}, {os.cpu_count()} cores, Python {platform.python_version()}, FAISS "
            f"{faiss.__version__}, DuckDB {duckdb.__version__}"
        )
        print("| what | share | ms | recall@10 | fewest hits | × embedstore |\n| --- | --- | --- | --- | --- | --- |")
        truth = None if options.only_peers else compare_with_faiss(store, x, u, q)
        if options.recall and not store.info().indexes:
            print_index(store.build_index(recall=options.recall))
        own, truths = {}, {}
        for share in SHARES:
            search_exactly = search_store(store, share, exact=True)
            truths[share] = [search_exactly(v) for v in q]
            measured = time_queries(search_store(store, share), q)
            own[share] = measured[0]
            if truth is None or options.recall:
                print_row("embedstore, as it plans", share, measured, truths[share], own[share])
        for name in [n for n in options.names.split(",") if n]:
            run_peer(options.peers, corpus.folder_of(folder, options.rows), name, truths, own)
        if options.duckdb:
            search = search_duckdb(corpus.folder_of(folder, options.rows), x, u)
            for share in SHARES:
                measured = time_queries(search(share), q[:3])
                print_row("DuckDB brute force", share, measured, truths[share][:3], own[share])


def compare_with_faiss(store: es.Store, x: np.ndarray, u: np.ndarray, q: np.ndarray) -> list[list[int]]:
    """Run the store and a bare FAISS index of the same vectors in turns; return the true rows without a filter."""
    index = build_bare_index(x)
    bare_search = lambda v: index.search(v[None], 10)[1][0].tolist()  # noqa: E731
    first, second = time_in_turns(bare_search, search_store(store, None, exact=True), q)
    truth = first[1]
    print_row("bare FAISS", None, first, truth, second[0])
    print_row("embedstore", None, second, truth, second[0])
    for share in SHARES:
        first, second = time_in_turns(search_faiss(index, u, share), search_store(store, share, exact=True), q)
        print_row("bare FAISS, bitmap given", share, first, first[1], second[0])
        print_row("embedstore", share, second, first[1], second[0])
    return truth


def print_index(report) -> None:
    """Print one line about an index that was built."""
    index = report.sidecar
    print(f"| {index.setting}, probe {index.probe}: built in {index.seconds:.0f} s | | | | | |", flush=True)


def print_row(what: str, share: float | None, measured, truth, base: float) -> None:
    """Print one line."""
    ms, rows = measured
    part, fewest = recall(rows, truth)
    print(f"| {what} | {'no filter' if share is None else f'{share:.2%}'} | {ms:.1f} | {part:.3f} | {fewest} "
          f"| {ms / base:.2f} |", flush=True)  # fmt: skip


def run_peer(python: str, folder: Path, name: str, truth, base) -> None:
    """Run another tool in its own interpreter and print its lines."""
    script = Path(__file__).with_name("peers_search.py")
    run = subprocess.run([python, script, folder, name], capture_output=True, text=True, check=False)
    for line in run.stdout.splitlines():
        row = json.loads(line)
        if "share" in row:
            print_row(name, row["share"], (row["ms"], row["found"]), truth[row["share"]], base[row["share"]])
        else:
            print(f"| {name}: ready after {row['ready_s']:.0f} s | | | | | |")
    if run.returncode:
        print(f"| {name} failed: {last_line(run)} | | | | | |")


if __name__ == "__main__":
    main()

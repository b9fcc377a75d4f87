"""Verbs at the size of large stores: wall time, processor time and the most anonymous memory.

``python -m tests.benchmarks.bench_large FOLDER [ROWS …] [--verbs export knn probe duplicates]`` writes ROWS vectors of
512 numbers (``corpus``) and a Parquet table of names and of labels by a noisy linear rule, imports them, and runs the
verbs on the store, each in a process of its own. What a process imports is part of its time. Beside import and export
stands the time of writing as many bytes to the same disk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np

from tests.benchmarks import corpus

CLASSES = 10
SAMPLE_SECONDS = 0.05  # between two looks at the memory


def write_input(folder: Path, rows: int) -> None:
    """Write the vectors and their table, unless they are there."""
    x, _, _ = corpus.arrays_of(folder, rows)
    table = corpus.folder_of(folder, rows) / "table.parquet"
    if table.exists():
        return
    rng = np.random.default_rng(7)
    rule = rng.standard_normal((corpus.DIM, CLASSES)).astype(np.float32)
    labels = np.concatenate([
        np.argmax(x[s : s + 8192] @ rule + 0.05 * rng.standard_normal((len(x[s : s + 8192]), CLASSES)), axis=1)
        for s in range(0, rows, 8192)
    ])  # fmt: skip
    named = {"n": np.arange(rows), "label": labels}  # noqa: F841 - read by SQL
    uri = "'photos/' || (n // 1000) || '/' || n || '.jpg' AS uri"
    duckdb.sql(f"COPY (SELECT {uri}, 'c' || label AS label FROM named ORDER BY n) TO '{table}'")


def run_import(inside: Path) -> None:
    """Import the vectors into a new store."""
    import embedstore as es

    shutil.rmtree(inside / "large.store", ignore_errors=True)
    es.create(inside / "large.store").add_vectors(inside / "x.npy", inside / "table.parquet", space="large")


def run_on_store(verb: str) -> Callable[[Path], None]:
    """Return a function that runs a verb on the store."""

    def run(inside: Path) -> None:
        import embedstore as es

        store = es.open(inside / "large.store")
        given = {"export": [inside / "out.parquet"], "duplicates": []}.get(verb, ["label"])
        getattr(store, verb)(*given)

    return run


VERBS: dict[str, Callable[[Path], None]] = {"import": run_import}
VERBS |= {verb: run_on_store(verb) for verb in ("export", "knn", "probe", "duplicates")}


def run_verb(verb: str, inside: Path) -> dict[str, float]:
    """Run a verb in this process, and return what it took."""
    most = [0]
    threading.Thread(target=watch_memory, args=(most,), daemon=True).start()
    begin = time.perf_counter()
    VERBS[verb](inside)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"wall": time.perf_counter() - begin, "cpu": used.ru_utime + used.ru_stime, "megabytes": most[0] / 1024}


def watch_memory(most: list[int]) -> None:
    """Note the most anonymous memory of this process, in kB."""
    status = Path("/proc/self/status")
    while status.exists():
        most[0] = max(most[0], int(re.search(r"RssAnon:\s+(\d+)", status.read_text())[1]))
        time.sleep(SAMPLE_SECONDS)


def write_seconds(path: Path, size: int) -> float:
    """Return how long it takes to write so many bytes to the disk."""
    block = os.urandom(1 << 24)
    begin = time.perf_counter()
    with path.open("wb") as file:
        for first in range(0, size, len(block)):
            file.write(block[: size - first])
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begin
    path.unlink()
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path("bench"))
    parser.add_argument("rows", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=list(VERBS))
    parser.add_argument("--run", choices=list(VERBS), help="used by itself")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run_verb(options.run, options.folder)))
        return
    print("| verb | rows | wall time, s | processor time, s | anonymous memory, MB | writing the bytes, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rows in options.rows:
        write_input(options.folder, rows)
        inside = corpus.folder_of(options.folder, rows)
        for verb in dict.fromkeys(("import", *options.verbs)):
            command = [sys.executable, "-m", __spec__.name, str(inside), "--run", verb]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(run.stdout.splitlines()[-1])
            writes = verb in ("import", "export")
            limit = f"{write_seconds(inside / 'bytes', 2 * corpus.DIM * rows):.2f}" if writes else ""
            figures = f"{found['wall']:.1f} | {found['cpu']:.1f} | {found['megabytes']:.0f} | {limit}"
            print(f"| {verb} | {rows:,} | {figures} |", flush=True)


if __name__ == "__main__":
    main()

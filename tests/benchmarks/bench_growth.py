"""How the cost of a verb grows with the number of rows.

``python -m tests.benchmarks.bench_growth [ROWS ...] [--dim 128] [--verbs ...]`` imports that many generated vectors of
ten classes and runs each verb in a process of its own; the last one deletes a tenth of the rows. The table has the
processor time of the verb, the anonymous memory of the process at its end, and the exponent of growth from one number
of rows to the next: 1 is proportional.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es

VERBS: dict[str, Callable[[es.Store, Path], Any]] = {
    "search": lambda store, folder: store.search(like=[1], k=10),
    "fresh filter": lambda store, folder: store.search(like=[1], k=10, where="label = 'c3'"),
    "info": lambda store, folder: store.info(),
    "edit of a tenth": lambda store, folder: store.edit({"label": "'c0'"}, "label = 'c0'"),
    "verify": lambda store, folder: store.verify(),
    "export to Parquet": lambda store, folder: store.export(folder / "export.parquet"),
    "backup": lambda store, folder: store.backup(folder / "backup"),
    "duplicates": lambda store, folder: store.duplicates(0.999),
    "map, all items": lambda store, folder: store.map(max_items=None, seed=1),
    "knn": lambda store, folder: store.knn("label"),
    "probe": lambda store, folder: store.probe("label"),
    "delete of a tenth": lambda store, folder: store.delete("item % 10 = 7"),  # the last one: it changes the store
}


def generate(rows: int, dim: int) -> np.ndarray:
    """Return unit rows around ten centers; the class of row n is n modulo ten."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((10, dim), dtype=np.float32)
    X = centers[np.arange(rows) % 10] + 1.5 * rng.standard_normal((rows, dim), dtype=np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def run_verb(verb: str, path: Path, rows: int, dim: int) -> dict[str, float]:
    """Run a verb in this process, and return what it took."""
    if verb == "import":
        store, X = es.create(path), generate(rows, dim)
        table = {"uri": [f"u{n}" for n in range(rows)], "label": [f"c{n % 10}" for n in range(rows)]}
        work = lambda: store.add_vectors(X, table)  # noqa: E731
    else:
        store = es.open(path)
        work = lambda: VERBS[verb](store, path.parent)  # noqa: E731
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text() if sys.platform == "linux" else "RssAnon: 0"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "megabytes": int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024}


def measure(verb: str, path: Path, rows: int, dim: int) -> dict[str, float]:
    """Run a verb in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--run", verb, str(path), str(rows), str(dim)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=list(VERBS))
    parser.add_argument("--run", nargs=4, metavar=("VERB", "STORE", "ROWS", "DIM"), help="used by itself")
    options = parser.parse_args()
    if options.run:
        verb, path, rows, dim = options.run
        print(json.dumps(run_verb(verb, Path(path), int(rows), int(dim))))
        return
    print(f"| verb, {options.dim} dimensions | rows | processor time, s | anonymous memory, MB | exponent |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        for verb in ("import", *options.verbs):
            last: tuple[int, float] | None = None
            for rows in options.rows:
                folder = Path(name) / str(rows)
                folder.mkdir(exist_ok=True)
                found = measure(verb, folder / "s", rows, options.dim)
                exponent = math.log(found["cpu"] / last[1]) / math.log(rows / last[0]) if last else None
                shown = "" if exponent is None else f"{exponent:.2f}"
                print(f"| {verb} | {rows:,} | {found['cpu']:.2f} | {found['megabytes']:.0f} | {shown} |", flush=True)
                last = rows, found["cpu"]


if __name__ == "__main__":
    main()

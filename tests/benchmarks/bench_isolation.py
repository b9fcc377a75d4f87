"""Decoding with screening, unusual files in separate processes, against decoding everything in this process.

``python -m tests.benchmarks.bench_isolation [FOLDER ...]`` decodes every file below the folders (by default 400
generated JPEG files of 500 x 375) both ways, one after the other, and compares the processor time of both, including
the workers.
"""

from __future__ import annotations

import io
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from embedstore.errors import ImageError
from embedstore.media.image import fast_jpeg, preprocess
from embedstore.media.image.isolation import DecodeWorkerPool
from embedstore.media.image.screening import is_safe_in_process
from embedstore.pipeline.decode_method import PrepareFunction
from embedstore.space import Preprocess
from tests.conftest import picture

ROUNDS = 5
MEAN = (0.485, 0.456, 0.406)


def generate_files() -> list[bytes]:
    """Return images of a usual size."""
    out = []
    for n in range(400):
        file = io.BytesIO()
        picture(n, (500, 375)).save(file, "JPEG", quality=90)
        out.append(file.getvalue())
    return out


def read_files(folders: Iterable[str]) -> list[bytes]:
    """Return every file below some folders."""
    return [p.read_bytes() for f in folders for p in sorted(Path(f).rglob("*")) if p.is_file()]


def seconds(decode: Callable[[bytes], Any], files: list[bytes]) -> float:
    """Return this process's processor time for all files, including those that cannot be decoded."""
    begin = time.process_time()
    for data in files:
        try:
            decode(data)
        except ImageError:
            continue
    return time.process_time() - begin


def measure(name: str, prepare: PrepareFunction, files: list[bytes]) -> dict[str, Any]:
    """Return one row of the table."""
    p = Preprocess(size=(224, 224), resize=(256, 256), mean=MEAN, std=MEAN)
    unusual = [d for d in files if not is_safe_in_process(d)]
    ratios, here, there = [], 0.0, 0.0
    for n in range(ROUNDS):
        bare = seconds(lambda d: prepare(d, p), files) if n % 2 else 0.0  # in turns: the first warms the caches
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with DecodeWorkerPool(p) as isolation:
            screened = seconds(lambda d: prepare(d, p) if is_safe_in_process(d) else isolation.prepare(d), files)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        screened += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        bare = bare or seconds(lambda d: prepare(d, p), files)
        ratios.append(bare / screened)
        here, there = here + bare, there + screened
    n = len(files) * ROUNDS
    return {
        "decoder": name, "files": len(files), "unusual": len(unusual), "here_per_s": n / here,
        "screened_per_s": n / there, "ratio": statistics.median(ratios), "least": min(ratios),
    }  # fmt: skip


def main(folders: list[str]) -> list[dict[str, Any]]:
    """Print the table and return its rows."""
    files = read_files(folders) if folders else generate_files()
    rows = [measure("pillow", preprocess.prepare, files), measure("quick", fast_jpeg.prepare, files)]
    print("decoder  files  unusual  in this process /s  screened /s  ratio (median)  least")
    for r in rows:
        print(
            f"{r['decoder']:>7}  {r['files']:>5}  {r['unusual']:>7}  {r['here_per_s']:>18.0f}  "
            f"{r['screened_per_s']:>11.0f}  {r['ratio']:>14.3f}  {r['least']:>5.3f}"
        )
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])

"""A rescan with nothing new, against the limit: a walk through the same folder that reads only size and mtime.

``python -m tests.benchmarks.bench_rescan [FILES]`` writes FILES small PNG files (100,000 by default) with few different
contents, embeds them once, and rescans in a separate process that reports its peak memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import embedstore as es
from tests.conftest import TINY, picture

_RESCAN = """
import json, re, sys, time
import embedstore as es

def peak():  # of this program alone: the value of getrusage includes the memory of the parent before exec
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

store = es.open(sys.argv[1])
before, begin = peak(), time.perf_counter()
report = store.embed(sys.argv[2], progress=False)
seconds = time.perf_counter() - begin
print(json.dumps({"seconds": seconds, "unchanged": report.unchanged, "before_mb": before, "peak_mb": peak()}))
"""


def make_files(folder: Path, count: int) -> None:
    """Write ``count`` small files in folders of a thousand."""
    contents = []
    for n in range(50):
        file = folder / f"{n}.png"
        folder.mkdir(parents=True, exist_ok=True)
        picture(n, (16, 16)).save(file)
        contents.append(file.read_bytes())
        file.unlink()
    for n in range(count):
        path = folder / f"{n // 1000:04d}" / f"{n:07d}.png"
        if n % 1000 == 0:
            path.parent.mkdir()
        path.write_bytes(contents[n % 50])


def walk_seconds(folder: Path) -> float:
    """Return the limit: the seconds that reading every entry's size and mtime takes."""
    begin = time.perf_counter()
    for root, _, names in os.walk(folder):
        for name in names:
            os.stat(f"{root}/{name}")  # noqa: PTH116 - the bare system call is the limit
    return time.perf_counter() - begin


def measure(count: int) -> dict[str, float]:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name, "files"), Path(name, "s")
        make_files(folder, count)
        store = es.create(path, TINY, random_init=True, preprocess={"size": 32, "resize": 32})
        first = store.embed(folder, progress=False)
        out = subprocess.run(
            [sys.executable, "-c", _RESCAN, str(path), str(folder)], capture_output=True, text=True, check=True
        )
        row = json.loads(out.stdout)
        assert row["unchanged"] == count
        return {
            "files": count,
            "first_run_s": round(first.seconds, 2),
            "rescan_s": round(row["seconds"], 2),
            "walk_s": round(walk_seconds(folder), 2),
            "peak_mb": round(row["peak_mb"]),
            "before_mb": round(row["before_mb"]),
        }


def main(counts: list[int]) -> list[dict[str, float]]:
    """Print the table and return its rows."""
    rows = [measure(n) for n in counts]
    print("files     first run s  rescan s  walk alone s  ratio  peak MB (before)")
    for r in rows:
        print(
            f"{r['files']:>8,.0f}  {r['first_run_s']:>11.2f}  {r['rescan_s']:>8.2f}  {r['walk_s']:>12.2f}  "
            f"{r['rescan_s'] / r['walk_s']:>5.1f}  {r['peak_mb']:>7} ({r['before_mb']})"
        )
    return rows


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [10_000, 100_000])

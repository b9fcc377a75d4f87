"""Measure one command in a fresh process: small verbs, and a search by text or image with exported towers.

``python -m tests.benchmarks.bench_cold [ROUNDS]`` uses 200 generated images, the bundled CLIP and a ViT-B/32 with
random weights. Rounds take turns, after one that is not counted. The table has median and best wall time, processor
time, and the steps of the best round. Python may write its bytecode, as for installed packages.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import embedstore as es
from embedstore.quickstart.bench import generate_photos

COMMAND = [sys.executable, "-m", "embedstore", "--timing"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
NETWORKS = {"embedstore/tiny": {}, "open_clip/ViT-B-32": {"random_init": True}}


def timed(arguments: list[str]) -> tuple[float, float, str]:
    """Return wall seconds, CPU seconds, and the steps that ``--timing`` printed."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    steps = [line.strip() for line in run.stderr.splitlines() if " s  " in line]
    return seconds, cpu, "; ".join(steps[:-1])


def main(rounds: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = generate_photos(folder / "photos", 200)
        commands = {"--help": ["--help"]}
        for n, (network, options) in enumerate(NETWORKS.items()):
            store = es.create(folder / f"{n}.store", network, device="cpu", **options)
            store.embed(photos, progress=False)
            print("\n".join(store.export_towers()))
            if not n:
                commands["info"] = ["info", str(store.path)]
                commands["sql"] = ["sql", str(store.path), "select count(*) from items"]
            commands[f"search by text, {network}"] = ["search", str(store.path), "a red circle"]
            commands[f"search by image, {network}"] = ["search", str(store.path), "--image", str(photos / "00007.jpg")]
        for arguments in commands.values():
            timed(arguments)
        runs: dict[str, list[tuple[float, float, str]]] = {c: [] for c in commands}
        for _ in range(rounds):
            for command, arguments in commands.items():
                runs[command].append(timed(arguments))
        print(f"{rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print("command                                    median s   best s    CPU s  the best round")
        for command, rows in runs.items():
            best = min(rows)
            cpu = statistics.median(r[1] for r in rows)
            print(f"{command:<42} {statistics.median(r[0] for r in rows):>8.2f} {best[0]:>8.2f} {cpu:>8.2f}  {best[2]}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

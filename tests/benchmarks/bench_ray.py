"""Embedding on Ray beside a local run with the same cores, in alternation: wall time and processor time.

``python -m tests.benchmarks.bench_ray [IMAGES] [--cores 2] [--rounds 3] [--backbone NAME] [--side 32]``. One node of a
cluster is started before; each run is a command of its own into a copy of one store, so the start of Python counts on
both sides, and the start of the workers for Ray. The network of the space was exported before, as for every run but the
first.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

import embedstore as es
from tests.conftest import ROOT
from tests.engines.kill_run import worker_pids

RUN = """
import sys
import embedstore as es
path, images, address, cores, workers = sys.argv[1:]
store = es.open(path, device="cpu")
if address:
    report = store.embed(images, engine="ray", address=address, workers=int(workers),
                         cpus=int(cores) // int(workers), progress=False)
    print(report.bottleneck)
else:
    print(store.embed(images, threads=int(cores), progress=False).summary())
"""


def write_images(folder: Path, count: int, side: int, seed: int = 0) -> None:
    """Write JPEG files of smooth noise."""
    rng = np.random.default_rng(seed)
    for n in range(count):
        path = folder / f"{n // 1000:03d}" / f"{n:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (max(4, side // 8),) * 2 + (3,), dtype=np.uint8))
        small.resize((side, side), Image.Resampling.BILINEAR).save(path, quality=90)


def process_seconds(pid: int) -> float:
    """Return the processor time of a process and of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(n) for n in fields[11:15]) / os.sysconf("SC_CLK_TCK")


class WorkerClock:
    """Adds up the processor time of the workers of a cluster while a block runs; they end without being waited for.

    Args:
        cluster: the cluster.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster, self._seconds, self._ended = cluster, dict[int, float](), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Processor time of all workers so far."""
        return sum(self._seconds.values())

    def _watch(self) -> None:
        """Look at the workers ten times per second."""
        while not self._ended.wait(0.1):
            for pid in worker_pids(self._cluster):
                with suppress(OSError):
                    self._seconds[pid] = process_seconds(pid)


class Contest:
    """Runs of both engines on the same files.

    Args:
        folder: for the stores.
        images: the files.
        cluster: the cluster.
    """

    def __init__(self, folder: Path, images: Path, cluster: Any) -> None:
        self._folder, self._images, self._cluster = folder, images, cluster

    def run(self, backbone: str, cores: int, workers: int) -> tuple[float, float]:
        """Return wall and processor seconds of one run; no workers are a local run."""
        path = self._folder / "run.store"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self._template(backbone), path)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        address = self._cluster.address if workers else ""
        command = [sys.executable, "-c", RUN, str(path), str(self._images), address, str(cores), str(workers)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with WorkerClock(self._cluster) as clock:
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
        print(f"    {done.stdout.strip()}", flush=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        here = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return seconds, here + clock.seconds

    def _template(self, backbone: str) -> Path:
        """Return a store with a few other items, whose network is exported."""
        path = self._folder / "template.store"
        if not path.exists():
            write_images(self._folder / "others", 16, 32, seed=1)
            store = es.create(path, backbone, random_init=not backbone.startswith("embedstore/"), device="cpu")
            store.embed(self._folder / "others", progress=False)
            store.close()
        return path


def main() -> None:
    """Run both in alternation, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int, nargs="?", default=20_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="embedstore/tiny")
    parser.add_argument("--side", type=int, default=32)
    args = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(ROOT)
    # workers have niceness 15 otherwise, and get what other programs of the machine leave
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
    from ray.cluster_utils import Cluster

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_images(folder / "images", args.images, args.side)
        settings = {"num_cpus": args.cores, "include_dashboard": False, "object_store_memory": 80 << 20}
        cluster = Cluster(initialize_head=True, head_node_args=settings)
        stack.callback(cluster.shutdown)
        contest = Contest(folder, folder / "images", cluster)
        print(f"{args.images:,} images of {args.side} pixels, {args.backbone}, {args.cores} cores")
        for number in range(1, args.rounds + 1):
            wall, cpu = contest.run(args.backbone, args.cores, 0)
            print(f"  round {number}: local {wall:.1f} s, {cpu:.1f} s of processor time")
            for workers in args.workers:
                ray_wall, ray_cpu = contest.run(args.backbone, args.cores, workers)
                print(
                    f"  round {number}: ray with {workers} workers {ray_wall:.1f} s, {ray_cpu:.1f} s of processor "
                    f"time; throughput by wall {wall / ray_wall:.2f}, by processor time {cpu / ray_cpu:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

"""Kill workers, nodes and the driver of runs on a Ray cluster, and compare the rows with those of a local run.

``python -m tests.engines.kill_run [--images N] [--kills N] [--seed N] [--s3]`` prints a table with one
line per run. Runs are repeated, each into an empty store, until there were enough kills.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.classify.data.features import load_features
from tests.conftest import ROOT
from tests.helpers.s3_server import serve_bucket

BACKBONE = "embedstore/tiny"
KINDS = ("worker", "worker", "node", "driver")  # drawn with these weights
DRIVER = """
import sys
import embedstore as es
from embedstore.pipeline.distributed import engine
engine.PART_FILES = int(sys.argv[4])
store = es.open(sys.argv[1], device="cpu")
store.embed(sys.argv[2], engine="ray", address=sys.argv[3], cpus=1, inbox=sys.argv[5] or None, progress=False)
"""


@dataclass(frozen=True)
class KillSetting:
    """How a run is disturbed.

    Attributes:
        part_files: files of a part.
        pause: least and most seconds between two kills.
        kills: after so many the run is left alone.
        seed: of the moments and of what is killed.
        inbox: a folder of a bucket for the results; "" is the folder of the store.
    """

    part_files: int = 256
    pause: tuple[float, float] = (1.0, 10.0)
    kills: int = 50
    seed: int = 0
    inbox: str = ""


@dataclass(frozen=True)
class Rows:
    """What a store holds, by uri.

    Attributes:
        uris: of the items, ascending.
        facts: label, split, content, size and time of each item.
        vectors: float32 ``(n, dim)``.
        failures: uri and reason of each file that failed.
        items: how many items there are, with those that share a uri.
    """

    uris: list[str]
    facts: list[tuple[Any, ...]]
    vectors: np.ndarray
    failures: list[tuple[Any, ...]]
    items: int


@dataclass
class RunResult:
    """How one disturbed run ended.

    Attributes:
        kills: how often each kind was killed.
        drivers: how many commands were started.
        given_up: how many of them ended with an error, because parts failed too often.
        seconds: wall time.
        lost: items of the local run that are not there.
        double: items too many.
        wrong: items or failures that differ.
        least_cosine: of a vector with that of the local run.
        is_whole: whether ``verify`` found no problem.
    """

    kills: Counter[str] = field(default_factory=Counter)
    drivers: int = 1
    given_up: int = 0
    seconds: float = 0.0
    lost: int = 0
    double: int = 0
    wrong: int = 0
    least_cosine: float = 1.0
    is_whole: bool = False

    @property
    def is_right(self) -> bool:
        """Whether nothing is lost, double or wrong."""
        return self.is_whole and (self.lost, self.double, self.wrong) == (0, 0, 0)


def write_images(folder: Path, count: int, *, bad: int = 5) -> None:
    """Write small JPEG files of noise in folders of a thousand, and a few files that are no image."""
    rng = np.random.default_rng(0)
    for n in range(count):
        path = folder / f"{n // 1000:03d}" / f"{n:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path, quality=90)
    for n in range(bad):
        (folder / "000" / f"bad{n}.jpg").write_text(f"not an image {n}")


def read_rows(store: es.Store) -> Rows:
    """Return the rows of a store."""
    found = store.sql("SELECT uri, item, label, split, content, size, mtime_ns, present FROM items ORDER BY uri, item")
    features = load_features(store._session.storage, store._session.storage.space(), "uri")
    places = {item: n for n, item in enumerate(features.ids.tolist())}
    rows = {row[0]: row for row in found.rows}
    order = [places[rows[uri][1]] for uri in rows if rows[uri][1] in places]
    failures = store.sql("SELECT uri, reason FROM failures ORDER BY ALL").rows
    facts = [row[2:] for row in rows.values()]
    return Rows(list(rows), facts, features.X[order], list(failures), len(found.rows))


def compare_rows(result: RunResult, found: Rows, wanted: Rows) -> None:
    """Count what is lost, double or wrong."""
    by_uri = dict(zip(found.uris, found.facts, strict=True))
    result.lost = sum(uri not in by_uri for uri in wanted.uris)
    result.double = found.items - len(found.uris)
    result.wrong = sum(
        uri in by_uri and by_uri[uri] != facts for uri, facts in zip(wanted.uris, wanted.facts, strict=True)
    )
    result.wrong += len(set(found.uris) - set(wanted.uris)) + (found.failures != wanted.failures)
    if found.vectors.shape != wanted.vectors.shape:
        result.wrong += abs(len(found.vectors) - len(wanted.vectors)) or 1
        return
    cosines = (found.vectors * wanted.vectors).sum(1)
    cosines /= np.linalg.norm(found.vectors, axis=1) * np.linalg.norm(wanted.vectors, axis=1)
    result.least_cosine = float(cosines.min())
    result.wrong += int((cosines < 0.99999).sum())


def worker_pids(cluster: Any) -> list[int]:
    """Return the processes of this cluster that run a worker of ours."""
    raylets = {entry.process.pid for node in cluster.list_all_nodes() for entry in node.all_processes.get("raylet", [])}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if not (folder / "cmdline").read_bytes().startswith(b"ray::PartWorker"):
                continue
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent in raylets:
                found.append(int(folder.name))
    return found


class DisturbedRun:
    """One command ``embed --engine ray`` that is killed with everything that works for it.

    Args:
        cluster: of :mod:`ray.cluster_utils`.
        paths: the store and the images.
        setting: how it is disturbed.
    """

    def __init__(self, cluster: Any, paths: tuple[Path, Path], setting: KillSetting) -> None:
        self._cluster, self._paths, self._setting = cluster, paths, setting
        self._rng = random.Random(setting.seed)
        self._extra: list[Any] = []
        self.result = RunResult()

    def run(self, deadline: float) -> RunResult:
        """Kill until the command ends by itself, or there were enough kills; then let it end."""
        begin = time.monotonic()
        driver = self._start()
        try:
            while driver.poll() != 0:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the run did not end: {self.result}")
                if driver.poll() is not None:
                    self.result.given_up += 1
                    driver = self._restart(driver)
                self._pause(driver)
                if self.result.kills.total() < self._setting.kills and driver.poll() is None:
                    driver = self._kill_one(driver)
        finally:
            driver.kill()
            driver.wait()
            for node in self._extra:
                self._cluster.remove_node(node, allow_graceful=False)
        self.result.seconds = time.monotonic() - begin
        return self.result

    def _start(self) -> subprocess.Popen[str]:
        """Start the command in a process of its own."""
        store, images = self._paths
        command = [sys.executable, "-c", DRIVER, str(store), str(images), self._cluster.address]
        command += [str(self._setting.part_files), self._setting.inbox]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr, text=True)

    def _restart(self, driver: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """Start the command again."""
        driver.wait()
        self.result.drivers += 1
        return self._start()

    def _pause(self, driver: subprocess.Popen[str]) -> None:
        """Wait for a random time, or until the command ends."""
        with suppress(subprocess.TimeoutExpired):
            driver.wait(self._rng.uniform(*self._setting.pause))

    def _kill_one(self, driver: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """Kill a worker, a node or the driver; return the driver that runs now."""
        kind = self._rng.choice(KINDS)
        if kind == "worker":
            pids = worker_pids(self._cluster)
            if not pids:
                return driver
            with suppress(ProcessLookupError):
                os.kill(self._rng.choice(pids), signal.SIGKILL)
        elif kind == "node":
            if not self._replace_node():
                return driver
        else:
            driver.kill()
            driver = self._restart(driver)
        self.result.kills[kind] += 1
        return driver

    def _replace_node(self) -> bool:
        """Kill the node that was added last time, if there is one, add another, and return whether one was killed."""
        killed = bool(self._extra)
        if killed:
            self._cluster.remove_node(self._extra.pop(0), allow_graceful=False)
        with suppress(Exception):  # a node that does not start in time on a busy machine is one node less
            self._extra.append(self._cluster.add_node(num_cpus=1, object_store_memory=80 << 20))
        return killed


@contextmanager
def small_cluster(nodes: int) -> Iterator[Any]:
    """Yield a cluster of some nodes with one core each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["PYTHONPATH"] = str(ROOT)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def serve_inbox() -> Iterator[str]:
    """Yield a folder of a bucket on moto's server, which the environment names."""
    with pytest.MonkeyPatch.context() as patch, serve_bucket(patch) as bucket:
        yield f"{bucket.url}/inbox"


def embed_locally(path: Path, images: Path) -> Rows:
    """Embed in one process, and return the rows."""
    store = es.create(path, BACKBONE, device="cpu")
    store.embed(images, progress=False)
    return read_rows(store)


def run_once(cluster: Any, folder: Path, images: Path, wanted: Rows, setting: KillSetting) -> RunResult:
    """Embed into an empty store while everything is killed, and compare the rows with those of a local run."""
    path = folder / f"run{setting.seed}.store"
    es.create(path, BACKBONE, device="cpu")
    result = DisturbedRun(cluster, (path, images), setting).run(time.monotonic() + 3600)
    store = es.open(path, device="cpu")
    compare_rows(result, read_rows(store), wanted)
    result.is_whole = store.verify().ok
    return result


def table_line(number: int, result: RunResult) -> str:
    """Return one line of the table."""
    k = result.kills
    counts = (k["worker"], k["node"], k["driver"], result.drivers, result.given_up)
    state = (result.lost, result.double, result.wrong, f"{result.least_cosine:.7f}", result.is_whole)
    return " | ".join(["", *map(str, (number, *counts, f"{result.seconds:.0f}", *state)), ""]).strip()


TABLE_HEAD = (
    "| run | workers killed | nodes killed | drivers killed | commands | ended by too many failures | seconds | lost | "
    "double | wrong | least cosine | verify |\n" + "| --- " * 12 + "|"
)


def main(arguments: Sequence[str]) -> int:
    """Print the table, and return 1 if a row was lost, double or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part-files", type=int, default=256)
    parser.add_argument("--pause", type=float, nargs=2, default=(1.0, 10.0), help="seconds between two kills")
    parser.add_argument("--s3", action="store_true", help="results go to a bucket of moto's S3 server on loopback")
    given = parser.parse_args(arguments)
    kills: Counter[str] = Counter()
    all_right, number = True, 0
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        inbox = stack.enter_context(serve_inbox()) if given.s3 else ""  # before the nodes, which inherit its address
        cluster = stack.enter_context(small_cluster(given.nodes))
        folder, images = Path(name), Path(name) / "images"
        write_images(images, given.images)
        wanted = embed_locally(folder / "local.store", images)
        print(TABLE_HEAD, flush=True)
        while kills.total() < given.kills and number < given.kills:
            setting = KillSetting(
                part_files=given.part_files,
                pause=tuple(given.pause),
                kills=given.kills - kills.total(),
                seed=given.seed + number,
                inbox=inbox,
            )
            result = run_once(cluster, folder, images, wanted, setting)
            number, all_right = number + 1, all_right and result.is_right
            kills.update(result.kills)
            print(table_line(number, result), flush=True)
        print(f"{len(wanted.uris):,} items, {kills.total()} kills: {dict(kills)}", flush=True)
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

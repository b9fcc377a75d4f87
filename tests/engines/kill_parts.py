"""Kill workers and the writer of parts in a bucket, without a cluster, and compare the rows with those of a local run.

``python -m tests.engines.kill_parts [--server moto|rclone] [--images N] [--kills N] [--seed N]`` prints a table with
one line per run. Runs are repeated, each into an empty store, until there were enough kills.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import embedstore as es
from tests.conftest import ROOT
from tests.engines.kill_run import BACKBONE, Rows, RunResult, compare_rows, embed_locally, read_rows, write_images
from tests.helpers.rclone_server import serve_folder
from tests.helpers.s3_server import serve_bucket

ROLES = ("worker 1", "worker 2", "writer")
WORKER = """
import random, sys
import embedstore as es
from embedstore.errors import PartsError, StoreIOError
address, parts, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
order = list(range(1, parts + 1))
random.Random(seed).shuffle(order)
for part in order:
    try:
        es.work(address, str(part), device="cpu", progress=False)
    except (PartsError, StoreIOError) as e:  # the writer has removed the plan meanwhile
        if not es.open(sys.argv[4]).info().parts:
            break
        raise
"""
WRITER = """
import sys, time
import embedstore as es
while not es.open(sys.argv[1]).register().finished:
    time.sleep(0.3)
"""


@dataclass
class PartsRun:
    """Two workers and a writer that are killed at random moments and started again.

    Attributes:
        store: the folder of the store.
        address: of the plan in the bucket.
        parts: of the plan.
        rng: of the moments and of who is killed.
        kills: how often each role was killed.
    """

    store: Path
    address: str
    parts: int
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, most: int, deadline: float) -> None:
        """Kill until the plan is done, or there were enough kills; then let it end."""
        try:
            for role in ROLES:
                self._start(role)
            while self._running["writer"].poll() != 0:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the run did not end: {self.kills}")
                time.sleep(self.rng.uniform(0.2, 4.0))
                self._restart_ended()
                if self.kills.total() < most:
                    self._kill(self.rng.choice(ROLES))
        finally:
            for process in self._running.values():
                process.kill()
                process.wait()

    def _start(self, role: str) -> None:
        """Start a role in a process of its own."""
        words = [WRITER, str(self.store)]
        if role != "writer":
            words = [WORKER, self.address, str(self.parts), str(self.rng.randrange(1000)), str(self.store)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._running[role] = subprocess.Popen([sys.executable, "-c", *words], env=environment)

    def _restart_ended(self) -> None:
        """Start again what ended with an error, and workers that found every part done while the writer goes on."""
        for role, process in self._running.items():
            if process.poll() not in (None, 0) or (role != "writer" and process.poll() == 0):
                self._start(role)

    def _kill(self, role: str) -> None:
        """Kill a process of a role, and start another one."""
        process = self._running[role]
        if process.poll() is None:
            process.kill()
            process.wait()
            self.kills[role] += 1
            self._start(role)


@contextmanager
def serve_inbox(server: str, folder: Path) -> Iterator[str]:
    """Yield a folder of a bucket on the server of moto or rclone, which the environment names."""
    with pytest.MonkeyPatch.context() as patch:
        if server == "moto":
            with serve_bucket(patch) as bucket:
                yield f"{bucket.url}/inbox"
        else:
            with serve_folder(folder, patch, is_written=True):
                yield "s3://photos/inbox"


def run_once(path: Path, images: Path, wanted: Rows, inbox: str, *, most: int, seed: int) -> tuple[RunResult, int]:
    """Embed by parts in a bucket while everybody is killed; return the comparison with a local run, and the kills."""
    store = es.create(path, BACKBONE, device="cpu")
    plan = store.plan_parts(images, max(2, len(wanted.uris) // 40), inbox=inbox, progress=False)
    begin = time.monotonic()
    run = PartsRun(path, plan.address, plan.parts, random.Random(seed))
    run.run(most, begin + 3600)
    result = RunResult(kills=run.kills, seconds=time.monotonic() - begin)
    compare_rows(result, read_rows(store), wanted)
    result.is_whole = store.verify().ok and store.info().parts == []
    return result, run.kills.total()


def main(arguments: Sequence[str]) -> int:
    """Print the table, and return 1 if a row was lost, double or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=["moto", "rclone"], default="moto")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    kills, number, all_right = 0, 0, True
    with tempfile.TemporaryDirectory() as name, serve_inbox(given.server, Path(name)) as inbox:
        folder, images = Path(name), Path(name) / "images"
        write_images(images, given.images)
        wanted = embed_locally(folder / "local.store", images)
        print("| run | workers killed | writers killed | seconds | lost | double | wrong | least cosine | verify |")
        while kills < given.kills and number < given.kills:
            number += 1
            path, seed = folder / f"run{number}.store", given.seed + number
            result, more = run_once(path, images, wanted, inbox, most=given.kills - kills, seed=seed)
            kills, all_right = kills + more, all_right and result.is_right
            workers = result.kills.total() - result.kills["writer"]
            state = (result.lost, result.double, result.wrong, f"{result.least_cosine:.7f}", result.is_whole)
            values = (number, workers, result.kills["writer"], f"{result.seconds:.0f}", *state)
            print("| " + " | ".join(map(str, values)) + " |", flush=True)
    print(f"{kills} kills in {number} runs: {'nothing lost, double or wrong' if all_right else 'WRONG'}")
    return 0 if all_right else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))

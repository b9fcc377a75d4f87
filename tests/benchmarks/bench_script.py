"""Embed photos from files to a committed store, in turns with the script that a person would write.

``python -m tests.benchmarks.bench_script [PHOTOS] [--rounds 2]`` runs `embedstore embed` for a MobileNetV2 with random
weights, and ``script_peer.py`` with the graph that embedstore exported. Every run is a process of its own. "First" is
the first run of a space: PyTorch loads the network and exports it. "Later" are further runs, of photos that the store
does not know. Processor time depends little on what else the machine does. The memory is the peak, mapped files
included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

GENERATE = """
import sys
from pathlib import Path
from embedstore.quickstart.bench import generate_photos
generate_photos(Path(sys.argv[1]), int(sys.argv[2]))
"""
NETWORK = ["--backbone", "timm/mobilenetv2_100", "--random-init", "--device", "cpu"]


@dataclass(frozen=True)
class Cost:
    """What a process took: processor and wall seconds, and its peak memory in MB."""

    processor: float
    wall: float
    megabytes: float


def run(*command: object) -> Cost:
    """Run a module of Python in a process of its own."""
    begin = os.times().elapsed
    child = subprocess.Popen([sys.executable, "-m", *map(str, command)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[0]} failed with exit status {child.returncode}")
    return Cost(used.ru_utime + used.ru_stime, os.times().elapsed - begin, used.ru_maxrss / 1024)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", nargs="?", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos, store = folder / "photos", folder / "s"
        arguments = [str(photos), str(options.photos)]
        subprocess.run(
            [sys.executable, "-c", GENERATE, *arguments], check=True
        )  # a small process has children of small memory
        run("embedstore", "create", store)
        few = folder / "few"
        few.mkdir()
        shutil.copy(next(photos.iterdir()), few)
        costs = {"embedstore, first": [run("embedstore", "embed", store, photos, *NETWORK)]}
        (graph,) = store.glob("spaces/*/towers/image/graph.onnx")
        run("embedstore", "delete", store, "--where", "true")
        run("embedstore", "compact", store)
        for n in range(options.rounds):
            kept = shutil.copytree(store, folder / f"{n}.store")
            script = ("tests.benchmarks.script_peer", graph, photos, folder / "v.npy")
            costs.setdefault("script", []).append(run(*script))
            costs.setdefault("embedstore, later", []).append(run("embedstore", "embed", kept, photos, *NETWORK))
        shutil.rmtree(folder / "0.store")
        one = shutil.copytree(store, folder / "one.store")
        costs["embedstore, one photo"] = [run("embedstore", "embed", one, few, *NETWORK)]
    peer = min(cost.processor for cost in costs["script"])
    print(
        "| run | processor time, s | ratio to the script | wall, s | peak memory, MB |\n| --- | --- | --- | --- | --- |"
    )
    for what, runs in costs.items():
        best = min(runs, key=lambda cost: cost.processor)
        print(
            f"| {what} | {best.processor:.2f} | {best.processor / peer:.2f} | {best.wall:.1f} | {best.megabytes:.0f} |"
        )


if __name__ == "__main__":
    main()

"""Embed a folder end to end, next to what a user would run instead and next to the limit of this machine.

``python -m tests.benchmarks.bench_embed [IMAGES] [--rounds 2] [--networks …] [--runtimes …] [--peers PYTHON] [--beside
…]`` embeds generated JPEG photos of 500 x 375 with random weights of one seed on both sides. embedstore runs from files
to a committed store, including the comparisons of runtime and decoder; the network is loaded before, and for onnx
exported before, as in every run of a store after the first (the seconds of the export are printed). embedstore and the
peers take turns, and the table shows the median of the rounds. The limit is ``embedstore bench`` on the same images,
measured right before each run of embedstore: decoding alone and the forward pass alone, each on all cores, added up,
with the decoder that the run used; the share is the median of the rounds. PYTHON is an environment that also has
clip-retrieval and sentence-transformers; without it the two are left out. A peer that fails is reported in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import embedstore as es
from embedstore.backbones.runtimes.runtime import Runtime, compare_vectors
from embedstore.quickstart import bench
from embedstore.quickstart.bench_result import BenchSettings
from tests.benchmarks.peak import last_line

NETWORKS = ("timm/mobilenetv2_100", "timm/resnet50", "open_clip/ViT-B-32")
PEERS = {"timm": ("dataloader", "timm_loop"), "open_clip": ("dataloader", "clip_retrieval", "sentence_transformers")}
ALL_PEERS = list(dict.fromkeys(p for peers in PEERS.values() for p in peers))
EXTERNAL_PEERS = ("clip_retrieval", "sentence_transformers")  # in the environment of --peers
OWN_WEIGHTS = ("sentence_transformers",)  # another module layout: its vectors cannot be compared


def run_embedstore(folder: Path, photos: Path, name: str, runtime: str) -> tuple[float, np.ndarray, dict[str, Any]]:
    """Return the seconds from files to a committed store, the vectors in the order of the files, and the stages."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        store = es.create(Path(home) / "s", name, random_init=True, dtype="float32", runtime=runtime)
        if runtime == Runtime.ONNX:
            print("   ", *store.export_towers(towers=["image"]))
        begin = time.perf_counter()
        report = store.embed(photos, progress=False)
        seconds = time.perf_counter() - begin
        features = store.features("uri")
        return seconds, features.X[np.argsort(features.y)], report.stage_times | {"decoder": report.decoder}


def run_peer(python: str, peer: str, name: str, photos: Path, out: Path) -> tuple[float, np.ndarray] | None:
    """Return the seconds of a peer in its own process and its vectors, or None if it failed."""
    command = [python, "-m", "tests.benchmarks.peers_embed", peer, name, str(photos), str(out)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as e:
        print(f"    {peer} is left out: {python} cannot be run: {e.strerror}", flush=True)
        return None
    if run.returncode:
        print(f"    {peer} is left out: {last_line(run)}", flush=True)
        return None
    return json.loads(run.stdout.splitlines()[-1])["seconds"], np.load(out)


@dataclass(frozen=True)
class StageRates:
    """Images per second of decoding and of one runtime's forward pass, each alone on all cores."""

    decode: float
    forward: float

    @property
    def limit(self) -> float:
        """Images per second of both, one after the other on the same cores."""
        return 1 / (1 / self.decode + 1 / self.forward)


def measure_stages(photos: Path, name: str, count: int, runtime: str) -> dict[str, StageRates]:
    """Return the rates by decoder, measured now: the load of a shared machine changes within an hour."""
    settings = BenchSettings(name, max_images=count, seconds_per_stage=4.0, runtime=Runtime(runtime))
    result = bench.run(photos, settings)
    forward = next(r.images_per_second for r in result.runtimes if r.runtime == runtime)
    return {decoder: StageRates(rate, forward) for decoder, rate in result.decode_rates.items()}


class NetworkBenchmark:
    """The measurements of one network, over all rounds."""

    def __init__(self, folder: Path, photos: Path, name: str, options: argparse.Namespace) -> None:
        self.folder, self.photos, self.name, self.options = folder, photos, name, options
        self.seconds: dict[str, list[float]] = {}  # by runtime or peer
        self.rates: dict[str, list[StageRates]] = {}  # by runtime
        self.vectors: dict[str, np.ndarray] = {}
        self.stages: dict[str, dict[str, Any]] = {}
        self.peers: dict[str, str] = {}  # peer -> its interpreter
        for peer in PEERS.get(name.partition("/")[0], ()):
            python = options.peers if peer in EXTERNAL_PEERS else sys.executable
            if peer in options.beside and python:
                self.peers[peer] = python

    def measure(self) -> None:
        """Run every round."""
        for _ in range(self.options.rounds):
            for runtime in self.options.runtimes:
                rates = measure_stages(self.photos, self.name, min(self.options.images, 256), runtime)
                seconds, self.vectors[runtime], stages = run_embedstore(self.folder, self.photos, self.name, runtime)
                self.stages[runtime] = stages
                self.rates.setdefault(runtime, []).append(rates[stages["decoder"]])
                self._add(runtime, seconds)
            for peer, python in list(self.peers.items()):
                result = run_peer(python, peer, self.name, self.photos, self.folder / "peer.npy")
                if result is None:
                    del self.peers[peer]
                    continue
                self.vectors[peer] = result[1]
                self._add(peer, result[0])

    def _add(self, what: str, seconds: float) -> None:
        """Add one run."""
        self.seconds.setdefault(what, []).append(seconds)
        print(f"    {what}: {seconds:.1f} s", file=sys.stderr, flush=True)

    def print(self) -> None:
        """Print the rows of the table."""
        count = self.options.images
        median = {what: statistics.median(seconds) for what, seconds in self.seconds.items()}
        for runtime in self.options.runtimes:
            runs, stages = self.rates[runtime], self.stages[runtime]
            share = statistics.median(count / s / r.limit for s, r in zip(self.seconds[runtime], runs, strict=True))
            rates = StageRates(*(statistics.median(getattr(r, n) for r in runs) for n in ("decode", "forward")))
            write = stages["write"]["cpu"] / stages["cpu"]
            print(
                f"{self.name:<22} {runtime:<8} {count / median[runtime]:>8.1f} {rates.decode:>8.1f} "
                f"{rates.forward:>9.1f} {rates.limit:>7.1f} {share:>6.2f} {write:>7.1%}  {stages['decoder']}"
            )
            for peer in self.peers:
                own = peer in OWN_WEIGHTS
                same = "its own weights" if own else compare_vectors(self.vectors[peer], self.vectors[runtime])
                rate, ratio = count / median[peer], median[peer] / median[runtime]
                print(f"    {peer:<22} {rate:>8.1f} img/s; embedstore is {ratio:.2f} times as fast; {same}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="?", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--runtimes", nargs="+", default=["eager", "onnx"])
    parser.add_argument("--peers", default="", help="the interpreter of an environment with the external peers")
    parser.add_argument("--beside", nargs="*", default=ALL_PEERS, help="which peers; none measures the limit alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = bench.generate_photos(folder / "photos", options.images)
        print(f"{options.images} images, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print("network                runtime     img/s  decode/s forward/s   limit  share  writing  decoder")
        for network in options.networks:
            benchmark = NetworkBenchmark(folder, photos, network, options)
            benchmark.measure()
            benchmark.print()


if __name__ == "__main__":
    main()

"""Embedding end to end against what a user would pick instead, and against the limit of this machine.

``python -m tests.benchmarks.bench_embed [IMAGES] [--rounds 2] [--networks …] [--runtimes …] [--peers PYTHON]
[--beside …]``: JPEG photos of 500 x 375 (made here), random weights of one seed on both sides. Ours runs from files to
a committed store, the comparisons of runtime and decoder included, the network loaded and for onnx exported before, as
a store is from its second run on (the seconds of the export are told). Ours and the peers take turns; the table shows
the median of the rounds. The limit is ``embedstore bench`` on the same images, taken right before each of our runs:
decoding alone and the forward alone, each on all cores, added up, with the decoder that the run took; the share is the
rounds' median.
PYTHON is an environment that has clip-retrieval and sentence-transformers too; without it the two are left out.
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
from PIL import Image

import embedstore as es
from embedstore.backbones.runtimes.runtime import Runtime, compare_vectors
from embedstore.quickstart import bench

NETWORKS = ("timm/mobilenetv2_100", "timm/resnet50", "open_clip/ViT-B-32")
OTHERS = {"timm": ("dataloader", "timm_loop"), "open_clip": ("dataloader", "clip_retrieval", "sentence_transformers")}
ALL = dict.fromkeys(p for peers in OTHERS.values() for p in peers)
ELSEWHERE = ("clip_retrieval", "sentence_transformers")  # in the environment of --peers
OWN_WEIGHTS = ("sentence_transformers",)  # another module layout: no vectors to compare


def make_photos(folder: Path, count: int) -> Path:
    """JPEG files with the detail of photos: smooth shapes and fine noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse = shapes.resize((500, 375), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(coarse, np.int16) + rng.normal(0, 12, (375, 500, 1)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{n:05d}.jpg", quality=90)
    return folder


def ours(folder: Path, photos: Path, name: str, runtime: str) -> tuple[float, np.ndarray, dict[str, Any]]:
    """Seconds from files to a committed store, the vectors in the order of the files, and the stages."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        store = es.create(Path(home) / "s", name, random_init=True, dtype="float32", runtime=runtime)
        if runtime == Runtime.ONNX:
            print("   ", *store.export_towers(towers=["image"]))
        begin = time.perf_counter()
        report = store.embed(photos, show_progress=False)
        seconds = time.perf_counter() - begin
        found = store.features("uri")
        return seconds, found.X[np.argsort(found.y)], report.stage_times | {"decoder": report.decoder}


def peer(python: str, which: str, name: str, photos: Path, out: Path) -> tuple[float, np.ndarray]:
    """Seconds of a peer in a process of its own, and its vectors."""
    command = [python, "-m", "tests.benchmarks.peers_embed", which, name, str(photos), str(out)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])["seconds"], np.load(out)


@dataclass(frozen=True)
class Alone:
    """Images per second of decoding and of one runtime's forward, each alone on all cores."""

    decode: float
    forward: float

    @property
    def limit(self) -> float:
        """Images per second of both, one after the other on the same cores."""
        return 1 / (1 / self.decode + 1 / self.forward)


def alone(photos: Path, name: str, count: int, runtime: str) -> dict[str, Alone]:
    """The limit by decoder, measured now: a machine that others use too is not the same an hour later."""
    found = bench.run(
        photos, bench.BenchSettings(name, max_images=count, seconds_per_stage=4.0, runtime=Runtime(runtime))
    )
    forward = next(n.images_per_second for n in found.runtimes if n.runtime == runtime)
    return {decoder: Alone(rate, forward) for decoder, rate in found.decode_rates.items()}


def measure(folder: Path, photos: Path, name: str, options: argparse.Namespace) -> None:
    """The rows of one network."""
    count = options.images
    peers = [p for p in OTHERS[name.partition("/")[0]] if p in options.beside]
    pythons = {p: options.peers if p in ELSEWHERE else sys.executable for p in peers}
    took: dict[str, list[float]] = {}
    limits: dict[str, list[Alone]] = {}
    vectors: dict[str, np.ndarray] = {}
    stages = {}
    for _ in range(options.rounds):
        for runtime in options.runtimes:
            limit = alone(photos, name, min(count, 256), runtime)
            seconds, vectors[runtime], stages[runtime] = ours(folder, photos, name, runtime)
            limits.setdefault(runtime, []).append(limit[stages[runtime]["decoder"]])
            took.setdefault(runtime, []).append(seconds)
            print(f"    {runtime}: {seconds:.1f} s", file=sys.stderr, flush=True)
        for which, python in pythons.items():
            if python:
                seconds, vectors[which] = peer(python, which, name, photos, folder / "peer.npy")
                took.setdefault(which, []).append(seconds)
                print(f"    {which}: {seconds:.1f} s", file=sys.stderr, flush=True)
    median = {k: statistics.median(v) for k, v in took.items()}
    for runtime in options.runtimes:
        share = statistics.median(count / t / a.limit for t, a in zip(took[runtime], limits[runtime], strict=True))
        decode, forward = (statistics.median(getattr(a, n) for a in limits[runtime]) for n in ("decode", "forward"))
        write = stages[runtime]["write"]["cpu"] / stages[runtime]["cpu"]
        print(
            f"{name:<22} {runtime:<8} {count / median[runtime]:>8.1f} {decode:>8.1f} {forward:>9.1f} "
            f"{Alone(decode, forward).limit:>7.1f} {share:>6.2f} {write:>7.1%}  {stages[runtime]['decoder']}"
        )
        for which in (k for k in took if k in pythons):
            same = "its own weights" if which in OWN_WEIGHTS else str(compare_vectors(vectors[which], vectors[runtime]))
            ratio = median[which] / median[runtime]
            print(
                f"    {which:<22} {count / median[which]:>8.1f} img/s; embedstore is {ratio:.2f} times as fast; {same}"
            )


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="?", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--runtimes", nargs="+", default=["eager", "onnx"])
    parser.add_argument("--peers", default="")
    parser.add_argument("--beside", nargs="*", default=[*ALL], help="which peers; none measures the limit alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = make_photos(folder / "photos", options.images)
        print(f"{options.images} images, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print("network                runtime     img/s  decode/s forward/s   limit  share  writing  decoder")
        for network in options.networks:
            measure(folder, photos, network, options)


if __name__ == "__main__":
    main()

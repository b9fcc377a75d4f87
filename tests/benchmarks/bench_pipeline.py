"""What everything around the network costs: embed tiny files with a network that takes no time.

``python -m tests.benchmarks.bench_pipeline [FILES]`` embeds FILES and three times as many PNG files of 32 x 32 pixels,
each number in a process of its own with one thread of PyTorch, and prints the processor time of one more image: the
difference between the two runs, without the start of the process and of the run and without the scan. Reading, hashing,
decoding, the forward pass of an identity and committing are in it. Of the threads, "prefetch" plans and starts tasks,
"forward" is the network, which is no part of the pipeline, and "commit" writes. Threads that wait cost some on a
busy machine, so that the figures of an idle one are lower. Images per second are from the wall time of the two runs.

``--constant`` gives every file the same pixels in place of decoding it, so that what remains is the pipeline's alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

import embedstore as es
from embedstore.pipeline.decode import ImageDecoder, PreparedFile

SIDE = 32  # pixels


def instant(**_: object):
    """Return a network that gives the first row of pixels."""
    from torch import nn

    class FirstRow(nn.Module):
        """The first row of pixels of every channel."""

        def forward(self, images):
            return images[:, :, 0, :].flatten(1) + 1.0

    return FirstRow()


def write_images(folder: Path, count: int) -> None:
    """Write different images, a thousand to a folder."""
    rng = np.random.default_rng(0)
    for n in range(count):
        path = folder / f"{n // 1000:04d}" / f"{n:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path, compress_level=1)


def time_threads() -> Counter[str]:
    """Return the processor time of threads by their names; filled while they end."""
    seconds, run = Counter(), threading.Thread.run

    def timed_run(thread: threading.Thread) -> None:
        begin = time.thread_time()
        try:
            run(thread)
        finally:
            seconds[thread.name.rstrip("_0123456789")] += time.thread_time() - begin

    threading.Thread.run = timed_run
    return seconds


def decode_first_only() -> None:
    """Let the decoder give every file what it made of the first."""
    decode, first = ImageDecoder.decode, []

    def constant(decoder: ImageDecoder, file: PreparedFile, data: bytes) -> PreparedFile:
        if not first:
            first.append(decode(decoder, file, data))
        return file.with_input(first[0].input, first[0].info)

    ImageDecoder.decode = constant


def embed(store: Path, photos: Path, *, constant: bool) -> None:
    """Embed in this process, and print what it took."""
    if constant:
        decode_first_only()
    threads = time_threads()
    opened = es.open(store, device="cpu", allow_code=[f"{__spec__.name}:instant"])
    begin = time.perf_counter()
    report = opened.embed(photos, batch_size=256, runtime="eager", progress=False)
    wall = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text() if sys.platform == "linux" else ""
    anonymous = re.search(r"RssAnon:\s+(\d+)", status)
    print(json.dumps({
        "cpu": used.ru_utime + used.ru_stime,
        "wall": wall,
        "megabytes": int(anonymous[1]) / 1024 if anonymous else 0,
        "embedded": report.embedded,
        "stages": report.stage_times,
        "threads": threads,
    }))  # fmt: skip


def measure(folder: Path, count: int, *, constant: bool) -> dict:
    """Embed a number of files in a process of its own."""
    photos, store = folder / f"photos{count}", folder / f"{count}.store"
    write_images(photos, count)
    preprocess = {"size": SIDE, "resize": SIDE, "mean": 0.5, "std": 0.5}
    es.create(store, f"{__spec__.name}:instant", preprocess=preprocess, random_init=True, device="cpu")
    command = [sys.executable, "-m", __spec__.name, "--run", str(store), str(photos)]
    command += ["--constant"] * constant
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that wait for each other would be counted
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Print the cost of one more image."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="?", type=int, default=4000)
    parser.add_argument("--run", nargs=2, metavar=("STORE", "PHOTOS"), help="embed in this process (used by itself)")
    parser.add_argument("--constant", action="store_true", help="give every file the pixels of the first")
    options = parser.parse_args()
    if options.run:
        embed(*map(Path, options.run), constant=options.constant)
        return
    with tempfile.TemporaryDirectory() as name:
        few, many = (
            measure(Path(name), count, constant=options.constant) for count in (options.files, 3 * options.files)
        )
    more = many["embedded"] - few["embedded"]
    per_image = {n: 1e6 * (many["stages"][n] - few["stages"][n]) / more for n in ("cpu",)}
    per_image |= {
        n: 1e6 * (many["stages"][n]["cpu"] - few["stages"][n]["cpu"]) / more for n in ("read", "decode", "write")
    }
    threads = {n: 1e6 * (many["threads"][n] - few["threads"][n]) / more for n in ("prefetch", "forward", "commit")}
    per_image |= {f"thread {name}": microseconds for name, microseconds in threads.items()}
    per_image["all stages but decoding"] = per_image["cpu"] - per_image["decode"]
    per_image["without the network"] = per_image["all stages but decoding"] - threads["forward"]
    for what, microseconds in per_image.items():
        print(f"{what:<24} {microseconds:>8.1f} µs of processor time per image")
    print(f"{'images per second':<24} {more / (many['wall'] - few['wall']):>8.0f}")
    print(f"{'anonymous memory':<22} {few['megabytes']:>8.0f} MB, then {many['megabytes']:.0f} MB")


if __name__ == "__main__":
    main()

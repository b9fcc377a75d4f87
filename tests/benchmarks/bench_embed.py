"""Embedding end to end against what a user would write instead, and against the limit of this machine.

``python -m tests.benchmarks.bench_embed [IMAGES]``: JPEG photos of 500 x 375 (made here), one network with random
weights. The peer is timm's own transform and model in a torch DataLoader with one worker a core, then ``np.save``.
The limit adds the time of decoding alone (on all cores) and of the forward alone: two cores cannot do both at once.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import embedstore as es
from embedstore import decode
from embedstore.decode import preprocess

NETWORKS = ("mobilenetv2_100", "resnet50")
CORES = os.cpu_count() or 1


class Photos(Dataset[torch.Tensor]):
    """The peer's data set."""

    def __init__(self, files: list[Path], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[i]).convert("RGB"))


def make_photos(folder: Path, count: int) -> list[Path]:
    """JPEG files with the detail of photos: smooth shapes and fine noise."""
    rng = np.random.default_rng(0)
    files = []
    for n in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse = shapes.resize((500, 375), Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(coarse, np.int16) + rng.normal(0, 12, (375, 500, 1)), 0, 255).astype(np.uint8)
        files.append(folder / f"{n:05d}.jpg")
        Image.fromarray(noisy).save(files[-1], quality=90)
    return files


def ours(folder: Path, photos: Path, name: str) -> tuple[float, np.ndarray]:
    """Seconds from files to a committed store, and the vectors."""
    store = es.create(folder / f"{name}.store", f"timm/{name}", random_init=True, dtype="float32")
    begin = time.perf_counter()
    store.embed(photos, show_progress=False)
    seconds = time.perf_counter() - begin
    return seconds, store.features("uri").X


def peer(files: list[Path], model: torch.nn.Module) -> tuple[float, np.ndarray]:
    """Seconds of the plain script, and its vectors."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    loader = DataLoader(Photos(files, transform), batch_size=32, num_workers=CORES, multiprocessing_context="spawn")
    begin = time.perf_counter()
    with torch.inference_mode():
        vectors = torch.cat([model(batch) for batch in loader]).numpy()
    return time.perf_counter() - begin, vectors


def limit(files: list[Path], name: str, folder: Path) -> float:
    """Seconds of decoding alone plus the forward alone."""
    network = es.open(folder / f"{name}.store").backbone()
    p = network.space.preprocess
    assert p is not None
    begin = time.perf_counter()
    with ThreadPoolExecutor(CORES) as pool:
        pixels = list(pool.map(lambda f: preprocess.apply(decode.open_image(f)[0], p), files))
    for start in range(0, len(pixels), 32):
        network.encode_images(np.stack(pixels[start : start + 32]))
    return time.perf_counter() - begin


def main(count: int) -> None:
    """The table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos"
        photos.mkdir()
        files = make_photos(photos, count)
        print("network           ours img/s  peer img/s  ours/peer  limit img/s  ours/limit  least cosine to peer")
        for network in NETWORKS:
            seconds, mine = ours(folder, photos, network)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = timm.create_model(network, num_classes=0).eval()
            theirs_seconds, theirs = peer(files, model)
            least = limit(files, network, folder)
            cosine = (mine * theirs).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(theirs, axis=1)
            print(
                f"{network:<16}  {count / seconds:>10.1f}  {count / theirs_seconds:>10.1f}  "
                f"{theirs_seconds / seconds:>9.2f}  {count / least:>11.1f}  {least / seconds:>10.2f}  "
                f"{cosine.min():.7f}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 320)

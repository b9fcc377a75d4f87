"""Twins across a split that no cosine separates: how many are among the first pairs, by cosine and by pixels.

``python -m tests.benchmarks.bench_twins [--folder FOLDER]``. The training images are those of CIFAR-10 in the shared
data and photos of 32 by 32 pixels; the test images are those of CIFAR-10 and a twin of each photo: cropped to 93 to
100%, brightness and contrast changed by up to 15%, half of them mirrored, saved as JPEG of quality 75. The network is
MobileNetV2-0.35.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

import embedstore as es
from tests.benchmarks import peak
from tests.helpers.archives import unpack_tar

DATA = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", "../shared/data"))
_SIDE = 32
_FIRST = (50, 100, 250, 500, 1000)


def main() -> None:
    """Print how many twins are among the first pairs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp())
    store = folder / "twins.store"
    if not store.exists():
        count = write_images(folder / "images")
        begin = time.perf_counter()
        weights = DATA / "weights" / "mobilenetv2_035_imagenet.safetensors"
        opened = es.create(
            store, "timm/mobilenetv2_035", weights=weights, backbone_args={"pad_type": "same", "bn_eps": 1e-3},
            preprocess={"mean": 0.5, "std": 0.5},
        )  # fmt: skip
        opened.embed(folder / "images")
        print(f"{count} twins; embedded in {time.perf_counter() - begin:.0f} s")
    twins = len(list((folder / "images" / "test" / "photos").iterdir()))
    print("| ranked by | seconds | peak GiB | pairs | " + " | ".join(f"twins in the first {n}" for n in _FIRST) + " |")
    for name, work in (("cosine", by_cosine), ("pixels", by_pixels)):
        hits, seconds, gib = peak.measured(work, str(store))
        cells = " | ".join(f"{sum(hits[:n])}" for n in _FIRST)
        print(f"| {name} | {seconds:.0f} | {gib:.2f} | {len(hits)} | {cells} |  ({twins} twins)", flush=True)


def by_cosine(path: str) -> list[bool]:
    """Return whether each pair is a pair of twins, by falling cosine."""
    return _twins(es.open(path).duplicates(0.6))


def by_pixels(path: str) -> list[bool]:
    """Return whether each pair is a pair of twins, by falling score of the pixels."""
    return _twins(es.open(path).duplicates(check_pixels=True))


def _twins(found: es.DuplicateGroups) -> list[bool]:
    names = ((Path(p.uri), Path(p.other_uri)) for p in found.cross_split_pairs)
    return [a.name == b.name and a.parent.name == b.parent.name == "photos" for a, b in names]


def write_images(folder: Path) -> int:
    """Write the images, and return the number of twins."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("cifar10", "imagenet250", "hymenoptera"):
            unpack_tar(DATA / f"{name}.tar", Path(temporary))
        shutil.move(Path(temporary) / "cifar10", folder)  # `--folder` may be on another disk
        photos = sorted(p for p in Path(temporary).rglob("*") if p.suffix in (".JPEG", ".jpg"))
        for split in ("train", "test"):
            (folder / split / "photos").mkdir()
        for i, path in enumerate(photos):
            with Image.open(path) as image:
                photo = image.convert("RGB")
            photo.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(
                folder / "train/photos" / f"{i}.jpg", quality=75
            )
            _twin(photo, rng).save(folder / "test/photos" / f"{i}.jpg", quality=75)
    return len(photos)


def _twin(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return another small image of the same photo."""
    share = rng.uniform(0.93, 1)
    width, height = photo.size
    left, top = rng.uniform(0, 1 - share) * width, rng.uniform(0, 1 - share) * height
    box = (left, top, left + share * width, top + share * height)
    twin = photo.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, box)
    twin = ImageEnhance.Brightness(twin).enhance(rng.uniform(0.85, 1.15))
    twin = ImageEnhance.Contrast(twin).enhance(rng.uniform(0.85, 1.15))
    return ImageOps.mirror(twin) if rng.random() < 0.5 else twin


if __name__ == "__main__":
    main()

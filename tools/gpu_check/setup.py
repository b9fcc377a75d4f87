"""What every step needs: the device, its photos and a folder; and how stores are made for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import embedstore as es
from embedstore.backbones.registry import BUNDLED_INFO
from embedstore.pipeline.report import EmbedReport
from embedstore.quickstart.bench import generate_photos

BASE_PHOTOS = 64
RUN_OPTIONS = ("batch_size", "threads", "engine", "workers", "runtime")  # of a run; the others are of the store
COMMENT_MARKER = b"\xff\xfe"  # a JPEG's comment segment: two bytes of marker, two of length, the text


@dataclass(frozen=True)
class Setup:
    """Where and on what the steps run.

    Attributes:
        device: as torch names it.
        folder: for stores and generated files.
        images: how many photos the throughput takes; the other steps take a few.
        large_side: the longer side of the large JPEG; the other is two thirds of it.
        given_photos: a folder of JPEG files, or None to generate some.
    """

    device: str
    folder: Path
    images: int = 20_000
    large_side: int = 9500
    given_photos: Path | None = None

    @cached_property
    def photos(self) -> list[Path]:
        """The JPEG files, each with its own content."""
        if self.given_photos:
            found = sorted(p for p in self.given_photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
            return found[: self.images]
        return numbered_copies(generate_photos(self.folder / "base", min(BASE_PHOTOS, self.images)), self.images)

    @cached_property
    def large_photo(self) -> Path:
        """One JPEG of about 60 megapixels."""
        path = self.folder / "large.jpg"
        small = Image.open(self.photos[0]).convert("RGB")
        small.resize((self.large_side, self.large_side * 2 // 3), Image.Resampling.BILINEAR).save(path, quality=85)
        return path

    def embed(self, name: str, files: list[Path], **options: object) -> tuple[EmbedReport, NDArray[np.float32]]:
        """Embed files with the bundled network into a new store; return the report and the vectors, by file name."""
        of_run = {name: options.pop(name) for name in RUN_OPTIONS if name in options}
        options = {"device": self.device, "precision": "fp32", **options}
        path = self.folder / f"{name}.store"
        es.create(path, BUNDLED_INFO.name, device="cpu", dtype="float32")
        store = es.open(path, **options)
        report = store.embed(files, progress=False, **of_run)
        features = store.features("uri")
        return report, features.X[np.argsort(features.y)]


def numbered_copies(folder: Path, count: int) -> list[Path]:
    """Write copies of JPEG files that differ in a comment, so that each is embedded, and return them all."""
    originals = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    target = folder.with_name("photos")
    target.mkdir()
    paths = [target / f"{n:06d}.jpg" for n in range(count)]
    for n, path in enumerate(paths):
        data, text = originals[n % len(originals)], f"{n:06d}".encode()
        segment = COMMENT_MARKER + (len(text) + 2).to_bytes(2, "big") + text
        path.write_bytes(data[:2] + segment + data[2:])
    return paths

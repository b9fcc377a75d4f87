"""Faults of pictures: how many are found, and how many good pictures are reported, next to cleanvision.

``python -m tests.benchmarks.bench_quality``. The good pictures are the photos of ants and bees in the shared data. Each
fault is put into 60 of them, from slight to strong. cleanvision runs with its own limits; what it calls ``light``,
``low_information``, ``odd_aspect_ratio`` and ``grayscale`` is bright, little in it, odd shape and without color.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from embedstore.media.image.quality import Fault, picture_facts

DATA = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", "../shared/data"))
NAMES = {
    Fault.DARK: "is_dark_issue",
    Fault.BRIGHT: "is_light_issue",
    Fault.BLURRED: "is_blurry_issue",
    Fault.EMPTY: "is_low_information_issue",
    Fault.GRAY: "is_grayscale_issue",
    Fault.ODD_SHAPE: "is_odd_aspect_ratio_issue",
}
_FAULTY = 60  # pictures of each fault


def _scaled(image: Image.Image, part: float) -> Image.Image:
    return image.resize((max(1, round(image.width * part)), image.height))


# what puts a fault into a picture, by its strength from 0 (slight) to 1
FAULTS: Mapping[Fault, Callable[[Image.Image, float], Image.Image]] = {
    Fault.DARK: lambda image, strength: image.point(lambda level: level * (0.25 - 0.2 * strength)),
    Fault.BRIGHT: lambda image, strength: image.point(lambda level: 255 - (255 - level) * (0.05 - 0.04 * strength)),
    Fault.BLURRED: lambda image, strength: image.filter(
        ImageFilter.GaussianBlur(max(image.size) * (0.012 + 0.03 * strength))
    ),
    Fault.EMPTY: lambda image, strength: image.resize((1, 1), Image.Resampling.BOX).resize(image.size),
    Fault.GRAY: lambda image, strength: image.convert("L").convert("RGB"),
    Fault.ODD_SHAPE: lambda image, strength: _scaled(image, (0.3 - 0.2 * strength) * image.height / image.width),
}


def write_pictures(good: Iterable[Image.Image], folder: Path, faulty: int = _FAULTY) -> None:
    """Write good pictures, and some of them with each fault: ``good/0.png``, ``dark/0.png``."""
    pictures = list(good)
    for n, image in enumerate(pictures):
        _write(image, folder / "good" / f"{n}.png")
    for fault, put in FAULTS.items():
        for n, image in enumerate(pictures[:faulty]):
            _write(put(image, n / max(faulty - 1, 1)), folder / fault.name / f"{n}.png")


def _write(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, compress_level=1)


def ours(folder: Path) -> dict[Path, set[Fault]]:
    """Return the faults of each picture by embedstore."""
    return {path: set(picture_facts(path.read_bytes()).faults) for path in sorted(folder.rglob("*.png"))}


def theirs(folder: Path) -> dict[Path, set[Fault]]:
    """Return the faults of each picture by cleanvision."""
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = Imagelab(data_path=str(folder))
        lab.find_issues(n_jobs=1)
    table = lab.issues
    return {Path(path): {fault for fault, name in NAMES.items() if row[name]} for path, row in table.iterrows()}


def shares(found: Mapping[Path, set[Fault]], fault: Fault) -> tuple[float, float]:
    """Return the share of the pictures with a fault that are reported with it, and of the good ones that are."""
    have = {path: fault in faults for path, faults in found.items()}
    return tuple(  # type: ignore[return-value]
        float(np.mean([is_so for path, is_so in have.items() if path.parent.name == name]))
        for name in (fault.name, "good")
    )


def main() -> None:
    """Print a table of both."""
    with tempfile.TemporaryDirectory() as name, tarfile.open(DATA / "hymenoptera.tar") as archive:
        folder = Path(name)
        members = sorted(m.name for m in archive.getmembers() if m.name.endswith(".jpg"))
        read = (Image.open(io.BytesIO(archive.extractfile(m).read())).convert("RGB") for m in members)  # type: ignore[union-attr]
        write_pictures(read, folder)
        mine, other = ours(folder), theirs(folder)
        print("| fault | found | cleanvision | good ones reported | cleanvision |\n| --- | --- | --- | --- | --- |")
        for fault in FAULTS:
            (found, false), (their_found, their_false) = shares(mine, fault), shares(other, fault)
            print(f"| {fault} | {found:.0%} | {their_found:.0%} | {false:.1%} | {their_false:.1%} |")


if __name__ == "__main__":
    main()

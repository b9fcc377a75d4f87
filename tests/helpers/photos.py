"""Photos whose colors say which part of them was read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.image_files import encode

SIDE = 40


def quartered(seed: int = 0, *, orientation: int = 1, form: str = "PNG") -> bytes:
    """Return a square photo whose quarters are red, green, blue and white, in reading order, with one odd pixel."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    half = SIDE // 2
    pixels[:half, :half], pixels[:half, half:] = (255, 0, 0), (0, 255, 0)
    pixels[half:, :half], pixels[half:, half:] = (0, 0, 255), (255, 255, 255)
    pixels[0, 0] = (seed % 256, seed // 256 % 256, 0)
    options = {}
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    return encode(Image.fromarray(pixels), form, **options)


def write_photos(folder: Path, *names: str) -> Path:
    """Write one photo per name, all different, and return the folder."""
    for n, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(quartered(n + 1))
    return folder

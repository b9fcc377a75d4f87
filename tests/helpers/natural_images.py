"""Generated images with the statistics of photos: detail at every scale, and copies of them of several kinds."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

SIDE = 128


def natural_image(seed: int) -> Image.Image:
    """Return an RGB image of 128 by 128 pixels with detail at every scale, the coarse the strongest."""
    rng = np.random.default_rng(seed)
    total = np.zeros((SIDE, SIDE, 3))
    for cells in (2, 4, 8, 16, 32, 64, 128):
        grid = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.asarray(grid.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float) / np.sqrt(cells)
    total -= total.min()
    return Image.fromarray((total * 255 / total.max()).astype(np.uint8))


def saved_again(image: Image.Image, quality: int = 40) -> Image.Image:
    """Return an image as JPEG makes it."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data)


def cropped(image: Image.Image, left: float, top: float, part: float) -> Image.Image:
    """Return a part of an image, from places and a size as shares of its sides."""
    x, y, side = (round(value * SIDE) for value in (left, top, part))
    return image.crop((x, y, x + side, y + side))


COPIES = {
    "saved again": saved_again,
    "mirrored": ImageOps.mirror,
    "a quarter of the size": lambda image: image.resize((SIDE // 4, SIDE // 4)),
    "shifted by 5%": lambda image: cropped(image, 0.05, 0.02, 0.95),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "cropped to 85%, mirrored": lambda image: ImageOps.mirror(cropped(image, 0.1, 0.02, 0.85)),
    "cropped to 75%": lambda image: cropped(image, 0.2, 0.1, 0.75),
}

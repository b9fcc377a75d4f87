"""From an upright RGB image to the pixels that a network takes, with the very bytes of the libraries' transforms.

timm and open_clip build theirs from torchvision's Resize and CenterCrop and a resize that keeps the ratio. The
rounding below is theirs: the longer side is cut to a whole number, a ratio is rounded to even, a crop's corner too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.errors import ImageError
from embedstore.media.image.decode import DECODER_VERSION, open_image
from embedstore.space import Interpolation, Preprocess, ResizeMode
from embedstore.types import FailureReason, ImageInfo

__all__ = ["DECODER_VERSION", "prepare", "resize_and_crop"]

RESAMPLING = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}

# A strip of 1 × 1,000,000 pixels resized by its shorter side would be 224 × 224 million. Beyond this many pixels only
# the part around the centre is resized: 64 MiB as Pillow holds RGB, reached at a ratio of 1 : 334 for 224 pixels.
MAX_RESIZED_PIXELS = 1 << 24


def prepare(data: bytes, preprocess: Preprocess) -> tuple[NDArray[np.uint8], ImageInfo]:
    """One file as a network takes it, with the libraries' own bytes: the reference of every other way.

    Returns:
        uint8 ``(3, H, W)``, and the picture's facts.

    Raises:
        ImageError: for whatever keeps the image from being used.
    """
    image, picture = open_image(data)
    return resize_and_crop(image, preprocess), picture


def resize_and_crop(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resize and crop.

    Args:
        image: RGB, upright.
        p: how.

    Returns:
        uint8 ``(3, H, W)``, contiguous; mean and std are applied with the network.

    Raises:
        ImageError: NO_MEMORY.
    """
    try:
        out = _crop(_resize(image, preprocess), preprocess)
        return np.ascontiguousarray(np.asarray(out).transpose(2, 0, 1))
    except MemoryError as e:
        raise ImageError(FailureReason.NO_MEMORY, "resizing ran out of memory") from e


def resize_dimensions(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """The ``(width, height)`` to resize to, before the crop; at least one pixel each."""
    to_height, to_width = preprocess.resize
    if preprocess.mode is ResizeMode.SQUASH:
        return to_width, to_height
    if preprocess.mode is ResizeMode.SHORTEST and to_height == to_width:
        if width <= height:
            return to_width, int(to_width * height / width)
        return int(to_height * width / height), to_height
    ratios = height / to_height, width / to_width
    ratio = max(ratios) if preprocess.mode is ResizeMode.LONGEST else min(ratios)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _resize(image: Image.Image, p: Preprocess) -> Image.Image:
    """The whole image in its new size, or of a very long one the part around the centre."""
    width, height = resize_dimensions(image.width, image.height, p)
    if width * height > MAX_RESIZED_PIXELS:
        image, width, height = _middle(image, width, height, p)
    if image.size == (width, height):
        return image
    return image.resize((width, height), RESAMPLING[p.interpolation])


def _middle(image: Image.Image, width: int, height: int, p: Preprocess) -> tuple[Image.Image, int, int]:
    """The source pixels that the crop can see, and the size to resize them to.

    Twice the crop is kept, so that no filter (support of at most 3 pixels) reaches the cut inside the crop where the
    image is enlarged, which it is in every case but a tiny network input.
    """
    keep_w, keep_h = min(width, 2 * p.size[1]), min(height, 2 * p.size[0])
    part_w = max(1, round(image.width * keep_w / width))
    part_h = max(1, round(image.height * keep_h / height))
    left, top = (image.width - part_w) // 2, (image.height - part_h) // 2
    part = image.crop((left, top, left + part_w, top + part_h))
    return part, max(keep_w, p.size[1]), max(keep_h, p.size[0])


def _crop(image: Image.Image, p: Preprocess) -> Image.Image:
    """The centre; a side that is too short is padded first, the odd pixel at the right and below."""
    height, width = p.size
    if image.width < width or image.height < height:
        image = _padded(image, max(width, image.width), max(height, image.height), _fill(p))
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    if image.size == (width, height):
        return image
    return image.crop((left, top, left + width, top + height))


def _fill(p: Preprocess) -> int:
    """The grey of padding: torchvision's centre crop always pads with black."""
    return p.fill if p.mode is ResizeMode.LONGEST else 0


def _padded(image: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    """The image in the middle of a larger one."""
    out = Image.new("RGB", (width, height), (fill, fill, fill))
    out.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return out

"""From an upright RGB image to a network's input, with the same bytes as the transforms of timm and open_clip.

timm and open_clip build theirs from torchvision's Resize and CenterCrop and a resize that keeps the ratio. The
rounding is theirs: the longer side is truncated to a whole number; a ratio and a crop's corner are rounded to even.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.errors import ImageError
from embedstore.media.image.decode import open_image
from embedstore.space import Interpolation, Preprocess, ResizeMode
from embedstore.types import ContentInfo, FailureReason

RESAMPLING = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}

# A strip of 1 × 1,000,000 pixels resized by its shorter side would be 224 × 224 million. Beyond this many pixels only
# the part around the center is resized: 64 MiB as Pillow holds RGB, reached at a ratio of 1 : 334 for 224 pixels.
MAX_RESIZED_PIXELS = 1 << 24


def prepare(data: bytes, preprocess: Preprocess) -> tuple[NDArray[np.uint8], ContentInfo]:
    """Decode, resize and crop one file by Pillow: the reference for every other way.

    Args:
        data: the bytes of the file.
        preprocess: how to resize and crop.

    Returns:
        uint8 ``(3, H, W)``, and facts about the image.

    Raises:
        ImageError: if the image cannot be decoded; ``reason`` says why.
    """
    image, picture = open_image(data, preprocess.decoding_settings)
    return resize_and_crop(image, preprocess), picture


def resize_and_crop(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resize and crop one image.

    Args:
        image: RGB, upright.
        preprocess: how to resize and crop.

    Returns:
        uint8 ``(3, H, W)``, contiguous; mean and std are applied with the network.

    Raises:
        ImageError: if there is not enough memory.
    """
    try:
        out = _crop(_resize(image, preprocess), preprocess)
        return np.ascontiguousarray(np.asarray(out).transpose(2, 0, 1))
    except MemoryError as e:
        raise ImageError(FailureReason.NO_MEMORY, "resizing ran out of memory") from e


def resize_dimensions(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """Return the ``(width, height)`` to resize to before the crop; at least one pixel each."""
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


def _resize(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Return the whole image in its new size, or of a very long one the part around the center."""
    width, height = resize_dimensions(image.width, image.height, preprocess)
    if width * height > MAX_RESIZED_PIXELS:
        image, width, height = _central_part(image, width, height, preprocess)
    if image.size == (width, height):
        return image
    return image.resize((width, height), RESAMPLING[preprocess.interpolation])


def _central_part(image: Image.Image, width: int, height: int, preprocess: Preprocess) -> tuple[Image.Image, int, int]:
    """Return the part of the image that the crop can see, and the width and height to resize it to.

    Twice the crop is kept, so that no filter (support of at most 3 pixels) reaches from the crop to the cut edge where
    the image is enlarged, which it is in every case but a tiny network input.
    """
    keep_w, keep_h = min(width, 2 * preprocess.size[1]), min(height, 2 * preprocess.size[0])
    part_w = max(1, round(image.width * keep_w / width))
    part_h = max(1, round(image.height * keep_h / height))
    left, top = (image.width - part_w) // 2, (image.height - part_h) // 2
    part = image.crop((left, top, left + part_w, top + part_h))
    return part, max(keep_w, preprocess.size[1]), max(keep_h, preprocess.size[0])


def _crop(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Return the center; a side that is too short is padded first, with an odd pixel at the right or bottom."""
    height, width = preprocess.size
    if image.width < width or image.height < height:
        image = _pad(image, max(width, image.width), max(height, image.height), _padding_gray(preprocess))
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    if image.size == (width, height):
        return image
    return image.crop((left, top, left + width, top + height))


def _padding_gray(preprocess: Preprocess) -> int:
    """Return the gray level of padding: torchvision's center crop always pads with black."""
    return preprocess.fill if preprocess.mode is ResizeMode.LONGEST else 0


def _pad(image: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    """Return the image in the middle of a larger one."""
    out = Image.new("RGB", (width, height), (fill, fill, fill))
    out.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return out

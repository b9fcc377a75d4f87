"""The fast way from a file to a network's input: the same bytes as Pillow's decoder, resized by torch.

The pixels of an ordinary JPEG come from simplejpeg, those of every other file from Pillow, as in
:mod:`embedstore.media.image.plain_jpeg`. Torch
resizes bytes with Pillow's filters and rounds the weights more coarsely: about one value in three hundred differs by
one level. The effect on vectors is measured before this way is used (:mod:`embedstore.pipeline.decode_method`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from embedstore.media.image import decode, plain_jpeg
from embedstore.media.image.plain_jpeg import JpegHeader
from embedstore.media.image.preprocess import MAX_RESIZED_PIXELS, resize_and_crop, resize_dimensions
from embedstore.space import Interpolation, Preprocess, ResizeMode
from embedstore.types import ContentInfo

TORCH_FILTERS = {Interpolation.BILINEAR: "bilinear", Interpolation.BICUBIC: "bicubic"}

OrientationTransform = Callable[[torch.Tensor], torch.Tensor]
ORIENTATION_TRANSFORMS: dict[int, OrientationTransform] = {  # as decode.ORIENTATION_TRANSPOSES, on (3, H, W)
    2: lambda x: x.flip(2),
    3: lambda x: x.flip(1, 2),
    4: lambda x: x.flip(1),
    5: lambda x: x.transpose(1, 2),
    6: lambda x: x.transpose(1, 2).flip(2),
    7: lambda x: x.transpose(1, 2).flip(1, 2),
    8: lambda x: x.transpose(1, 2).flip(1),
}


def prepare(data: bytes, preprocess: Preprocess) -> tuple[NDArray[np.uint8], ContentInfo]:
    """Decode, resize and crop one file that is safe to decode in this process.

    Args:
        data: the bytes of the file.
        preprocess: how to resize and crop.

    Returns:
        uint8 ``(3, H, W)``, and facts about the image.

    Raises:
        ImageError: if the image cannot be decoded, with the same reason as Pillow's way.
    """
    pixels, image_info = decode_to_tensor(data)
    if not can_resize_in_torch(image_info, preprocess):
        return resize_and_crop(Image.fromarray(pixels.permute(1, 2, 0).numpy()), preprocess), image_info
    return np.ascontiguousarray(center_crop(resize_tensor(pixels, preprocess), preprocess).numpy()), image_info


def decode_to_tensor(data: bytes) -> tuple[torch.Tensor, ContentInfo]:
    """Decode one file to the same pixels as :func:`embedstore.media.image.decode.open_image`.

    Returns:
        uint8 ``(3, H, W)``, upright, and facts about the image.

    Raises:
        ImageError: if the image cannot be decoded; ``reason`` says why.
    """
    if decoded := plain_jpeg.decode_plain_jpeg(data):
        pixels, header = decoded
        return to_upright(torch.from_numpy(pixels).permute(2, 0, 1), header)
    image, image_info = decode.open_image(data)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), image_info


def to_upright(pixels: torch.Tensor, header: JpegHeader) -> tuple[torch.Tensor, ContentInfo]:
    """Return decoded pixels ``(3, H, W)`` upright, and facts about the image."""
    transform = ORIENTATION_TRANSFORMS.get(header.orientation)
    upright = pixels if transform is None else transform(pixels)
    return upright, ContentInfo(upright.shape[2], upright.shape[1], "JPEG")


def can_resize_in_torch(image_info: ContentInfo, preprocess: Preprocess) -> bool:
    """Return whether torch has the filter, the resized image is small enough, and Pillow resizes rows first.

    Pillow resizes columns first where the height shrinks more (seen with Pillow 13: up to 12 levels off otherwise).
    """
    width, height = resize_dimensions(image_info.width, image_info.height, preprocess)
    columns_first = preprocess.mode is ResizeMode.SQUASH and image_info.height * width > image_info.width * height
    return preprocess.interpolation in TORCH_FILTERS and width * height <= MAX_RESIZED_PIXELS and not columns_first


def resize_tensor(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Resize a whole image, before the crop.

    Args:
        pixels: uint8 ``(3, H, W)``, upright, on any device.
        preprocess: how to resize; see :func:`can_resize_in_torch`.

    Returns:
        uint8 ``(3, h, w)`` on the same device.
    """
    width, height = resize_dimensions(pixels.shape[2], pixels.shape[1], preprocess)
    mode = TORCH_FILTERS[preprocess.interpolation]
    if pixels.device.type == "cpu":
        return _interpolate(pixels, height, width, mode)
    return resize_as_float(pixels, height, width, mode)


def resize_as_float(pixels: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """Resize on a device that resizes floats only, rounding to bytes after each direction as Pillow does."""
    for size in ((pixels.shape[1], width), (height, width)):
        pixels = _interpolate(pixels.float(), *size, mode).round_().clamp_(0, 255)
    return pixels.to(torch.uint8)


def _interpolate(pixels: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """Resize one image by torch, with antialiasing."""
    return functional.interpolate(pixels[None], size=(height, width), mode=mode, antialias=True, align_corners=False)[0]


def center_crop(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Return the center, padded if a side is too short, as :mod:`embedstore.media.image.preprocess` does."""
    height, width = preprocess.size
    short = max(0, height - pixels.shape[1]), max(0, width - pixels.shape[2])
    if any(short):
        fill = preprocess.fill if preprocess.mode is ResizeMode.LONGEST else 0
        before = [s // 2 for s in short]
        sides: list[Any] = [before[1], short[1] - before[1], before[0], short[0] - before[0]]
        pixels = functional.pad(pixels, sides, value=fill)
    top, left = round((pixels.shape[1] - height) / 2), round((pixels.shape[2] - width) / 2)
    return pixels[:, top : top + height, left : left + width]

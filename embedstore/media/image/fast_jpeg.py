"""The quick way from a file to a network's pixels: the same bytes as Pillow's decoder, resized by torch.

Pillow reads the header and the orientation in any case. The pixels of an ordinary JPEG come from simplejpeg where it is
installed (the same library and settings as Pillow's, so equal bytes), those of every other file from Pillow. Torch
resizes on bytes with Pillow's filters and rounds the weights more coarsely: about one value in three hundred is a
level off. What that means for vectors is measured before it is used (:mod:`embedstore.pipeline.decode_method`).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from embedstore.media.image import decode, preprocess
from embedstore.media.image.screening import MAX_IN_PROCESS_PIXELS
from embedstore.media.image.warnings_filter import suppress_warnings
from embedstore.space import Interpolation, Preprocess, ResizeMode
from embedstore.types import ImageInfo

TORCH_FILTERS = {Interpolation.BILINEAR: "bilinear", Interpolation.BICUBIC: "bicubic"}
HAS_SIMPLEJPEG = find_spec("simplejpeg") is not None
JPEG_MODES = ("RGB", "L")  # of Pillow, for JPEG files without a colour conversion of their own

OrientationTransform = Callable[[torch.Tensor], torch.Tensor]
ORIENTATION_TRANSFORMS: dict[int, OrientationTransform] = {  # as decode.UPRIGHT, on (3, H, W)
    2: lambda x: x.flip(2),
    3: lambda x: x.flip(1, 2),
    4: lambda x: x.flip(1),
    5: lambda x: x.transpose(1, 2),
    6: lambda x: x.transpose(1, 2).flip(2),
    7: lambda x: x.transpose(1, 2).flip(1, 2),
    8: lambda x: x.transpose(1, 2).flip(1),
}


def prepare(data: bytes, p: Preprocess) -> tuple[NDArray[np.uint8], ImageInfo]:
    """Do what ``preprocess.prepare`` does, for files that ``screening`` lets pass.

    Raises:
        ImageError: as there, with the same reason.
    """
    pixels, picture = decode_to_tensor(data)
    if not can_resize_in_torch(picture, p):
        return preprocess.resize_and_crop(Image.fromarray(pixels.permute(1, 2, 0).numpy()), p), picture
    return np.ascontiguousarray(center_crop(resize_tensor(pixels, p), p).numpy()), picture


def decode_to_tensor(data: bytes) -> tuple[torch.Tensor, ImageInfo]:
    """One image, upright, with the very bytes of :func:`embedstore.media.image.decode.open_image`.

    Returns:
        uint8 ``(3, H, W)``, and the picture's facts.

    Raises:
        ImageError: as there.
    """
    if HAS_SIMPLEJPEG and (header := read_jpeg_header(data)):
        found = _turbo(data, header)
        if found is not None:
            return found
    image, picture = decode.open_image(data)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), picture


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Of a plain JPEG: its size as it lies in the file, and its EXIF orientation."""

    width: int
    height: int
    orientation: int

    def to_upright(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ImageInfo]:
        """Decoded pixels ``(3, H, W)`` upright, and the picture's facts."""
        turn = ORIENTATION_TRANSFORMS.get(self.orientation)
        upright = pixels if turn is None else turn(pixels)
        return upright, ImageInfo(upright.shape[2], upright.shape[1], "JPEG")


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """What Pillow says of a plain JPEG of ordinary size; None of every other file."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        with suppress_warnings(), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if (
                image.format != "JPEG"
                or image.mode not in JPEG_MODES
                or image.width * image.height > MAX_IN_PROCESS_PIXELS
            ):
                return None
            return JpegHeader(image.width, image.height, decode.exif_orientation(image))
    except Exception:  # of every type there is, and Pillow raises the same again
        return None


def _turbo(data: bytes, header: JpegHeader) -> tuple[torch.Tensor, ImageInfo] | None:
    """Decoded by simplejpeg, or None where there is the least doubt: then Pillow decides, and names the reason."""
    import simplejpeg

    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)  # strict: what libjpeg warns of is not taken
    except (ValueError, MemoryError):
        return None
    if pixels.shape != (header.height, header.width, 3):
        return None
    return header.to_upright(torch.from_numpy(pixels).permute(2, 0, 1))


def can_resize_in_torch(picture: ImageInfo, p: Preprocess) -> bool:
    """Torch has the filter, the resized image is small enough to be made whole, and Pillow resizes rows first.

    It does columns first where the height shrinks more (seen with Pillow 13: up to 12 levels off otherwise).
    """
    width, height = preprocess.resize_dimensions(picture.width, picture.height, p)
    columns_first = p.mode is ResizeMode.SQUASH and picture.height * width > picture.width * height
    return p.interpolation in TORCH_FILTERS and width * height <= preprocess.MAX_RESIZED_PIXELS and not columns_first


def resize_tensor(pixels: torch.Tensor, p: Preprocess) -> torch.Tensor:
    """The whole image in its new size, before the crop.

    Args:
        pixels: uint8 ``(3, H, W)``, upright, on any device.
        p: how; see :func:`fits`.

    Returns:
        uint8 ``(3, h, w)`` on the same device.
    """
    width, height = preprocess.resize_dimensions(pixels.shape[2], pixels.shape[1], p)
    mode = TORCH_FILTERS[p.interpolation]
    if pixels.device.type == "cpu":
        return _interpolated(pixels, height, width, mode)
    return resize_as_float(pixels, height, width, mode)


def resize_as_float(pixels: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """For devices that resize floats only: rounded to bytes after either direction, as Pillow does."""
    for size in ((pixels.shape[1], width), (height, width)):
        pixels = _interpolated(pixels.float(), *size, mode).round_().clamp_(0, 255)
    return pixels.to(torch.uint8)


def _interpolated(pixels: torch.Tensor, height: int, width: int, mode: str) -> torch.Tensor:
    """Torch's resize of one image with antialiasing."""
    return functional.interpolate(pixels[None], size=(height, width), mode=mode, antialias=True, align_corners=False)[0]


def center_crop(pixels: torch.Tensor, p: Preprocess) -> torch.Tensor:
    """The centre, padded where a side is too short, as :func:`embedstore.media.image.preprocess.apply` does it."""
    height, width = p.size
    short = max(0, height - pixels.shape[1]), max(0, width - pixels.shape[2])
    if any(short):
        fill = p.fill if p.mode is ResizeMode.LONGEST else 0
        before = [s // 2 for s in short]
        sides: list[Any] = [before[1], short[1] - before[1], before[0], short[0] - before[0]]
        pixels = functional.pad(pixels, sides, value=fill)
    top, left = round((pixels.shape[1] - height) / 2), round((pixels.shape[2] - width) / 2)
    return pixels[:, top : top + height, left : left + width]

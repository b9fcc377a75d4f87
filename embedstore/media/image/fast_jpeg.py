"""The fast way from a file to a network's input: the same bytes as Pillow's decoder, resized by torch.

Pillow reads the header and the orientation in any case. The pixels of an ordinary JPEG come from simplejpeg if it is
installed (the same library and settings as Pillow's, so equal bytes), those of every other file from Pillow. Torch
resizes bytes with Pillow's filters and rounds the weights more coarsely: about one value in three hundred differs by
one level. The effect on vectors is measured before this way is used (:mod:`embedstore.pipeline.decode_method`).
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

from embedstore.media.image import decode
from embedstore.media.image.preprocess import MAX_RESIZED_PIXELS, resize_and_crop, resize_dimensions
from embedstore.media.image.screening import max_in_process_pixels
from embedstore.media.image.warnings_filter import suppress_warnings
from embedstore.space import Interpolation, Preprocess, ResizeMode
from embedstore.types import ContentInfo

TORCH_FILTERS = {Interpolation.BILINEAR: "bilinear", Interpolation.BICUBIC: "bicubic"}
HAS_SIMPLEJPEG = find_spec("simplejpeg") is not None
JPEG_MODES = ("RGB", "L")  # of Pillow, for JPEG files that need no other color conversion

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
    if HAS_SIMPLEJPEG and (header := read_jpeg_header(data)):
        decoded = _decode_by_simplejpeg(data, header)
        if decoded is not None:
            return decoded
    image, image_info = decode.open_image(data)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), image_info


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The size of a plain JPEG as it is stored, its EXIF orientation, and whether it is progressive."""

    width: int
    height: int
    orientation: int
    progressive: bool = False

    def to_upright(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ContentInfo]:
        """Return decoded pixels ``(3, H, W)`` upright, and facts about the image."""
        transform = ORIENTATION_TRANSFORMS.get(self.orientation)
        upright = pixels if transform is None else transform(pixels)
        return upright, ContentInfo(upright.shape[2], upright.shape[1], "JPEG")


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Return the header of a plain JPEG of ordinary size, as Pillow reads it; None for every other file."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        with suppress_warnings(), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if (
                image.format != "JPEG"
                or image.mode not in JPEG_MODES
                or image.width * image.height > max_in_process_pixels()
            ):
                return None
            progressive = bool(image.info.get("progressive"))
            return JpegHeader(image.width, image.height, decode.exif_orientation(image), progressive)
    except Exception:  # of any type; the slow way raises it again with its reason
        return None


def _decode_by_simplejpeg(data: bytes, header: JpegHeader) -> tuple[torch.Tensor, ContentInfo] | None:
    """Decode by simplejpeg; return None if anything is unusual, since Pillow then decides and names the reason."""
    import simplejpeg

    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)  # strict: a warning of libjpeg is an error
    except (ValueError, MemoryError):
        return None
    if pixels.shape != (header.height, header.width, 3):
        return None
    return header.to_upright(torch.from_numpy(pixels).permute(2, 0, 1))


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

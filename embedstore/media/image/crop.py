"""A part of a photo: a box, and the bytes that stand for the photo and the box together.

A crop is decoded like every other file, from its bytes alone: a line with the box, and the bytes of the photo. So the
identity of a crop follows from the bytes of the photo and the box, whatever library decodes the photo, and a damaged
photo is decoded where damaged photos are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from PIL import Image

from embedstore.errors import ImageError
from embedstore.types import FailureReason

_MAGIC = b"EMBEDSTORE CROP 1 "
_MAX_LINE_BYTES = 200
_NUMBER = r"(-?\d+(?:\.\d+)?)"
_BOX = re.compile(rf"(pixel:|percent:)?{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}")
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in an upright photo, as W3C's Media Fragments (section 4.2.2) describe one.

    Attributes:
        x: the position of its left side.
        y: the position of its upper side.
        width: the width of the box.
        height: the height of the box.
        is_percent: whether the numbers are percent of the width and height of the photo, and not pixels.
    """

    x: float
    y: float
    width: float
    height: float
    is_percent: bool = False

    def __str__(self) -> str:
        numbers = ",".join(_shortest(value) for value in (self.x, self.y, self.width, self.height))
        return f"percent:{numbers}" if self.is_percent else numbers

    @classmethod
    def parse(cls, text: str) -> Box | None:
        """Return the box that ``x,y,width,height`` or ``percent:x,y,width,height`` means, or None."""
        match = _BOX.fullmatch(text)
        if match is None:
            return None
        x, y, width, height = (float(number) for number in match.groups()[1:])
        return cls(x, y, width, height, match[1] == "percent:")

    def cut(self, image: Image.Image) -> Image.Image:
        """Return the pixels of an upright photo that the box touches.

        Raises:
            ImageError: if the box lies outside the photo or has no area.
        """
        across, down = (image.width / 100, image.height / 100) if self.is_percent else (1.0, 1.0)
        left, right = _pixel_range(self.x * across, self.width * across, image.width)
        upper, lower = _pixel_range(self.y * down, self.height * down, image.height)
        if left >= right or upper >= lower:
            size = f"{image.width} × {image.height} pixels"
            raise ImageError(FailureReason.CORRUPT, f"the box {self} has no pixel of the photo of {size}")
        return image.crop((left, upper, right, lower))


def join_crop(photo: bytes, box: Box) -> bytes:
    """Return the bytes that stand for a box of a photo."""
    return _MAGIC + str(box).encode() + b"\n" + photo


def split_crop(data: bytes) -> tuple[Box | None, bytes]:
    """Return the box and the bytes of the photo; no box, and the bytes as they are, for every other file."""
    if not data.startswith(_MAGIC):
        return None, data
    end = data.find(b"\n", 0, _MAX_LINE_BYTES)
    box = Box.parse(data[len(_MAGIC) : end].decode("ascii", "replace")) if end > 0 else None
    return (None, data) if box is None else (box, data[end + 1 :])


def _pixel_range(start: float, length: float, size: int) -> tuple[int, int]:
    """Return the first pixel and the one after the last that an interval touches, within the photo."""
    if not (math.isfinite(start) and math.isfinite(length)) or length <= 0:
        return 0, 0
    precision = 1e-6  # of a pixel: percentages are rounded
    return max(0, math.floor(start + precision)), min(size, math.ceil(start + length - precision))


def _shortest(value: float) -> str:
    """Return a number without digits that say nothing."""
    text = f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text

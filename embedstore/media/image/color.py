"""Any Pillow mode to 8-bit RGB, as a person sees the picture.

Pillow's own ``convert("RGB")`` saturates 16-bit greys, clips floats to black and shows the colour hidden under
transparent pixels. Colour profiles are ignored, as the libraries' own transforms do (docs/decisions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WHITE = (255, 255, 255)
TIFF_BITS, TIFF_PHOTOMETRIC = 258, 262  # TIFF 6.0, section 8
WHITE_IS_ZERO = 0
PNG_GREY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}  # Pillow widens these greys to 8 bits, but not the transparent one


def to_rgb(image: Image.Image, *, raw_mode: str = "") -> Image.Image:
    """The loaded image in mode RGB; transparency is laid over white.

    Args:
        image: loaded, any mode.
        raw: how the file holds its pixels, in Pillow's words, e.g. ``"RGB;16B"``; known before loading only.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(_levels(image))
    hidden = image.info.get("transparency")
    if image.mode in ("1", "L") and isinstance(hidden, int):
        return _grey(_cleared(np.asarray(image.convert("L")), hidden * PNG_GREY_SCALES.get(raw_mode, 1)))
    if image.mode == "RGB" and isinstance(hidden, tuple):
        colour = [c >> 8 for c in hidden] if ";16" in raw_mode else hidden
        return Image.fromarray(_cleared(np.asarray(image), colour))
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Lay an image with transparency over white."""
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    out = Image.new("RGB", rgba.size, WHITE)
    out.paste(rgba, mask=rgba)
    return out


def _cleared(pixels: NDArray[np.uint8], hidden: int | Sequence[int]) -> NDArray[np.uint8]:
    """White where the pixel ``(H, W)`` or ``(H, W, 3)`` has the colour that stands for nothing."""
    same = pixels == np.asarray(hidden)
    return np.where(same.all(axis=2, keepdims=True) if same.ndim == 3 else same, np.uint8(255), pixels)


def _grey(levels: NDArray[np.uint8]) -> Image.Image:
    """An RGB image of grey levels ``(H, W)``."""
    return Image.fromarray(levels).convert("RGB")


def _levels(image: Image.Image) -> NDArray[np.uint8]:
    """Grey levels ``(H, W)`` of an integer or float image; its transparent value becomes white."""
    values = np.asarray(image)
    levels = _from_floats(values) if image.mode == "F" else _from_integers(values, bits=_bits(image))
    if _tag(image, TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        levels = np.where(values == hidden, np.uint8(255), levels)
    return levels


def _bits(image: Image.Image) -> int:
    """Bits that the values of an integer image use; 32 where only their range can tell."""
    if image.mode == "I":
        return 32
    told = _tag(image, TIFF_BITS)
    return min(16, told[0]) if told else 16


def _tag(image: Image.Image, tag: int) -> Any:
    """A TIFF tag, or None."""
    tags = getattr(image, "tag_v2", None)
    return tags.get(tag) if tags is not None else None


def _from_integers(values: NDArray[Any], *, bits: int) -> NDArray[np.uint8]:
    """Grey levels of integers: all that ``bits`` can hold is scaled evenly, whatever the picture holds.

    Args:
        values: ``(H, W)``.
        bits: of a value; 32 stands for 8 or 16 if the values fit, and for a stretch over their range if not.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        return _stretched(values.astype(np.float64), low, high)
    white = 2**bits - 1 if bits <= 16 else 255 if high <= 255 else 65535
    return ((values.astype(np.uint32) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)


def _from_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey levels of floats: 0..1 is black to white; another range is stretched. NaN is black."""
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[known].min()), float(values[known].max())
    black, white = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    levels = _stretched(np.nan_to_num(values.astype(np.float64), nan=black, posinf=white, neginf=black), black, white)
    levels[np.isnan(values)] = 0
    return levels


def _stretched(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """``low`` is black and ``high`` white; a flat image is black."""
    span = (high - low) or 1.0
    return ((values - low) * 255.0 / span + 0.5).clip(0, 255).astype(np.uint8)

"""Any Pillow mode to 8-bit RGB, as a person sees the picture.

Pillow's own ``convert("RGB")`` saturates 16-bit greys, clips floats to black and shows the colour hidden under
transparent pixels. Colour profiles are ignored, as the libraries' own transforms do (docs/decisions).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WHITE = (255, 255, 255)
TIFF_PHOTOMETRIC = 262  # TIFF 6.0, section 4; 0 means that 0 is white
WHITE_IS_ZERO = 0


def to_rgb(image: Image.Image, *, deep: bool = False) -> Image.Image:
    """The loaded image in mode RGB; transparency is laid over white.

    Args:
        image: loaded, any mode.
        deep: the file has 16 bits a channel, so that its transparent colour is one of 16 bits.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(_levels(image))
    if image.has_transparency_data:
        return _over_white(_with_transparency(image, deep=deep))
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Lay an image with transparency over white."""
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    out = Image.new("RGB", rgba.size, WHITE)
    out.paste(rgba, mask=rgba)
    return out


def _with_transparency(image: Image.Image, *, deep: bool) -> Image.Image:
    """Premultiplied alpha divided out, and a transparent colour cut down to the 8 bits that Pillow kept."""
    if image.mode in ("La", "RGBa"):
        return image.convert(image.mode.upper())
    colour = image.info.get("transparency")
    if deep and isinstance(colour, tuple):
        image.info["transparency"] = tuple(c >> 8 for c in colour)
    return image


def _grey(levels: NDArray[np.uint8]) -> Image.Image:
    """An RGB image of grey levels ``(H, W)``."""
    return Image.fromarray(levels).convert("RGB")


def _levels(image: Image.Image) -> NDArray[np.uint8]:
    """Grey levels ``(H, W)`` of an integer or float image; its transparent value becomes white."""
    values = np.asarray(image)
    levels = _from_floats(values) if image.mode == "F" else _from_integers(values, sixteen=image.mode != "I")
    if _tag(image, TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        levels = np.where(values == hidden, np.uint8(255), levels)
    return levels


def _tag(image: Image.Image, tag: int) -> Any:
    """A TIFF tag, or None."""
    tags = getattr(image, "tag_v2", None)
    return tags.get(tag) if tags is not None else None


def _from_integers(values: NDArray[Any], *, sixteen: bool) -> NDArray[np.uint8]:
    """Grey levels of integers: 0..65535 is scaled evenly, whatever the picture holds.

    Args:
        values: ``(H, W)``.
        sixteen: they are 16-bit; else they are 32-bit and their range says what they are.
    """
    low, high = (0, 65535) if sixteen else (int(values.min()), int(values.max()))
    if low < 0 or high > 65535:
        return _stretched(values.astype(np.float64), low, high)
    if high <= 255:
        return values.astype(np.uint8)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey levels of floats: 0..1 is black to white; another range is stretched. NaN is black."""
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[known].min()), float(values[known].max())
    values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    levels = _stretched(values, 0, 1) if low >= 0 and high <= 1 else _stretched(values, low, high)
    return np.where(np.isnan(np.where(known, 0.0, values)), np.uint8(0), levels)


def _stretched(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """``low`` is black and ``high`` white; a flat image is black."""
    span = (high - low) or 1.0
    return ((values - low) * (255.0 / span) + 0.5).clip(0, 255).astype(np.uint8)

"""From any Pillow mode to 8-bit RGB, as a person sees the image.

Pillow's own ``convert("RGB")`` saturates 16-bit gray, clips floats to black and shows the color transparent under
transparent pixels. Color profiles are ignored, as the libraries' own transforms do (docs/decisions).
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
PNG_GRAY_SCALES = {"1": 255, "L;2": 85, "L;4": 17}  # Pillow scales these grays to 8 bits, but not the transparent value


def to_rgb(image: Image.Image, *, raw_mode: str = "") -> Image.Image:
    """Return a loaded image in mode RGB, with transparency over white.

    Args:
        image: loaded, any mode.
        raw_mode: Pillow's name for the layout of the pixels in the file, e.g. ``"RGB;16B"``; it is known before loading
            only.
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _gray_image(_gray_levels(image))
    transparent = image.info.get("transparency")
    if image.mode in ("1", "L") and isinstance(transparent, int):
        return _gray_image(_whiten(np.asarray(image.convert("L")), transparent * PNG_GRAY_SCALES.get(raw_mode, 1)))
    if image.mode == "RGB" and isinstance(transparent, tuple):
        color = [c >> 8 for c in transparent] if ";16" in raw_mode else transparent
        return Image.fromarray(_whiten(np.asarray(image), color))
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Return an image with transparency over white."""
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    out = Image.new("RGB", rgba.size, WHITE)
    out.paste(rgba, mask=rgba)
    return out


def _whiten(pixels: NDArray[np.uint8], transparent: int | Sequence[int]) -> NDArray[np.uint8]:
    """Return the pixels ``(H, W)`` or ``(H, W, 3)`` with the transparent color replaced by white."""
    same = pixels == np.asarray(transparent)
    return np.where(same.all(axis=2, keepdims=True) if same.ndim == 3 else same, np.uint8(255), pixels)


def _gray_image(levels: NDArray[np.uint8]) -> Image.Image:
    """Return an RGB image of gray levels ``(H, W)``."""
    return Image.fromarray(levels).convert("RGB")


def _gray_levels(image: Image.Image) -> NDArray[np.uint8]:
    """Return the gray levels ``(H, W)`` of an integer or float image; its transparent value becomes white."""
    values = np.asarray(image)
    levels = _from_floats(values) if image.mode == "F" else _from_integers(values, bits=_bits(image))
    if _tag(image, TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels = np.where(values == transparent, np.uint8(255), levels)
    return levels


def _bits(image: Image.Image) -> int:
    """Return the bits that the values of an integer image use; 32 if only their range can tell."""
    if image.mode == "I":
        return 32
    bits = _tag(image, TIFF_BITS)
    return min(16, bits[0]) if bits else 16


def _tag(image: Image.Image, tag: int) -> Any:
    """Return a TIFF tag, or None."""
    tags = getattr(image, "tag_v2", None)
    return tags.get(tag) if tags is not None else None


def _from_integers(values: NDArray[Any], *, bits: int) -> NDArray[np.uint8]:
    """Return gray levels of integers: the range of ``bits`` is scaled evenly, whatever the image contains.

    Args:
        values: ``(H, W)``.
        bits: the number of bits of a value; 32 means 8 or 16 if the values fit, and otherwise a stretch over their
            range.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        return _stretch(values.astype(np.float64), low, high)
    white = 2**bits - 1 if bits <= 16 else 255 if high <= 255 else 65535
    return ((values.astype(np.uint32) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)


def _from_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return gray levels of floats: 0..1 is black to white; another range is stretched. NaN is black."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(values[finite].min()), float(values[finite].max())
    black, white = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    levels = _stretch(np.nan_to_num(values.astype(np.float64), nan=black, posinf=white, neginf=black), black, white)
    levels[np.isnan(values)] = 0
    return levels


def _stretch(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Return gray levels with ``low`` as black and ``high`` as white; a flat image is black."""
    span = (high - low) or 1.0
    return ((values - low) * 255.0 / span + 0.5).clip(0, 255).astype(np.uint8)

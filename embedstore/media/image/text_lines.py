"""Whether an image is a scan of text: regular lines of thin strokes on one color of paper.

The image is cut into upright strips, so that a page that is a little askew has level lines in each. A line is a run of
rows with ink between rows without. Lines of text have one height, about as many edges of strokes per height in every
font, and each says something else: the lines of a pattern are like each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 768  # pixels of the longer side at which lines are looked for: those of a dense page have 8 or more
TEXT_SHARE = 0.6  # of the strips with ink that have lines of text, from which an image is a scan of text
_STRIPS = 8
_PAPER_SHARE, _PAPER_WIDTH = 0.5, 33  # of the pixels are within so many levels of gray
_INK_QUANTILE = 0.99  # of the pixels differ less from the paper than ink does
_LEAST_CONTRAST = 60  # levels of gray between paper and ink
_LEAST_INK = 0.01  # of the pixels of a strip
_LEAST_HEIGHT, _LEAST_LINES = 4, 3  # pixels; lines of a strip
_REGULAR_SHARE, _HEIGHT_TOLERANCE = 0.6, 0.35  # of the lines have the height of the middle one
_EDGES = (0.8, 6.0)  # of strokes in a square of the height of a line: 100 generated pages have 1.5 to 4
_MOST_ALIKE = 0.6  # correlation of the ink of neighboring lines


def text_share(upright: Image.Image) -> float:
    """Return the share of upright strips with ink that hold lines of text, 0 to 1.

    Args:
        upright: an RGB image; it is not changed.
    """
    gray = upright.convert("L")
    gray.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(gray, np.float32)
    ink = _ink(pixels)
    if ink is None:
        return 0.0
    strips = [s for s in np.array_split(ink, _STRIPS, axis=1) if s.size and s.mean() >= _LEAST_INK]
    return float(np.mean([_has_lines(strip) for strip in strips])) if strips else 0.0


def _ink(pixels: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Return which pixels differ from the paper; None if no color is that of paper."""
    counts = np.bincount(pixels.astype(np.uint8).ravel(), minlength=256)
    near = np.convolve(counts, np.ones(_PAPER_WIDTH), "same")
    paper = int(near.argmax())
    difference = np.abs(pixels - paper)
    levels = np.bincount(difference.astype(np.uint8).ravel(), minlength=256)
    contrast = int(np.searchsorted(levels.cumsum(), _INK_QUANTILE * pixels.size))
    if near[paper] < _PAPER_SHARE * pixels.size or contrast < _LEAST_CONTRAST:
        return None
    return np.asarray(difference > contrast / 2)


def _has_lines(ink: NDArray[np.bool_]) -> bool:
    """Return whether a strip holds lines of one height, made of strokes."""
    edges = np.flatnonzero(np.diff(ink.any(1).astype(np.int8), prepend=0, append=0))
    begins, ends = edges[::2], edges[1::2]
    tall = ends - begins >= _LEAST_HEIGHT
    begins, ends = begins[tall], ends[tall]
    if len(begins) < _LEAST_LINES:
        return False
    heights = ends - begins
    middle = float(np.median(heights))
    is_regular = np.abs(heights - middle) <= _HEIGHT_TOLERANCE * middle + 1
    strokes = (ink[:, 1:] != ink[:, :-1]).mean(1)
    per_square = [strokes[b:e].sum() for b, e in zip(begins, ends, strict=True)]
    if is_regular.mean() < _REGULAR_SHARE or not _EDGES[0] <= np.median(per_square) <= _EDGES[1]:
        return False
    return _likeness([ink[b:e].mean(0) for b, e in zip(begins, ends, strict=True)]) < _MOST_ALIKE


def _likeness(lines: list[NDArray[np.float64]]) -> float:
    """Return the middle correlation of the ink of each line with that of the next."""
    centered = np.stack(lines) - np.mean(lines, axis=1, keepdims=True)
    length = np.maximum(np.linalg.norm(centered, axis=1), 1e-9)
    return float(np.median((centered[1:] * centered[:-1]).sum(1) / (length[1:] * length[:-1])))

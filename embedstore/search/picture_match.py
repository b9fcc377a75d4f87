"""Where two gray thumbnails match, and how well.

The score of two thumbnails is the correlation of their local contrast, the highest of all shifts by up to two pixels
and of both mirrored and not. Local contrast is what is left of a thumbnail without its slow changes of brightness,
divided by its local spread. Two pictures with sky above and sea below correlate as they are, not in local contrast.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from embedstore.media.image.gray_thumbnails import SIDE

_FINE, _COARSE = 0.7, 3.0  # pixels, the widths of the two Gaussian filters
_NOISE = 9.0  # gray levels squared: less spread than this is noise of JPEG
_SHIFT = 2
_CROP_SCALES = (0.92, 0.85, 0.78, 0.7)  # sides of a crop as parts of those of the whole
_BLOCK = 4096
_EDGE = 1  # pixels at the border of a crop that are not compared

Array = NDArray[np.float32]


MATCH = np.dtype(
    [("score", "f4"), ("side", "i2"), ("top", "i2"), ("left", "i2"), ("is_mirrored", "?"), ("is_swapped", "?")]
)
"""How two thumbnails match: the second one, mirrored or not and ``side`` pixels large, is in the first one with its
upper left corner at (``left``, ``top``); the first one is in the second one where they are swapped."""


def local_contrast(thumbnails: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return the local contrast of thumbnails, float16 ``(N, H, W)``."""
    contrast = np.empty(thumbnails.shape, np.float16)
    for begin in range(0, len(thumbnails), _BLOCK):
        contrast[begin : begin + _BLOCK] = contrast_of(thumbnails[begin : begin + _BLOCK].astype(np.float32))
    return contrast


def contrast_of(images: Array, fine: float = _FINE, coarse: float = _COARSE) -> Array:
    """Return the local contrast of images, float32 ``(N, H, W)``.

    Args:
        images: gray levels, float32 ``(N, H, W)``.
        fine: width in pixels of the Gaussian filter that removes noise.
        coarse: width in pixels of the one that removes what changes slowly.
    """
    from scipy.ndimage import gaussian_filter

    wide = (0, coarse, coarse)
    detail = gaussian_filter(images, (0, fine, fine)) - gaussian_filter(images, wide)
    spread = gaussian_filter(detail * detail, wide)
    return np.asarray(detail / np.sqrt(spread + _NOISE), np.float32)


def whole_matches(contrast: NDArray[np.float16], a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.void]:
    """Return how each pair of thumbnails matches as a whole, ``MATCH`` ``(P,)``; scores are in [-1, 1].

    Args:
        contrast: local contrast of all thumbnails.
        a: int64 ``(P,)``, the one thumbnail of each pair.
        b: int64 ``(P,)``, the other.
    """
    matches = np.zeros(len(a), MATCH)
    order = np.argsort(a, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(a[order])) + 1):
        if len(rows):
            others = contrast[b[rows]].astype(np.float32)
            matches[rows] = _best_places(contrast[a[rows[0]]].astype(np.float32), others, _SHIFT)
    return matches


def crop_matches(thumbnails: NDArray[np.uint8], a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.void]:
    """Return how one thumbnail of each pair matches a part of the other, ``MATCH`` ``(P,)``.

    Parts of 70% to 92% of the sides are tried at every place, mirrored and not.

    Args:
        thumbnails: uint8 ``(N, 32, 32)``.
        a: int64 ``(P,)``, the one thumbnail of each pair.
        b: int64 ``(P,)``, the other.
    """
    whole = local_contrast(thumbnails).astype(np.float32)
    best = np.zeros(len(a), MATCH)
    best["score"] = -1
    for scale in _CROP_SCALES:
        parts = contrast_of(_shrunk(thumbnails, round(scale * SIDE)))
        for i, (one, other) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            for is_swapped, (image, part) in enumerate(((one, other), (other, one))):
                match = _best_places(whole[image], parts[part : part + 1], _EDGE)
                if match["score"][0] > best["score"][i]:
                    match["is_swapped"] = is_swapped
                    best[i] = match[0]
    return best


def _best_places(image: Array, others: Array, edge: int) -> NDArray[np.void]:
    """Return how each of some others matches in an image, at any place, mirrored and not, ``MATCH`` ``(M,)``.

    Args:
        image: local contrast, ``(H, W)``.
        others: local contrast of the same size or less, ``(M, h, h)``.
        edge: pixels at the border of the others that are not compared.
    """
    count, side = others.shape[:2]
    centers = others[:, edge : side - edge, edge : side - edge]
    templates = normalized_rows(np.concatenate([centers, centers[:, :, ::-1]]).reshape(2 * count, -1))
    windows = _windows(image, side - 2 * edge)
    scores = (templates @ windows.T).reshape(2, count, -1).transpose(1, 0, 2).reshape(count, -1)
    best = scores.argmax(axis=1)
    is_mirrored, place = np.divmod(best, len(windows))
    top, left = np.divmod(place, len(image) - (side - 2 * edge) + 1)
    matches = np.zeros(count, MATCH)
    matches["score"], matches["side"], matches["is_mirrored"] = scores[np.arange(count), best], side, is_mirrored
    matches["top"], matches["left"] = top - edge, left - edge
    return matches


def _windows(image: Array, side: int) -> Array:
    """Return the square windows of an image, normalized, float32 ``(windows, side * side)``."""
    return normalized_rows(sliding_window_view(image, (side, side)).reshape(-1, side * side))


def normalized_rows(rows: Array) -> Array:
    """Return rows with mean 0 and length 1; a constant row becomes 0."""
    centered = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.asarray(centered / np.where(length > 1e-3, length, np.inf), np.float32)


def _shrunk(thumbnails: NDArray[np.uint8], side: int) -> Array:
    """Return thumbnails at another size, by linear interpolation."""
    from PIL import Image

    size = (side, side)
    images = (Image.fromarray(t).resize(size, Image.Resampling.BICUBIC) for t in thumbnails)
    return np.array([np.asarray(image) for image in images], np.float32).reshape(-1, side, side)

"""Whether two images show one picture, from their gray thumbnails.

The score of two thumbnails is the correlation of their local contrast, the highest of all shifts by up to two pixels
and of both mirrored and not. Local contrast is what is left of a thumbnail without its slow changes of brightness,
divided by its local spread. Two pictures with sky above and sea below correlate as they are, not in local contrast.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from embedstore.media.image.gray_thumbnails import SIDE

SAME_PICTURE = 0.7
"""Score of two images of one picture: 99.5% of 400 photos of 32 by 32 pixels reach it that were cropped to 93 to 100%,
made 15% brighter or darker and saved again, and about 20 of those 12,000 pairs of CIFAR-10 that look most alike and are
not of one shot."""
_FINE, _COARSE = 0.7, 3.0  # pixels, the widths of the two Gaussian filters
_NOISE = 9.0  # gray levels squared: less spread than this is noise of JPEG
_SHIFT = 2
_CROP_SCALES = (0.92, 0.85, 0.78, 0.7)  # sides of a crop as parts of those of the whole
_BLOCK = 4096
_EDGE = 1  # pixels at the border of a crop that are not compared

Array = NDArray[np.float32]


def local_contrast(thumbnails: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return the local contrast of thumbnails, float16 ``(N, H, W)``."""
    contrast = np.empty(thumbnails.shape, np.float16)
    for begin in range(0, len(thumbnails), _BLOCK):
        contrast[begin : begin + _BLOCK] = _contrast(thumbnails[begin : begin + _BLOCK].astype(np.float32))
    return contrast


def match_scores(contrast: NDArray[np.float16], a: NDArray[np.int64], b: NDArray[np.int64]) -> Array:
    """Return the score of each pair of thumbnails, float32 ``(P,)`` in [-1, 1].

    Args:
        contrast: local contrast of all thumbnails.
        a: int64 ``(P,)``, the one thumbnail of each pair.
        b: int64 ``(P,)``, the other.
    """
    scores = np.empty(len(a), np.float32)
    order = np.argsort(a, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(a[order])) + 1):
        if len(rows):
            scores[rows] = _best(contrast[a[rows[0]]].astype(np.float32), contrast[b[rows]].astype(np.float32))
    return scores


def crop_scores(thumbnails: NDArray[np.uint8], a: NDArray[np.int64], b: NDArray[np.int64]) -> Array:
    """Return how well one thumbnail of each pair is a part of the other, float32 ``(P,)`` in [-1, 1].

    Parts of 70% to 92% of the sides are tried at every place, mirrored and not.

    Args:
        thumbnails: uint8 ``(N, 32, 32)``.
        a: int64 ``(P,)``, the one thumbnail of each pair.
        b: int64 ``(P,)``, the other.
    """
    whole = local_contrast(thumbnails).astype(np.float32)
    parts = [_contrast(_shrunk(thumbnails, round(scale * SIDE))) for scale in _CROP_SCALES]
    scores = np.full(len(a), -1, np.float32)
    for part in parts:
        side = slice(_EDGE, part.shape[1] - _EDGE)
        for i, (one, other) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            first = _best_place(whole[one], part[other][side, side])
            scores[i] = max(scores[i], first, _best_place(whole[other], part[one][side, side]))
    return scores


def _best(image: Array, others: Array) -> Array:
    """Return the best correlation of one image with each of some others, shifted and mirrored."""
    inner = slice(_SHIFT, SIDE - _SHIFT)
    centers = others[:, inner, inner]
    templates = _normalized(np.concatenate([centers, centers[:, :, ::-1]]).reshape(2 * len(others), -1))
    best = (templates @ _windows(image, centers.shape[1]).T).max(axis=1)
    return np.asarray(np.maximum(best[: len(others)], best[len(others) :]))


def _best_place(image: Array, part: Array) -> float:
    """Return the best correlation of a part with an image, at any place, mirrored or not."""
    templates = _normalized(np.stack([part, part[:, ::-1]]).reshape(2, -1))
    return float((templates @ _windows(image, part.shape[0]).T).max())


def _windows(image: Array, side: int) -> Array:
    """Return the square windows of an image, normalized, float32 ``(windows, side * side)``."""
    return _normalized(sliding_window_view(image, (side, side)).reshape(-1, side * side))


def _normalized(rows: Array) -> Array:
    """Return rows with mean 0 and length 1; a constant row becomes 0."""
    centered = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.asarray(centered / np.where(length > 1e-3, length, np.inf), np.float32)


def _contrast(images: Array) -> Array:
    """Return the local contrast of images, float32 ``(N, H, W)``."""
    from scipy.ndimage import gaussian_filter

    coarse = (0, _COARSE, _COARSE)
    detail = gaussian_filter(images, (0, _FINE, _FINE)) - gaussian_filter(images, coarse)
    spread = gaussian_filter(detail * detail, coarse)
    return np.asarray(detail / np.sqrt(spread + _NOISE), np.float32)


def _shrunk(thumbnails: NDArray[np.uint8], side: int) -> Array:
    """Return thumbnails at another size, by linear interpolation."""
    from PIL import Image

    size = (side, side)
    images = (Image.fromarray(t).resize(size, Image.Resampling.BICUBIC) for t in thumbnails)
    return np.array([np.asarray(image) for image in images], np.float32).reshape(-1, side, side)

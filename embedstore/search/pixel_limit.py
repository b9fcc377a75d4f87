"""How alike the pixels of two images must be to show one picture, in a collection whose images look alike anyway.

Scans of digits on black correlate in their thumbnails whatever they show: there is little in them to differ. So pairs
that are certainly not the same, drawn at random, are measured in the collection itself. The upper tail of their scores
(as the inverse hyperbolic tangent of the correlation, Fisher 1915) is continued as an exponential to the level where
few pairs of the collection are expected. Pairs of one kind are more alike than this law of random pairs says: of 300
scans of digits 16 to 21 pairs of one digit reach the limit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from embedstore.search.picture_match import SAME_PICTURE, match_scores

SAME_CROP = 0.78  # least score of a crop: of 800 crops all are above, of 3,000 other pairs the highest has 0.73
MIN_IMAGES = 50  # fewer say nothing about chance
FALSE_PAIRS_PER_IMAGE = 0.001  # expected above the limit among all pairs, for each image
# Images that are compared with others at random, and with how many each: with 20, the limit of 320 scans of digits was
# 0.916 to 0.967 by the order of their rows; with 300 it is 0.947 to 0.955.
_ROWS, _PARTNERS = 200, 300
_TAIL = 0.01  # the share of the pairs that the tail is fitted to
_MAX_LIMIT = 0.98


def same_picture_limit(
    contrast: NDArray[np.float16], usable: NDArray[np.bool_], alike: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> float:
    """Return the least score of two images of one picture: ``SAME_PICTURE``, or more where chance reaches it.

    Args:
        contrast: local contrast of the thumbnails.
        usable: bool ``(N,)``, which images could be read.
        alike: pairs of images that may show one picture, which are left out.
    """
    images = np.flatnonzero(usable)
    if len(images) < MIN_IMAGES:
        return SAME_PICTURE
    one, other = _random_pairs(images, alike, len(contrast))
    scores = np.arctanh(np.clip(match_scores(contrast, one, other), -0.999, 0.999))
    begin = float(np.quantile(scores, 1 - _TAIL))
    decay = float((scores[scores >= begin] - begin).mean())
    rate = 2 * FALSE_PAIRS_PER_IMAGE / len(images)
    return min(max(SAME_PICTURE, math.tanh(begin + decay * math.log(_TAIL / rate))), _MAX_LIMIT)


def least_crop_score(least_score: float) -> float:
    """Return the least score of an image and a part of it: more where that of one picture is more than usual."""
    return SAME_CROP if least_score == SAME_PICTURE else max(SAME_CROP, least_score)


def _random_pairs(
    images: NDArray[np.int64], alike: tuple[NDArray[np.int64], NDArray[np.int64]], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of different images that are not among those that may show one picture."""
    rng = np.random.default_rng(0)
    one = np.repeat(rng.permutation(images)[:_ROWS], _PARTNERS)
    other = rng.choice(images, len(one))
    key = np.minimum(one, other) * count + np.maximum(one, other)
    known = np.minimum(*alike) * count + np.maximum(*alike)
    differ = (one != other) & ~np.isin(key, known)
    return one[differ], other[differ]

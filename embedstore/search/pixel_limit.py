"""How alike the pixels of two images must be to show one picture, in a collection whose images look alike anyway.

Scans of digits on black correlate in their thumbnails whatever they show: there is little in them to differ. So pairs
that look as alike as the candidates and are none, an image and its next nearest ones, are measured in the collection
itself. The upper tail of their scores (as the inverse hyperbolic tangent of the correlation, Fisher 1915) is continued
as an exponential to the level that one in 5,000 of them reaches. Where images have more than twenty copies each, these
pairs are copies, too, and the limit is too high.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from embedstore.search.index.batch_scan import top_k_of_many
from embedstore.search.picture_match import whole_matches

SAME_PICTURE = 0.7
"""Score of two images of one picture: 99.5% of 400 photos of 32 by 32 pixels reach it that were cropped to 93 to 100%,
made 15% brighter or darker and saved again, and about 20 of those 12,000 pairs of CIFAR-10 that look most alike and are
not of one shot."""
SAME_CROP = 0.78  # least score of a crop: of 800 crops all are above, of 3,000 other pairs the highest has 0.73
NEIGHBORS = 20  # nearest contents of each: of 286 twins in CIFAR-10, 261 are among the twenty nearest in one space
MIN_IMAGES = 50  # fewer say nothing about chance
FALSE_SHARE = 2e-4  # of pairs as alike as the candidates, expected above the limit
_ROWS, _PARTNERS = 500, 20  # images whose next nearest ones are compared, and how many
_TAIL = 0.1  # the share of the pairs that the tail is fitted to
_MAX_LIMIT = 0.98

Rows = NDArray[np.int64]


def same_picture_limit(contrast: NDArray[np.float16], usable: NDArray[np.bool_], alike: tuple[Rows, Rows]) -> float:
    """Return the least score of two images of one picture: ``SAME_PICTURE``, or more where look-alikes reach it.

    Args:
        contrast: local contrast of the thumbnails.
        usable: bool ``(N,)``, which images could be read.
        alike: pairs of images that look alike and are no copies; see :func:`look_alikes`.
    """
    one, other = (side[usable[alike[0]] & usable[alike[1]]] for side in alike)
    if len(np.unique(one)) < MIN_IMAGES:
        return SAME_PICTURE
    scores = np.arctanh(np.clip(whole_matches(contrast, one, other)["score"], -0.999, 0.999))
    begin, middle = np.quantile(scores, [1 - _TAIL, 1 - _TAIL / 2])
    decay = float(middle - begin) / math.log(2)  # by the median, which a few copies do not move
    return min(max(SAME_PICTURE, math.tanh(float(begin) + decay * math.log(_TAIL / FALSE_SHARE))), _MAX_LIMIT)


def least_crop_score(least_score: float) -> float:
    """Return the least score of an image and a part of it: more where that of one picture is more than usual."""
    return SAME_CROP if least_score == SAME_PICTURE else max(SAME_CROP, least_score)


def look_alikes(rows: NDArray[np.float32], nearest: int = NEIGHBORS) -> tuple[Rows, Rows]:
    """Return pairs of some images and their next nearest ones, which look alike and are no candidates.

    Args:
        rows: vectors of length 1, ``(N, D)``.
        nearest: how many of the nearest ones may be copies and are left out.
    """
    some = np.sort(np.random.default_rng(0).permutation(len(rows))[:_ROWS])
    found = top_k_of_many([rows], np.asarray(rows[some], np.float32), nearest + 1 + _PARTNERS, unit=True)
    next_ones = [positions[nearest + 1 :] for _, positions in found]
    return np.repeat(some, [len(positions) for positions in next_ones]), np.concatenate([*next_ones, some[:0]])

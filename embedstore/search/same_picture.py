"""Whether the thumbnails of pairs of images show one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.search.picture_detail import SAME_DETAIL, detail_scores
from embedstore.search.picture_match import crop_matches, whole_matches
from embedstore.search.pixel_limit import least_crop_score

MAX_CROP_CHECKS = 5000  # the most similar pairs that are checked for crops; a check takes about 2 ms


@dataclass(frozen=True)
class ComparedPictures:
    """What the pixels of pairs of images say.

    Attributes:
        score: float32 ``(P,)``, how well they match, as a whole or as a part of each other.
        is_same: bool ``(P,)``, whether they show one picture.
        is_crop: bool ``(P,)``, whether they show one picture and a part of it.
    """

    score: NDArray[np.float32]
    is_same: NDArray[np.bool_]
    is_crop: NDArray[np.bool_]


def compare_pictures(
    thumbnails: NDArray[np.uint8],
    contrast: NDArray[np.float16],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    rank: NDArray[np.float32],
    least_score: float,
) -> ComparedPictures:
    """Compare the thumbnails of pairs: they must match, and once they are laid over each other, in their detail, too.

    Args:
        thumbnails: uint8 ``(N, 32, 32)``.
        contrast: their local contrast.
        pairs: int64 ``(P,)`` each, the thumbnails of each pair.
        rank: float32 ``(P,)``: pairs of the highest are checked for crops, at most ``MAX_CROP_CHECKS``.
        least_score: least score of a pair that shows one picture.
    """
    a, b = pairs
    matches = whole_matches(contrast, a, b)
    is_whole = matches["score"] >= least_score
    rest = np.flatnonzero(~is_whole)
    rest = rest[np.argsort(-rank[rest], kind="stable")[:MAX_CROP_CHECKS]]
    crops = _crops(thumbnails, a[rest], b[rest])
    is_crop = np.zeros(len(a), np.bool_)
    is_crop[rest] = crops["score"] >= least_crop_score(least_score)
    matches[rest] = np.where(is_crop[rest], crops, matches[rest])
    match = np.flatnonzero(is_whole | is_crop)
    is_same = np.zeros(len(a), np.bool_)
    is_same[match] = detail_scores(thumbnails, a[match], b[match], matches[match]) >= SAME_DETAIL
    return ComparedPictures(np.asarray(matches["score"], np.float32), is_same, is_same & is_crop)


def _crops(thumbnails: NDArray[np.uint8], a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.void]:
    """Return how one thumbnail of each pair matches a part of the other; only their thumbnails are prepared."""
    used, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    return crop_matches(thumbnails[used], place[: len(a)], place[len(a) :])

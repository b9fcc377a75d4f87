"""Pairs of contents that show one picture: candidates from the vectors, checked by the pixels of small thumbnails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.self_join import nearest_pairs
from embedstore.search.index.kmeans import UnitRowReader
from embedstore.search.index.self_join import BLOCK_ROWS, Pairs
from embedstore.search.index.short_rows import short_rows
from embedstore.search.picture_match import crop_scores, local_contrast, match_scores
from embedstore.search.pixel_limit import SAME_CROP, least_crop_score, same_picture_limit

NEIGHBORS = 20  # nearest contents of each: of 286 twins in CIFAR-10, 261 are among the twenty nearest in one space
MAX_CROP_CHECKS = 5000  # the most similar candidates that are checked for crops; a check takes about 2 ms

Thumbnails = tuple[NDArray[np.uint8], NDArray[np.bool_]]  # (N, 32, 32), and which could be read
ThumbnailReader = Callable[[NDArray[np.int64]], Thumbnails]  # of contents by number


@dataclass(frozen=True)
class PixelCheck:
    """How the pixels decided.

    Attributes:
        candidates: pairs of contents that were compared, the twenty nearest of each content.
        same: pairs whose pixels show one picture.
        crops: how many of them are a picture and a part of it.
        different: pairs at or above the cosine threshold whose pixels differ; they are not in the groups.
        unread: contents whose image could not be read; their pairs count by the threshold.
        least_score: the least score at which two images are one picture; more than 0.7 where different images of the
            collection look alike.
    """

    candidates: int
    same: int
    crops: int
    different: int
    unread: int
    least_score: float


@dataclass(frozen=True)
class CheckedPairs:
    """The pairs that show one picture.

    Attributes:
        pairs: the pairs of contents, and their cosines.
        pixels: float32 ``(P,)``, the score of the pixels; NaN where an image could not be read.
        check: counts.
    """

    pairs: Pairs
    pixels: NDArray[np.float32]
    check: PixelCheck


def check_pairs(read_rows: UnitRowReader, count: int, read_thumbnails: ThumbnailReader, limit: float) -> CheckedPairs:
    """Find the pairs of contents that show one picture.

    Args:
        read_rows: reads unit rows.
        count: number of contents.
        read_thumbnails: reads the thumbnails of contents.
        limit: least cosine of a pair where an image cannot be read.
    """
    with short_rows(read_rows, count) as short:
        found = nearest_pairs(short, NEIGHBORS)
    a, b, cosine = found.a, found.b, _cosines(read_rows, found.a, found.b)
    contents, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    one, other = place[: len(a)], place[len(a) :]
    thumbnails, is_read = read_thumbnails(contents)
    contrast = local_contrast(thumbnails)
    pixels = match_scores(contrast, one, other)
    can_check = is_read[one] & is_read[other]
    least = same_picture_limit(contrast, is_read, (one, other))
    same = can_check & (pixels >= least)
    crops = _crops(thumbnails, one, other, cosine, can_check & ~same)
    is_crop = crops >= least_crop_score(least)
    pixels = np.where(can_check, np.maximum(pixels, np.where(is_crop, crops, -1)), np.nan).astype(np.float32)
    accepted = same | is_crop | (~can_check & (cosine >= limit))
    check = PixelCheck(
        candidates=len(a),
        same=int((same | is_crop).sum()),
        crops=int(is_crop.sum()),
        different=int((can_check & ~accepted & (cosine >= limit)).sum()),
        unread=int((~is_read).sum()),
        least_score=round(least, 4),
    )
    return CheckedPairs((a[accepted], b[accepted], cosine[accepted]), pixels[accepted], check)


def _crops(
    thumbnails: NDArray[np.uint8],
    a: NDArray[np.int64],
    b: NDArray[np.int64],
    cosine: NDArray[np.float32],
    may_be: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Return the crop scores of the most similar of some pairs; -1 for pairs that are not checked, or no crops."""
    scores = np.full(len(a), -1, np.float32)
    rows = np.flatnonzero(may_be)
    rows = rows[np.argsort(-cosine[rows], kind="stable")[:MAX_CROP_CHECKS]]
    checked, place = np.unique(np.concatenate([a[rows], b[rows]]), return_inverse=True)
    found = crop_scores(thumbnails[checked], place[: len(rows)], place[len(rows) :])
    scores[rows] = np.where(found >= SAME_CROP, found, -1)
    return scores


def _cosines(read_rows: UnitRowReader, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosine of each pair of rows, float32 ``(P,)``."""
    cosine = np.empty(len(a), np.float32)
    order = np.argsort(a, kind="stable")
    for begin in range(0, len(a), BLOCK_ROWS):
        rows = order[begin : begin + BLOCK_ROWS]
        left, i = np.unique(a[rows], return_inverse=True)
        cosine[rows] = np.einsum("ij,ij->i", read_rows(left)[i], read_rows(b[rows]))
    return np.minimum(cosine, 1)

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
from embedstore.search.picture_match import local_contrast
from embedstore.search.pixel_limit import NEIGHBORS, look_alikes, same_picture_limit
from embedstore.search.same_picture import ComparedPictures, compare_pictures

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
        found, alike = nearest_pairs(short, NEIGHBORS), look_alikes(short)
    pairs = (found.a, found.b, _cosines(read_rows, found.a, found.b))
    contents, place = np.unique(np.concatenate([*pairs[:2], *alike]), return_inverse=True)
    one, other, *alike_places = np.split(place, np.cumsum([len(found), len(found), len(alike[0])]))
    thumbnails, is_read = read_thumbnails(contents)
    contrast = local_contrast(thumbnails)
    least = same_picture_limit(contrast, is_read, (alike_places[0], alike_places[1]))
    is_readable = is_read[one] & is_read[other]
    rows = np.flatnonzero(is_readable)
    compared = compare_pictures(thumbnails, contrast, (one[rows], other[rows]), pairs[2][rows], least)
    return _checked(pairs, is_readable, compared, limit, int((~is_read).sum()), least)


def _checked(
    pairs: Pairs, is_readable: NDArray[np.bool_], compared: ComparedPictures, limit: float, unread: int, least: float
) -> CheckedPairs:
    """Return the pairs that show one picture, and those of a high cosine where an image could not be read."""
    pixels, is_same = np.full(len(pairs[0]), np.nan, np.float32), np.zeros(len(pairs[0]), np.bool_)
    pixels[is_readable], is_same[is_readable] = compared.score, compared.is_same
    is_near = pairs[2] >= limit
    check = PixelCheck(
        candidates=len(pixels),
        same=int(is_same.sum()),
        crops=int(compared.is_crop.sum()),
        different=int((is_readable & ~is_same & is_near).sum()),
        unread=unread,
        least_score=round(least, 4),
    )
    accepted = is_same | (~is_readable & is_near)
    a, b, cosine = pairs
    return CheckedPairs((a[accepted], b[accepted], cosine[accepted]), pixels[accepted], check)


def _cosines(read_rows: UnitRowReader, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosine of each pair of rows, float32 ``(P,)``."""
    cosine = np.empty(len(a), np.float32)
    order = np.argsort(a, kind="stable")
    for begin in range(0, len(a), BLOCK_ROWS):
        rows = order[begin : begin + BLOCK_ROWS]
        left, i = np.unique(a[rows], return_inverse=True)
        cosine[rows] = np.einsum("ij,ij->i", read_rows(left)[i], read_rows(b[rows]))
    return np.minimum(cosine, 1)

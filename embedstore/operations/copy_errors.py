"""Measure both errors of `duplicates` in a store: copies of its own images that are missed, other pairs that count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from embedstore.classify.metrics.shares import wilson_interval
from embedstore.errors import BadOption, ImageError, LabelError
from embedstore.media.image.decode import to_rgb_image
from embedstore.media.image.gray_thumbnails import gray_thumbnail
from embedstore.operations.near_duplicate_check import encode_images, half_size, saved_again
from embedstore.operations.session import Session
from embedstore.search.duplicates import choose_threshold
from embedstore.search.picture_match import crop_scores, local_contrast, match_scores
from embedstore.search.pixel_limit import least_crop_score, same_picture_limit
from embedstore.search.space_rows import MatchingRows
from embedstore.sources.locations import read_item
from embedstore.storage.queries import search as queries
from embedstore.tables import Record, Table

_CROP = 0.85  # part of each side that a crop keeps


def _cropped(image: Image.Image) -> Image.Image:
    """Return the part of an image around its center."""
    margin = ((1 - _CROP) / 2 * image.width, (1 - _CROP) / 2 * image.height)
    return image.crop(
        (round(margin[0]), round(margin[1]), round(image.width - margin[0]), round(image.height - margin[1]))
    )


_COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again at JPEG quality 50": saved_again,
    "mirrored": ImageOps.mirror,
    "half the size": half_size,
    "cropped to 85%": _cropped,
}
_OTHERS = "different images"


@dataclass(frozen=True)
class PairShare:
    """How many pairs of one kind count as copies.

    Attributes:
        kind: how the second image of each pair was made; ``different images`` for pairs that are no copies.
        way: ``cosine``, or ``pixels`` as with ``check_pixels``.
        pairs: how many pairs were made; every image is in one of them.
        counted: how many of them count as copies.
        low: lower end of the 95% interval of their share (Wilson 1927).
        high: its upper end.
    """

    kind: str
    way: str
    pairs: int
    counted: int
    low: float
    high: float

    @property
    def is_copy(self) -> bool:
        """Whether the pairs are copies, so that those that do not count are missed."""
        return self.kind != _OTHERS


@dataclass(frozen=True)
class CopyErrors(Table):
    """Both errors, by cosine and by pixels.

    Attributes:
        threshold: cosine from which a pair counts.
        images: how many images were copied.
        shares: one per kind of pair and way.
    """

    threshold: float
    images: int
    shares: tuple[PairShare, ...]

    def records(self) -> list[Record]:
        """Return one mapping per kind of pair and way."""
        return [asdict(share) for share in self.shares]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def measure_copy_errors(
    session: Session, *, threshold: float | None, max_images: int, where: str | None, space: str | None, seed: int
) -> CopyErrors:
    """Measure both errors; see :meth:`embedstore.Store.copy_errors`."""
    if max_images < 2:
        raise BadOption(f"errors are measured on two images at least, not {max_images}")
    record = session.space(space)
    settings = {"threshold": threshold, "max_images": max_images, "where": where, "seed": seed}

    def measure() -> CopyErrors:
        backbone = session.backbone(record.key)
        matching = MatchingRows.load(session.storage, record, where)
        chosen = choose_threshold(matching) if threshold is None else threshold
        images = list(_sample(session, matching, max_images, seed))
        preprocess = backbone.space.preprocess
        if len(images) < 2 or preprocess is None:
            raise LabelError("fewer than two images of the items can be read; bring the files back to measure errors")
        original = encode_images(backbone, images, preprocess)
        least = _least_score(images)
        shares: list[PairShare] = []
        for kind, copy in _COPIES.items():
            copies = [copy(image) for image in images]
            cosine = (original * encode_images(backbone, copies, preprocess)).sum(axis=1)
            shares += _shares(kind, cosine >= chosen, _same_picture(images, copies, least))
        half = len(images) // 2
        cosine = (original[:half] * original[half : 2 * half]).sum(axis=1)
        shares += _shares(_OTHERS, cosine >= chosen, _same_picture(images[:half], images[half : 2 * half], least))
        return CopyErrors(chosen, len(images), tuple(shares))

    return session.recorded("copy_errors", record, settings, measure)


def _shares(kind: str, by_cosine: NDArray[np.bool_], by_pixels: NDArray[np.bool_]) -> Iterator[PairShare]:
    """Yield the shares of one kind of pair by both ways."""
    for way, counts in (("cosine", by_cosine), ("pixels", by_pixels)):
        low, high = wilson_interval(float(counts.mean()), len(counts))
        yield PairShare(kind, way, len(counts), int(counts.sum()), round(low, 4), round(high, 4))


def _least_score(images: list[Image.Image]) -> float:
    """Return the least score of pixels that show one picture, as in a collection of these images."""
    contrast = local_contrast(np.stack([gray_thumbnail(image) for image in images]))
    none = np.empty(0, np.int64)
    return same_picture_limit(contrast, np.ones(len(images), np.bool_), (none, none))


def _same_picture(images: list[Image.Image], others: list[Image.Image], least: float) -> NDArray[np.bool_]:
    """Return whether the pixels of each pair show one picture, or a part of it."""
    thumbnails = np.stack([gray_thumbnail(image) for image in [*images, *others]])
    one, other = np.arange(len(images)), np.arange(len(images)) + len(images)
    same = match_scores(local_contrast(thumbnails), one, other) >= least
    return np.asarray(same | (crop_scores(thumbnails, one, other) >= least_crop_score(least)))


def _sample(session: Session, matching: MatchingRows, max_images: int, seed: int) -> Iterator[Image.Image]:
    """Yield decoded images of a random sample of different contents; those that cannot be read are left out."""
    _, first = np.unique(matching.content, return_index=True)
    items = np.random.default_rng(seed).permutation(matching.items[first])[:max_images].tolist()
    with session.storage.catalog.read() as con:
        files = queries.item_files(con, items)
    for item in items:
        try:
            yield to_rgb_image(read_item(*files[item]))
        except ImageError:
            continue

"""Measure both errors of `duplicates` in a store: copies of its own images that are missed, other pairs that count.

A cosine is also measured: half of the images say which cosine their copies reach, and the other half say how well it
does, so that the figures are not those of the images that chose it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from embedstore.classify.metrics.shares import wilson_interval
from embedstore.errors import BadOption, ImageError, LabelError
from embedstore.media.image.decode import to_rgb_image
from embedstore.media.image.gray_thumbnails import gray_thumbnail
from embedstore.operations.near_duplicate_check import IMAGES_AT_ONCE, encode_images, half_size, saved_again
from embedstore.operations.session import Session
from embedstore.search.duplicates import choose_threshold
from embedstore.search.picture_match import local_contrast
from embedstore.search.pixel_limit import NEIGHBORS, look_alikes, same_picture_limit
from embedstore.search.same_picture import compare_pictures
from embedstore.search.space_rows import MatchingRows
from embedstore.sources.locations import read_item
from embedstore.space import Preprocess
from embedstore.storage.queries import search as queries
from embedstore.tables import Record, Table

_CROP = 0.85  # part of each side that a crop keeps
FOUND_COPIES = 0.95  # of the copies of half of the images: what the measured cosine finds
_MIN_IMAGES = 40  # in all; of the copies of 20 images, three are below the measured cosine
_MOST_OTHER_PAIRS = 20_000  # pairs of contents drawn at random
_PAIRS_AT_ONCE = 2048


def _cropped(image: Image.Image) -> Image.Image:
    """Return the part of an image around its center."""
    margin = ((1 - _CROP) / 2 * image.width, (1 - _CROP) / 2 * image.height)
    return image.crop(
        (round(margin[0]), round(margin[1]), round(image.width - margin[0]), round(image.height - margin[1]))
    )


_WHOLE: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again at JPEG quality 50": saved_again,
    "mirrored": ImageOps.mirror,
    "half the size": half_size,
}
_COPIES = _WHOLE | {"cropped to 85%": _cropped}
_OTHERS = "different images"
_COSINE, _MEASURED, _PIXELS = "cosine", "measured cosine", "pixels"


@dataclass(frozen=True)
class PairShare:
    """How many pairs of one kind count as copies.

    Attributes:
        kind: how the second image of each pair was made; ``different images`` for pairs that are no copies.
        way: ``cosine``, ``measured cosine``, or ``pixels`` as with ``check_pixels``.
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
        measured_threshold: cosine that 95% of the copies of half of the images reach, crops left out; its shares are of
            the other half. None for fewer than 40 images.
    """

    threshold: float
    images: int
    shares: tuple[PairShare, ...]
    measured_threshold: float | None = None

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
        preprocess = backbone.space.preprocess
        seen = CopiedImages.of(backbone, preprocess, _sample(session, matching, max_images, seed))
        if seen is None or len(seen) < 2:
            raise LabelError("fewer than two images of the items can be read; bring the files back to measure errors")
        others = _other_cosines(matching, seed)
        shares = [*_cosine_shares(_COSINE, seen, others, chosen), *_pixel_shares(seen, len(matching))]
        measured = seen.half(0).measured_threshold() if len(seen) >= _MIN_IMAGES else None
        if measured is not None:
            shares += _cosine_shares(_MEASURED, seen.half(1), others, measured)
        kinds = [*_COPIES, _OTHERS]
        return CopyErrors(chosen, len(seen), tuple(sorted(shares, key=lambda s: kinds.index(s.kind))), measured)

    return session.recorded("copy_errors", record, settings, measure)


@dataclass(frozen=True)
class CopiedImages:
    """Images and their copies, as the network and the pixels see them.

    Attributes:
        thumbnails: the thumbnails of the images, then of the copies of each kind: ``(N, side, side)`` each.
        cosines: the cosines of each image with its copy, ``(N,)`` for each kind.
        vectors: float32 ``(N, D)``, the images as the network sees them.
    """

    thumbnails: tuple[NDArray[Any], ...]
    cosines: tuple[NDArray[np.float32], ...]
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.thumbnails[0])

    @classmethod
    def of(cls, backbone: Any, preprocess: Preprocess | None, images: Iterator[Image.Image]) -> CopiedImages | None:
        """Copy and embed images, a few at a time; None if there are none."""
        parts = []
        while preprocess is not None and (some := list(islice(images, IMAGES_AT_ONCE))):
            thumbnails, cosines, original = [_thumbnails(some)], [], encode_images(backbone, some, preprocess)
            for copy in _COPIES.values():
                copies = [copy(image) for image in some]
                thumbnails.append(_thumbnails(copies))
                cosines.append((original * encode_images(backbone, copies, preprocess)).sum(axis=1))
            parts.append((thumbnails, cosines, [original]))
        if not parts:
            return None
        thumbnails_of_kinds, cosines_of_kinds, vectors = [
            tuple(np.concatenate(kind) for kind in zip(*lists, strict=True)) for lists in zip(*parts, strict=True)
        ]
        return cls(thumbnails_of_kinds, cosines_of_kinds, vectors[0])

    def half(self, start: int) -> CopiedImages:
        """Return every second image."""
        thumbnails, cosines = (tuple(kind[start::2] for kind in kinds) for kinds in (self.thumbnails, self.cosines))
        return CopiedImages(thumbnails, cosines, self.vectors[start::2])

    def measured_threshold(self) -> float:
        """Return the cosine that ``FOUND_COPIES`` of the copies of whole images reach, rounded down."""
        cosines = np.concatenate(self.cosines[: len(_WHOLE)])
        cosine = float(np.quantile(cosines, 1 - FOUND_COPIES, method="lower"))
        return max(math.floor(cosine * 1e4) / 1e4, 1e-4)


def _thumbnails(images: Sequence[Image.Image]) -> NDArray[Any]:
    """Return the thumbnails of images."""
    return np.stack([gray_thumbnail(image) for image in images])


def _cosine_shares(way: str, seen: CopiedImages, others: NDArray[np.float32], threshold: float) -> Iterator[PairShare]:
    """Yield the share of each kind of pair that reaches a cosine."""
    for kind, cosines in zip([*_COPIES, _OTHERS], [*seen.cosines, others], strict=True):
        yield _share(kind, way, cosines >= threshold)


def _pixel_shares(seen: CopiedImages, count: int) -> Iterator[PairShare]:
    """Yield the share of each kind of pair whose pixels show one picture; other pairs are of the images themselves.

    Args:
        seen: the images and their copies.
        count: how many images the store has, of which these are a sample.
    """
    images, *copies = seen.thumbnails
    least = _least_score(seen, count)
    for kind, thumbnails in zip(_COPIES, copies, strict=True):
        yield _share(kind, _PIXELS, _same_picture(images, thumbnails, least))
    half = len(images) // 2
    yield _share(_OTHERS, _PIXELS, _same_picture(images[:half], images[half : 2 * half], least))


def _share(kind: str, way: str, counts: NDArray[np.bool_]) -> PairShare:
    """Return the share of one kind of pair by one way, with Wilson's interval."""
    low, high = wilson_interval(float(counts.mean()), len(counts))
    return PairShare(kind, way, len(counts), int(counts.sum()), round(low, 4), round(high, 4))


def _other_cosines(matching: MatchingRows, seed: int) -> NDArray[np.float32]:
    """Return the cosines of pairs of contents drawn at random, each content in one pair at most."""
    order = np.random.default_rng(seed).permutation(len(matching))
    pairs = order[: 2 * min(len(order) // 2, _MOST_OTHER_PAIRS)].reshape(-1, 2)
    read_rows = matching.reader()
    blocks = [pairs[n : n + _PAIRS_AT_ONCE] for n in range(0, len(pairs), _PAIRS_AT_ONCE)]
    return np.concatenate([(read_rows(a) * read_rows(b)).sum(axis=1) for a, b in (block.T for block in blocks)])


def _least_score(seen: CopiedImages, count: int) -> float:
    """Return the least score of pixels that show one picture, as in the collection of which the images are a sample."""
    alike = look_alikes(seen.vectors, round(NEIGHBORS * min(1, len(seen) / count)))
    return same_picture_limit(local_contrast(seen.thumbnails[0]), np.ones(len(seen), np.bool_), alike)


def _same_picture(images: NDArray[Any], others: NDArray[Any], least: float) -> NDArray[np.bool_]:
    """Return whether the pixels of each pair show one picture, or a part of it."""
    thumbnails = np.concatenate([images, others])
    pairs = (np.arange(len(images)), np.arange(len(images)) + len(images))
    rank = np.ones(len(images), np.float32)
    return compare_pictures(thumbnails, local_contrast(thumbnails), pairs, rank, least).is_same


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

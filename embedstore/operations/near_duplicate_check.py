"""Measure how many copies of a store's own images the threshold of a space finds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from embedstore.arrays import unit_rows
from embedstore.classify.data.features import Features, load_features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.errors import ItemError, LabelError
from embedstore.media.image.decode import to_rgb_image
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.operations.session import Session
from embedstore.sources.locations import read_location
from embedstore.space import Preprocess
from embedstore.storage.queries.finetuning import image_files
from embedstore.tables import Record, Table

_JPEG_QUALITY = 50
IMAGES_AT_ONCE = 16  # decoded photos in memory


def saved_again(image: Image.Image) -> Image.Image:
    """Return an image as JPEG of quality 50 makes it."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=_JPEG_QUALITY)
    return to_rgb_image(data.getvalue())


def half_size(image: Image.Image) -> Image.Image:
    """Return an image at half its width and height."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC)


_COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again at JPEG quality 50": saved_again,
    "mirrored": ImageOps.mirror,
    "half the size": half_size,
}


@dataclass(frozen=True)
class CopyKind:
    """Copies of one kind.

    Attributes:
        kind: how the copies were made.
        copies: how many.
        found: how many of them have the threshold's cosine to their original.
        lowest: the lowest cosine.
        median: the median cosine.
    """

    kind: str
    copies: int
    found: int
    lowest: float
    median: float


@dataclass(frozen=True)
class NearDuplicateCheck(Table):
    """Both errors of the threshold of near-duplicates in a space.

    Attributes:
        threshold: cosine from which a pair counts.
        kinds: what was found of copies that were made of a sample of the images.
        expected_false_pairs: pairs of different pictures that are expected among all items; None for a given threshold.
        pairs: pairs of items at or above the threshold.
        pairs_with_different_labels: how many of them have different labels.
    """

    threshold: float
    kinds: tuple[CopyKind, ...]
    expected_false_pairs: float | None
    pairs: int
    pairs_with_different_labels: int

    def records(self) -> list[Record]:
        """Return one mapping per kind of copy."""
        return [asdict(kind) for kind in self.kinds]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return asdict(self)


def check_near_duplicates(
    session: Session,
    label: str,
    *,
    max_images: int,
    threshold: float | None,
    where: str | None,
    space: str | None,
    seed: int,
) -> NearDuplicateCheck:
    """Measure the errors of the threshold; see :meth:`embedstore.Store.check_near_duplicates`."""
    record = session.space(space)
    settings = {"label": label, "where": where, "threshold": threshold, "max_images": max_images, "seed": seed}

    def check() -> NearDuplicateCheck:
        backbone = session.backbone(record.key)
        data = NearDuplicateOptions(threshold=threshold).join(
            load_features(session.storage, record, label, where=where)
        )
        found = data.near_duplicates
        if found is None:
            raise LabelError("a threshold of 0 finds nothing; give a cosine above 0, or none")
        preprocess = backbone.space.preprocess
        images = _sample_images(session, data, max_images, seed)
        cosines = _copy_cosines(backbone, preprocess, images) if preprocess is not None else None
        if cosines is None:
            raise LabelError(
                f"no image of the items with a {label!r} can be read; bring the files back to check copies"
            )
        kinds = []
        for kind, cosine in cosines.items():
            n_found = int((cosine >= found.threshold).sum())
            kinds.append(CopyKind(kind, len(cosine), n_found, float(cosine.min()), float(np.median(cosine))))
        return NearDuplicateCheck(
            threshold=found.threshold,
            kinds=tuple(kinds),
            expected_false_pairs=found.expected_false_pairs,
            pairs=len(found.cosine),
            pairs_with_different_labels=found.n_across_labels,
        )

    return session.recorded("check_near_duplicates", record, settings, check)


def _copy_cosines(
    backbone: Any, preprocess: Preprocess, images: Iterator[Image.Image]
) -> dict[str, NDArray[np.float32]] | None:
    """Return the cosine of each image with its copy of each kind, a few images at a time; None if there are none."""
    cosines: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in _COPIES}
    while some := list(islice(images, IMAGES_AT_ONCE)):
        originals = encode_images(backbone, some, preprocess)
        for kind, copy in _COPIES.items():
            copies = encode_images(backbone, [copy(image) for image in some], preprocess)
            cosines[kind].append((originals * copies).sum(axis=1))
    return {kind: np.concatenate(parts) for kind, parts in cosines.items()} if all(cosines.values()) else None


def _sample_images(session: Session, data: Features, max_images: int, seed: int) -> Iterator[Image.Image]:
    """Yield decoded images of a random sample of the items; those that cannot be read are left out."""
    items = np.random.default_rng(seed).permutation(data.ids)[:max_images].tolist()
    for path, _ in image_files(session.storage, items).values():
        try:
            yield to_rgb_image(read_location(path))
        except ItemError:
            continue


def encode_images(backbone: Any, images: list[Image.Image], preprocess: Preprocess) -> NDArray[np.float32]:
    """Return unit vectors of images, float32 ``(N, D)``."""
    return unit_rows(backbone.encode_images(np.stack([resize_and_crop(image, preprocess) for image in images])))

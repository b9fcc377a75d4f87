"""How different the images of a store are from those that its network was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.base import Backbone
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation import EvaluationSettings, evaluate_head
from embedstore.errors import EmbedstoreError, ItemError
from embedstore.finetuning.advice import DomainDifference
from embedstore.finetuning.domain_shift import MAX_IMAGES, measure_domain_shift
from embedstore.finetuning.jpeg_quality import has_visible_artifacts
from embedstore.media.image import decode, preprocess
from embedstore.sources.locations import read_location
from embedstore.space import Preprocess, Space

UNKNOWN = DomainDifference("unknown", None, 0)


@dataclass(frozen=True)
class DomainImages:
    """Images of a store for measuring its domain.

    Attributes:
        data: labeled features of the space.
        find_files: returns path and content hash by item, for some items.
        seed: the random seed of the sample of images, and of the folds.
    """

    data: Features
    find_files: Callable[[list[int]], Mapping[int, tuple[str, str]]]
    seed: int


def measure_domain(
    space: Space,
    images: DomainImages,
    load_backbone: Callable[[], Backbone],
    load_random_twin: Callable[[], Backbone],
) -> DomainDifference:
    """Measure the domain difference on at most 256 images; images that cannot be read are left out.

    Networks without BatchNorm statistics are compared with themselves at random weights.

    Args:
        space: whose network is measured.
        images: the images to sample from.
        load_backbone: returns the space's network.
        load_random_twin: returns the same network with random weights.
    """
    if space.preprocess is None or space.has_random_weights:
        return UNKNOWN
    sample = list(_sample_pixels(images, space.preprocess))
    if not sample:
        return UNKNOWN
    rows = np.array([s.row for s in sample], dtype=np.int64)
    pixels = np.stack([s.pixels for s in sample])
    low_quality = sum(s.low_quality for s in sample) / len(sample)
    backbone = load_backbone()
    shift = measure_domain_shift(backbone, pixels)
    if shift is not None:
        return DomainDifference("batchnorm", shift.distance, shift.images, low_quality)
    lift = _accuracy_lift(replace(images, data=images.data.take(rows)), pixels, backbone, load_random_twin)
    return DomainDifference("unknown" if lift is None else "twin", lift, len(sample), low_quality)


@dataclass(frozen=True)
class _SampledImage:
    row: int
    pixels: NDArray[np.uint8]
    low_quality: bool


def _sample_pixels(images: DomainImages, of: Preprocess) -> Iterator[_SampledImage]:
    """Yield some rows as embedding prepares them."""
    order = np.random.default_rng(images.seed).permutation(len(images.data))
    rows = np.sort(order[:MAX_IMAGES])
    items = images.data.ids[rows].tolist()
    files = images.find_files(items)
    for row, item in zip(rows.tolist(), items, strict=True):
        try:
            data = read_location(files[item][0])
            image = decode.open_image(data, of.decoding_settings)[0]
        except ItemError:
            continue
        yield _SampledImage(row, preprocess.resize_and_crop(image, of), has_visible_artifacts(data, image.size, of))


def _accuracy_lift(
    images: DomainImages, pixels: NDArray[np.uint8], backbone: Backbone, load_random_twin: Callable[[], Backbone]
) -> float | None:
    """Return the two-fold accuracy of class means above that of the random twin, None if it cannot be computed."""
    settings = EvaluationSettings(folds=2, seed=images.seed, near_duplicate_threshold=0)

    def accuracy(network: Backbone) -> float:
        features = replace(images.data, X=network.encode_images(pixels))
        return evaluate_head("prototype", features, settings).accuracy

    try:
        return accuracy(backbone) - accuracy(load_random_twin())
    except EmbedstoreError:  # too few images of a class, or a network that cannot be built with random weights
        return None

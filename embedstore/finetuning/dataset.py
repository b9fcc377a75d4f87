"""The images of a training run: decoded as embedding decodes them, augmented for training, preprocessed per space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from embedstore.errors import ImageError, ItemError
from embedstore.finetuning.augment import Transform, build_transform
from embedstore.finetuning.settings import AugmentationSettings
from embedstore.media.image import decode, preprocess
from embedstore.resources import memory_share
from embedstore.sources.locations import read_location
from embedstore.space import Preprocess
from embedstore.types import FailureReason, content_digest

IMAGE_CACHE_BYTES = 1 << 30  # bytes of decoded images kept, so that epochs after the first need no decoder
CACHED_SCALE = 2  # an image is reduced to this multiple of the network's input before it is cached

Batches: TypeAlias = "DataLoader[tuple[torch.Tensor, int]]"


@dataclass(frozen=True)
class LabeledImage:
    """One labeled image.

    Attributes:
        path: file to open.
        content: hash of its bytes when it was embedded, 32 hexadecimal digits.
        class_index: number of its class, -1 for a class that is not trained.
    """

    path: str
    content: str
    class_index: int


class LabeledImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images as pixels, indexed by ``(row, seed)``: the same pair gives the same pixels in every process.

    Args:
        samples: every row.
        preprocess: the space's preprocessing.
        augment: augmentation of the training images.
    """

    def __init__(self, samples: Sequence[LabeledImage], preprocess: Preprocess, augment: AugmentationSettings) -> None:
        self.samples, self.preprocess, self.augment = list(samples), preprocess, augment
        self._cache: dict[int, Image.Image] = {}
        self._cached_bytes = 0
        self._transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        row, seed = key
        if self._transform is None:
            self._transform = build_transform(self.augment, self.preprocess)
        return self._transform(self.image(row), seed), self.samples[row].class_index

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": {}, "_cached_bytes": 0, "_transform": None}

    def class_indices(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class number of some rows."""
        return np.array([self.samples[r].class_index for r in rows.tolist()], dtype=np.int64)

    def image(self, row: int) -> Image.Image:
        """Return the decoded image, reduced to at most twice the network's input.

        Raises:
            ImageError: if it cannot be read, or its bytes differ from those that were embedded.
        """
        if row in self._cache:
            return self._cache[row]
        image = self._reduce(self._decode(row))
        size = image.width * image.height * 3
        if self._cached_bytes + size <= memory_share(IMAGE_CACHE_BYTES, 8):
            self._cache[row], self._cached_bytes = image, self._cached_bytes + size
        return image

    def evaluation_pixels(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Return pixels exactly as embedding prepares them: uint8 ``(n, 3, H, W)``.

        Raises:
            ImageError: if an image cannot be read, or its bytes differ from those that were embedded.
        """
        return np.stack([preprocess.resize_and_crop(self._decode(r), self.preprocess) for r in rows])

    def is_readable(self, row: int) -> bool:
        """Return whether the image can be read and has the bytes that were embedded."""
        try:
            self.image(row)
        except ItemError:
            return False
        return True

    def _decode(self, row: int) -> Image.Image:
        """Return the image as the embedding pipeline decodes it."""
        sample = self.samples[row]
        data = read_location(sample.path)
        if content_digest(data) != sample.content:
            raise ImageError(FailureReason.CORRUPT, f"{sample.path} has changed since it was embedded")
        return decode.open_image(data, self.preprocess.decoding_settings)[0]

    def _reduce(self, image: Image.Image) -> Image.Image:
        """Return the image with a shorter side of at most twice the network's input."""
        factor = CACHED_SCALE * max(self.preprocess.resize) / min(image.size)
        if factor >= 1:
            return image
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        return image.resize(size, Image.Resampling.BICUBIC)


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch, in an order that depends on the seed and the epoch alone.

    Args:
        rows: training rows.
        batch_size: rows per batch.
        seed: of the run.
        rank: of this process among those that train together.
        world_size: number of those processes; each takes its share of every batch.
    """

    def __init__(
        self, rows: NDArray[np.int64], batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows, self.batch_size, self.seed, self.epoch = rows, batch_size, seed, 0
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return max(1, -(-len(self.rows) // self.batch_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.rows)
        seeds = rng.integers(0, 2**62, len(order))
        keys = list(zip(order.tolist(), seeds.tolist(), strict=True))
        for begin in range(0, len(keys), self.batch_size):
            batch = keys[begin : begin + self.batch_size]
            if len(batch) < self.world_size:
                batch = (batch * self.world_size)[: self.world_size]
            yield batch[self.rank :: self.world_size]


def create_loader(dataset: LabeledImageDataset, sampler: EpochBatchSampler, num_workers: int) -> Batches:
    """Return a loader of batches: uint8 ``(B, 3, H, W)`` and class numbers ``(B,)``."""
    workers: dict[str, Any] = (
        {"num_workers": num_workers, "persistent_workers": True, "multiprocessing_context": "forkserver"}
        if num_workers
        else {}
    )
    return DataLoader(dataset, batch_sampler=sampler, **workers)

"""The images of a training run: decoded by the store's own decoder, varied for training, prepared as for embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from embedstore.errors import ImageError
from embedstore.finetuning.augment import build_transform
from embedstore.finetuning.settings import AugmentationSettings
from embedstore.media.image import decode, preprocess
from embedstore.sources.local_files import read_file
from embedstore.space import Preprocess
from embedstore.types import content_digest

IMAGE_CACHE_BYTES = 1 << 30  # of decoded pictures, so that an epoch after the first needs no decoder
_LARGER = 2  # times the network's input: what a picture is reduced to before it is kept


@dataclass(frozen=True)
class LabeledImage:
    """One labelled image.

    Attributes:
        path: what to open. content: its digest when it was embedded, 32 hexadecimal digits. y: number of its class.
    """

    path: str
    content: str
    class_index: int


class LabeledImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Samples as pixels. Indexed by ``(row, seed)``: the same pair gives the same pixels, in whichever process.

    Args:
        samples: every row. p: the space's preprocessing. augment: how training images are varied.
    """

    def __init__(self, samples: Sequence[LabeledImage], preprocess: Preprocess, augment: AugmentationSettings) -> None:
        self.samples, self.preprocess, self.augment = list(samples), preprocess, augment
        self._kept: dict[int, Image.Image] = {}
        self._bytes = 0
        self._vary: Any = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        row, seed = key
        if self._vary is None:
            self._vary = build_transform(self.augment, self.preprocess)
        return self._vary(self.image(row), seed), self.samples[row].class_index

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}, "_bytes": 0, "_vary": None}

    def image(self, row: int) -> Image.Image:
        """The decoded image, not larger than twice what the network takes.

        Raises:
            ImageError: it cannot be read, or has other bytes than those that were embedded.
        """
        if row in self._kept:
            return self._kept[row]
        image = self._reduced(self._decoded(row))
        size = image.width * image.height * 3
        if self._bytes + size <= IMAGE_CACHE_BYTES:
            self._kept[row], self._bytes = image, self._bytes + size
        return image

    def evaluation_pixels(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Pixels exactly as embedding prepares them: uint8 ``(n, 3, H, W)``."""
        return np.stack([preprocess.resize_and_crop(self._decoded(r), self.preprocess) for r in rows])

    def is_readable(self, row: int) -> bool:
        """The image is there and has the bytes that were embedded."""
        try:
            self.image(row)
        except ImageError:
            return False
        return True

    def _decoded(self, row: int) -> Image.Image:
        """The image as the embedding pipeline decodes it."""
        sample = self.samples[row]
        data = read_file(sample.path)
        if content_digest(data) != sample.content:
            from embedstore.types import FailureReason

            raise ImageError(FailureReason.CORRUPT, f"{sample.path} has changed since it was embedded")
        return decode.open_image(data)[0]

    def _reduced(self, image: Image.Image) -> Image.Image:
        """At most twice the network's input on the shorter side."""
        factor = _LARGER * max(self.preprocess.resize) / min(image.size)
        if factor >= 1:
            return image
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        return image.resize(size, Image.Resampling.BICUBIC)


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch, in an order that the seed and the epoch alone decide.

    Args:
        rows: that train. batch: rows of one. seed: of the run. rank, world: this process among those that train
            together: each takes its share of every batch.
    """

    def __init__(
        self, rows: NDArray[np.int64], batch_size: int, seed: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows, self.batch, self.seed, self.epoch = rows, batch_size, seed, 0
        self.rank, self.world = rank, world_size

    def __len__(self) -> int:
        return max(1, -(-len(self.rows) // self.batch))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.rows)
        seeds = rng.integers(0, 2**62, len(order))
        for begin in range(0, len(order), self.batch):
            part = [(int(r), int(s)) for r, s in zip(order[begin:][: self.batch], seeds[begin:], strict=False)]
            if len(part) < self.world:
                part = (part * self.world)[: self.world]
            yield part[self.rank :: self.world]


def create_loader(
    dataset: LabeledImageDataset, sampler: EpochBatchSampler, num_workers: int
) -> DataLoader[tuple[torch.Tensor, int]]:
    """Batches of uint8 ``(B, 3, H, W)`` and class numbers ``(B,)``."""
    apart: dict[str, Any] = (
        {"num_workers": num_workers, "persistent_workers": True, "multiprocessing_context": "forkserver"}
        if num_workers
        else {}
    )
    return DataLoader(dataset, batch_sampler=sampler, **apart)

"""The images of a training run: decoded as embedding decodes them, augmented for training, preprocessed per space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from embedstore.errors import ItemError
from embedstore.finetuning.augment import Transform, build_transform
from embedstore.finetuning.labeled import LabeledItem, class_indices, read_unchanged
from embedstore.finetuning.settings import AugmentationSettings
from embedstore.media.image import decode, preprocess
from embedstore.resources import memory_share
from embedstore.space import Preprocess

IMAGE_CACHE_BYTES = 1 << 30  # bytes of decoded images kept, so that epochs after the first need no decoder
CACHED_SCALE = 2  # an image is reduced to this multiple of the network's input before it is cached


class LabeledImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images as pixels, indexed by ``(row, seed)``: the same pair gives the same pixels in every process.

    Args:
        samples: every row.
        preprocess: the space's preprocessing.
        augment: augmentation of the training images.

    Attributes:
        loads_in_processes: processes may prepare the images.
    """

    loads_in_processes = True

    def __init__(self, samples: Sequence[LabeledItem], preprocess: Preprocess, augment: AugmentationSettings) -> None:
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
        return class_indices(self.samples, rows)

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

    def evaluation_batch(self, rows: Sequence[int]) -> torch.Tensor:
        """Return :meth:`evaluation_pixels` as a tensor."""
        return torch.from_numpy(self.evaluation_pixels(rows))

    @staticmethod
    def batch_bytes(batch: torch.Tensor) -> int:
        """Return the memory that a batch of pixels takes."""
        return batch.numel()

    @staticmethod
    def collate(samples: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return samples as uint8 ``(B, 3, H, W)`` and class numbers ``(B,)``."""
        return torch.stack([pixels for pixels, _ in samples]), torch.tensor([label for _, label in samples])

    def is_readable(self, row: int) -> bool:
        """Return whether the image can be read and has the bytes that were embedded."""
        try:
            self.image(row)
        except ItemError:
            return False
        return True

    def _decode(self, row: int) -> Image.Image:
        """Return the image as the embedding pipeline decodes it."""
        data = read_unchanged(self.samples[row])
        return decode.open_image(data, self.preprocess.decoding_settings)[0]

    def _reduce(self, image: Image.Image) -> Image.Image:
        """Return the image with a shorter side of at most twice the network's input."""
        factor = CACHED_SCALE * max(self.preprocess.resize) / min(image.size)
        if factor >= 1:
            return image
        size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
        return image.resize(size, Image.Resampling.BICUBIC)

"""The texts or sounds of a training run, read and prepared exactly as embedding does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from embedstore.backbones.sequence import PreparedSequence, SequenceBackbone
from embedstore.errors import ItemError
from embedstore.finetuning.labeled import LabeledItem, class_indices, read_unchanged
from embedstore.resources import memory_share

ITEM_CACHE_BYTES = 1 << 30  # bytes of prepared items kept, so that epochs after the first need no decoder


class LabeledSequenceDataset(Dataset[tuple[PreparedSequence, int]]):
    """Texts or sounds as their network reads them; they are not augmented, so the seed of a sample has no effect.

    Args:
        samples: every row.
        backbone: prepares the items.

    Attributes:
        loads_in_processes: False: items are prepared once, and decoders have processes of their own.
    """

    loads_in_processes = False

    def __init__(self, samples: Sequence[LabeledItem], backbone: SequenceBackbone) -> None:
        self.samples, self._backbone = list(samples), backbone
        self._cache: dict[int, PreparedSequence] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[PreparedSequence, int]:
        row = key[0]
        return self.item(row), self.samples[row].class_index

    def item(self, row: int) -> PreparedSequence:
        """Return one item as embedding prepares it.

        Raises:
            ItemError: if it cannot be read, or its bytes differ from those that were embedded.
        """
        if row in self._cache:
            return self._cache[row]
        prepared, _ = self._backbone.prepare(read_unchanged(self.samples[row]))
        size = _item_bytes(prepared)
        if self._cached_bytes + size <= memory_share(ITEM_CACHE_BYTES, 8):
            self._cache[row], self._cached_bytes = prepared, self._cached_bytes + size
        return prepared

    def class_indices(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class number of some rows."""
        return class_indices(self.samples, rows)

    def is_readable(self, row: int) -> bool:
        """Return whether the item can be read and has the bytes that were embedded."""
        try:
            self.item(row)
        except ItemError:
            return False
        return True

    def evaluation_batch(self, rows: Sequence[int]) -> list[PreparedSequence]:
        """Return some rows as embedding prepares them.

        Raises:
            ItemError: if one cannot be read, or its bytes differ from those that were embedded.
        """
        return [self.item(row) for row in rows]

    @staticmethod
    def batch_bytes(batch: list[PreparedSequence]) -> int:
        """Return the memory that a batch takes."""
        return sum(map(_item_bytes, batch))

    @staticmethod
    def collate(samples: list[tuple[PreparedSequence, int]]) -> tuple[list[PreparedSequence], torch.Tensor]:
        """Return samples as a list of items and class numbers ``(B,)``."""
        return [item for item, _ in samples], torch.tensor([label for _, label in samples])


def _item_bytes(item: PreparedSequence) -> int:
    """Return the memory that the windows of an item take."""
    return sum(window.nbytes for window in item.windows)

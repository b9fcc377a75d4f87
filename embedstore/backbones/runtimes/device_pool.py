"""One network on several devices of a machine: a batch goes to whichever is free."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadBackbone

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

BATCHES_PER_GPU = 2  # while one batch is computed, the next is gathered and copied


class DevicePool:
    """Copies of a network that many threads may use.

    Args:
        backbones: copies of one network, each on its device.

    Attributes:
        backbones: the copies.
        concurrency: how many batches may be encoded at once.

    Raises:
        BadBackbone: when the copies do not have one space.
    """

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        if len({b.space.key for b in backbones}) > 1:
            raise BadBackbone("the devices load the network into different spaces; name one device with --device")
        self.backbones = list(backbones)
        self._free: queue.SimpleQueue[Backbone] = queue.SimpleQueue()
        for turn in range(BATCHES_PER_GPU):
            for backbone in backbones:
                if turn == 0 or backbone.device.startswith("cuda"):
                    self._free.put(backbone)
        self.concurrency = self._free.qsize()

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self.backbones[0].batch_size

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Embed prepared images like :meth:`embedstore.backbones.base.Backbone.encode_images`, on a free device."""
        backbone = self._free.get()
        try:
            return backbone.encode_images(batch)
        finally:
            self._free.put(backbone)

    def set_precision(self, precision: str) -> None:
        """Choose the precision of the forward passes on every device."""
        for backbone in self.backbones:
            backbone.set_precision(precision)

    def tune_batch_size(self, pixels: Any) -> None:
        """Set the fastest batch size on every device, between a quarter and four times the present one.

        Args:
            pixels: prepared images ``(B, 3, H, W)``, an array or a tensor.
        """
        first, *others = self.backbones
        size = first.batch_size
        first.runner.tune(first.encode_images, pixels, smallest=max(1, size // 4), largest=4 * size)
        for backbone in others:
            backbone.runner.batch_size = first.batch_size

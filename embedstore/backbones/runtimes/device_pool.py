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

BATCHES_PER_GPU = 2  # batches of a GPU: while one is computed, the next is gathered and copied


class DevicePool:
    """Copies of a network; for many threads.

    Args:
        networks: with one space, each on its device.

    Attributes:
        parallel: how many batches may be encoded at once.

    Raises:
        BadBackbone: they do not have one space.
    """

    def __init__(self, backbones: Sequence[Backbone]) -> None:
        if len({n.space.key for n in backbones}) > 1:
            raise BadBackbone("the network comes out differently on another device; name one device with --device")
        self.backbones = list(backbones)
        self._free: queue.SimpleQueue[Backbone] = queue.SimpleQueue()
        for turn in range(BATCHES_PER_GPU):
            for network in backbones:
                if turn == 0 or network.device.startswith("cuda"):
                    self._free.put(network)
        self.concurrency = self._free.qsize()

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """As :meth:`embedstore.backbones.base.Backbone.encode_images`, on the next free device."""
        network = self._free.get()
        try:
            return network.encode_images(batch)
        finally:
            self._free.put(network)

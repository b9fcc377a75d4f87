"""One network on several devices of a machine: a batch goes to whichever is free."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.devices import full_name
from embedstore.errors import BadBackbone

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.runtimes.fold_batchnorm import BatchNormFold

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
        self._folds: list[BatchNormFold] = []
        self._condition = threading.Condition()
        self._free = [
            backbone
            for turn in range(BATCHES_PER_GPU)
            for backbone in backbones
            if turn == 0 or backbone.device.startswith("cuda")
        ]
        self.concurrency = len(self._free)

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self.backbones[0].batch_size

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Embed prepared images like :meth:`embedstore.backbones.base.Backbone.encode_images`.

        A batch that lies on one of the devices stays there; every other one goes to whichever is free.
        """
        device = str(getattr(batch, "device", ""))
        suitable = {b.device for b in self.backbones if full_name(b.device) == device} or self.devices
        backbone = self._take(suitable)
        try:
            return backbone.encode_images(batch)
        finally:
            with self._condition:
                self._free.append(backbone)
                self._condition.notify_all()

    @property
    def devices(self) -> set[str]:
        """The names of the devices."""
        return {backbone.device for backbone in self.backbones}

    @property
    def images_per_second(self) -> float | None:
        """The rate of all devices by their own clocks; None if they measured nothing."""
        rates = [backbone.clock.images_per_second or 0.0 for backbone in self.backbones]
        return sum(rates) or None

    def reset_clocks(self) -> None:
        """Measure the rates anew."""
        for backbone in self.backbones:
            backbone.clock.reset()

    def _take(self, devices: Collection[str]) -> Backbone:
        """Wait until a copy on one of some devices is free, and return it; the one that waited longest goes first."""
        with self._condition:
            while True:
                for place, backbone in enumerate(self._free):
                    if backbone.device in devices:
                        return self._free.pop(place)
                self._condition.wait()

    def set_precision(self, precision: str) -> None:
        """Choose the precision of the forward passes on every device."""
        for backbone in self.backbones:
            backbone.set_precision(precision)

    def fold_batchnorms(self) -> int:
        """Fold the batch normalizations of every copy, and return how many each has."""
        from embedstore.backbones.runtimes.fold_batchnorm import BatchNormFold

        for backbone in self.backbones:
            self._folds.append(BatchNormFold(backbone))
        return self._folds[0].folded_count

    def unfold(self) -> None:
        """Restore the batch normalizations of every copy, in fp32."""
        while self._folds:
            self._folds.pop().restore()

    def restore(self) -> None:
        """Restore every copy to what it was before the run, also where a choice failed halfway."""
        self.set_precision("fp32")
        self.unfold()

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

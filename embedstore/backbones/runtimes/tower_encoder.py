"""A run of images through the exported tower of a space: PyTorch is imported only where there is no tower yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.onnx_encoder import OnnxEncoder, OnnxTower, Unavailable, open_tower
from embedstore.backbones.runtimes.runtime import Runtime, Tower
from embedstore.backbones.runtimes.runtime_choice import RuntimeChoice
from embedstore.errors import BadBackbone
from embedstore.resources import available_cores, memory_slots
from embedstore.space import Space

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

PASS_BYTES = 1 << 30  # that one forward pass may take
MAX_CONCURRENCY = 8  # forward passes at a time; beyond it each gets several threads, so that memory stays bounded


class TowerEncoder:
    """An image encoder that runs an exported tower.

    Nothing of it depends on the images or on the load of the machine, so every run gives an image the same vector.

    Args:
        space: the space of the vectors.
        tower: its image tower, opened with :func:`pass_threads` threads.

    Attributes:
        device: the CPU.
        precision: single.
        choice: what embeds the batches.
    """

    device = "cpu"
    precision = "fp32"

    def __init__(self, space: Space, tower: OnnxTower) -> None:
        self.encoder = OnnxEncoder(space, image=tower)
        concurrency = memory_slots(_widest(), PASS_BYTES)
        self.choice = RuntimeChoice(Runtime.ONNX, self.encoder, concurrency, tower.manifest.agreement)

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self.encoder.batch_size

    @property
    def concurrency(self) -> int:
        """How many batches may be encoded at once."""
        return self.choice.concurrency

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Embed prepared images."""
        return self.encoder.encode_images(batch)

    def device_seconds(self, images: int) -> float | None:
        """Return None: a CPU has no clock of its own."""

    def close(self) -> None:
        """Do nothing: there is no network to restore."""


@dataclass(frozen=True)
class TowerPlace:
    """Where the image tower of a space is kept.

    Attributes:
        space: the space.
        folder: the folder of its towers.
    """

    space: Space
    folder: Path

    def open(self) -> TowerEncoder | Unavailable:
        """Open the tower, or say why it cannot be used."""
        tower = open_tower(self.folder, Tower.IMAGE, self.space.key, threads=pass_threads(), fast_start=False)
        return tower if isinstance(tower, Unavailable) else TowerEncoder(self.space, tower)

    def export(self, backbone: Backbone, pixels: NDArray[np.uint8] | None) -> TowerEncoder:
        """Export the tower, keep it, and open it.

        Args:
            backbone: the loaded network.
            pixels: prepared images on which it is compared with PyTorch; None compares generated ones.

        Raises:
            RuntimeMismatch: when it gives other vectors.
            BadBackbone: when the network cannot be exported or its export cannot be used.
            OSError: when the export cannot be written.
        """
        from embedstore.backbones.runtimes.export import export_tower

        export_tower(backbone, self.folder, Tower.IMAGE, pixels)
        opened = self.open()
        if isinstance(opened, Unavailable):
            raise BadBackbone(f"the exported tower of {self.space.architecture} cannot be used: {opened.reason}")
        return opened


def pass_threads() -> int:
    """Return the threads of one forward pass: the same in every run on a machine, since sums depend on it."""
    return max(1, available_cores() // _widest())


def _widest() -> int:
    """Return how many forward passes run at once where memory allows."""
    return min(available_cores(), MAX_CONCURRENCY)

"""A network through ``torch.compile``: every batch has the same size, so that it is compiled once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.backbones.base import Backbone
from embedstore.backbones.batch_runner import BatchRunner
from embedstore.backbones.error_text import one_line
from embedstore.errors import BadBackbone


class CompiledEncoder:
    """The image tower, compiled at its first batch (10 to 25 s on two cores).

    Args:
        backbone: the loaded network.
        batch_size: images per forward pass; a smaller batch is padded with black images.

    Attributes:
        batch_size: images per forward pass.
    """

    def __init__(self, backbone: Backbone, batch_size: int) -> None:
        self.batch_size = batch_size
        self._backbone = backbone
        self._runner = BatchRunner(backbone.space.dim, batch_size, device=backbone.device, gate=backbone.gate)
        self._forward: Any = torch.compile(backbone.vectors_from_pixels, dynamic=False)

    def encode_images(self, batch: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """Embed prepared images like :meth:`embedstore.backbones.base.Backbone.encode_images`.

        Raises:
            BadBackbone: when the network cannot be compiled on this machine, e.g. without a C++ compiler.
        """
        return self._runner.run(batch, self._run_padded)

    def _run_padded(self, batch: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """Run one forward pass of exactly ``batch_size`` images."""
        padding = (self.batch_size - len(batch), *batch.shape[1:])
        padded: NDArray[np.uint8] | torch.Tensor
        if isinstance(batch, np.ndarray):
            padded = np.concatenate([batch, np.zeros(padding, np.uint8)])
        else:
            padded = torch.cat([batch, batch.new_zeros(padding)])
        try:
            return self._backbone.run_forward(padded, self._forward)[: len(batch)]
        except Exception as e:  # the compiler raises a tree of its own, and whatever its tools raise
            raise BadBackbone(
                f"{self._backbone.space.architecture} cannot be compiled on this machine: {one_line(e)}; "
                "use --runtime eager or onnx"
            ) from e

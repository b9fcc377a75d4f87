"""A network through ``torch.compile``: batches of one size, so that it is compiled once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.backbones.base import Backbone
from embedstore.backbones.error_text import one_line
from embedstore.errors import BadBackbone


class CompiledEncoder:
    """The image tower, compiled at its first batch (10 to 25 s on two cores).

    Args:
        network: loaded. size: images per forward; fewer are filled up with black ones.
    """

    def __init__(self, backbone: Backbone, batch_size: int) -> None:
        self.space = backbone.space
        self.batch_size = batch_size
        self._network = backbone
        self._call: Any = torch.compile(backbone.vectors_from_pixels, dynamic=False)

    def encode_images(self, batch: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """As :meth:`embedstore.backbones.base.Backbone.encode_images`, of any number of images.

        Raises:
            BadBackbone: it cannot be compiled on this machine, e.g. for want of a C++ compiler.
        """
        out = np.empty((len(batch), self.space.dim), np.float32)
        for start in range(0, len(batch), self.batch_size):
            part = batch[start : start + self.batch_size]
            black = (self.batch_size - len(part), *batch.shape[1:])
            full: NDArray[np.uint8] | torch.Tensor
            if isinstance(part, np.ndarray):
                full = np.concatenate([part, np.zeros(black, np.uint8)])
            else:
                full = torch.cat([part, part.new_zeros(black)])
            try:
                out[start : start + len(part)] = self._network.run_forward(full, self._call)[: len(part)]
            except Exception as e:  # the compiler raises a tree of its own, and whatever its tools raise
                raise BadBackbone(
                    f"{self.space.architecture} cannot be compiled here: {one_line(e)}; use --runtime eager or onnx"
                ) from e
        return out

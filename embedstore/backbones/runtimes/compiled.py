"""A network through ``torch.compile``, settled once before the run: every batch has the same size.

On CUDA the compiled network is recorded as CUDA graphs, which belong to the thread that recorded them; so one thread
runs every forward pass of an encoder. That has not run on a GPU.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.backbones.base import Backbone
from embedstore.backbones.batch_runner import BatchRunner
from embedstore.backbones.error_text import one_line
from embedstore.devices import is_out_of_memory
from embedstore.errors import BadBackbone


class CompiledEncoder:
    """The image tower, compiled at its first batch (10 to 25 s on two cores).

    Args:
        backbone: the loaded network.
        batch_size: images per forward pass; a smaller batch is padded with black images.
    """

    def __init__(self, backbone: Backbone, batch_size: int) -> None:
        self._backbone = backbone
        self._runner = BatchRunner(
            backbone.space.dim,
            batch_size,
            device=backbone.device,
            gate=backbone.gate,
            release_memory=torch.cuda.empty_cache,
        )
        self._thread = ThreadPoolExecutor(1, "compiled")
        mode = "reduce-overhead" if backbone.device.startswith("cuda") else "default"  # the former records CUDA graphs
        self._forward: Any = torch.compile(backbone.vectors_from_pixels, dynamic=False, mode=mode)

    @property
    def batch_size(self) -> int:
        """Images per forward pass, halved when memory runs out; the network is then compiled once more."""
        return self._runner.batch_size

    def encode_images(self, batch: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """Embed prepared images like :meth:`embedstore.backbones.base.Backbone.encode_images`.

        Raises:
            BadBackbone: when the network cannot be compiled on this machine, e.g. without a C++ compiler.
        """
        return self._runner.run(batch, lambda part: self._thread.submit(self._run_padded, part).result())

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
            if is_out_of_memory(e):
                raise
            raise BadBackbone(
                f"{self._backbone.space.architecture} cannot be compiled on this machine: {one_line(e)}; "
                "use --runtime eager or onnx"
            ) from e

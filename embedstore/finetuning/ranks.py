"""What the processes of one training exchange.

Every process makes the same calls in the same order, whatever its own share of a batch, its micro-batches and its
memory are: nothing is exchanged inside a forward or backward pass, so that no process waits for one that needs another
number of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


class Ranks:
    """The processes that train together; with one process every exchange returns what it was given.

    Args:
        accelerator: the accelerator of this process.
        device: where the exchanged tensors are.
    """

    def __init__(self, accelerator: Accelerator, device: torch.device) -> None:
        self._accelerator, self._device = accelerator, device
        self.count = int(accelerator.num_processes)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of some numbers over the processes."""
        if self.count == 1:
            return list(values)
        dtype = torch.float32 if self._device.type == "mps" else torch.float64
        total = self._accelerator.reduce(torch.tensor(values, device=self._device, dtype=dtype), "sum")
        return [float(value) for value in total.tolist()]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter], share: float) -> None:
        """Replace the gradients by their sum over the processes, each times the share of its process.

        Args:
            parameters: those of the network; the ones without a gradient are left out.
            share: the share of the images of the batch that this process has.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([g.reshape(-1) for g in gradients]).mul_(share)
        summed = self._accelerator.reduce(flat, "sum")
        for gradient, part in zip(gradients, summed.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def copy_from_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by those of the first process."""
        if self.count > 1:
            from accelerate.utils import broadcast

            for tensor in tensors:
                tensor.copy_(broadcast(tensor.clone()))

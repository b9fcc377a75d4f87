"""What fine-tuning needs of a backbone, whatever it reads: from a batch of inputs to features, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.space import Space


class TrainableBackbone(Protocol):
    """A loaded network whose weights can be changed in place.

    A batch is what a loader gives: uint8 pixels ``(B, 3, H, W)`` of images, a list of prepared items of texts or sound.

    Attributes:
        space: the space of its vectors.
        device: the device's name.
        module: the library's own network, which holds every parameter.
        logit_scale: exp of the learned scale of a network with two towers, or None.
        batch_size: items in one pass without gradients.
        training_items: items in one pass with gradients, at first; fewer when memory runs out. None is a whole batch.
        half_precisions: half precisions that the device can compute in, the first choice first.
        must_be_half: the backbone was loaded for a half precision.
    """

    space: Space
    device: str
    module: nn.Module
    logit_scale: float | None
    training_items: int | None
    half_precisions: tuple[str, ...]
    must_be_half: bool

    @property
    def batch_size(self) -> int: ...  # noqa: D102

    def network_input(self, batch: Any) -> Any:
        """Return a batch as :meth:`features` takes it, on the device; it can be sliced by items."""

    def features(self, inputs: Any) -> torch.Tensor:
        """Return the features ``(B, D)`` of inputs, not scaled to length 1; keeps gradients."""

    def example_input(self) -> Any:
        """Return the input of two items, by which the blocks of the network are found."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts into the space, rows of length 1."""

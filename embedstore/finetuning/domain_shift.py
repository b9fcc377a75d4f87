"""The distance of images from a network's training domain, measured by its BatchNorm statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.base import Backbone
from embedstore.finetuning.layers import batchnorm_layers

MAX_IMAGES = 256  # images measured: the noise of the distance is then near 0.05 (measured on the training domain)


@dataclass(frozen=True)
class DomainShift:
    """Distance of the activations from the running statistics of training.

    Attributes:
        distance: median over the layers; 0 is the training domain, 1 a typical channel one standard deviation away.
        layers: BatchNorm layers measured.
        images: images measured.
    """

    distance: float
    layers: int
    images: int


def measure_domain_shift(backbone: Backbone, pixels: NDArray[np.uint8]) -> DomainShift | None:
    """Measure how far images are from the training domain; None for a network without BatchNorm statistics.

    The distance of a layer is the 2-Wasserstein distance of its inputs from its running statistics, both taken as a
    Gaussian per channel, in units of the running standard deviation: root mean square over the channels. (Schneider
    et al. 2020 use the same distance for covariate shift.)

    Args:
        backbone: frozen.
        pixels: uint8 ``(n, 3, H, W)`` as embedding prepares them.
    """
    layers = batchnorm_layers(backbone.module)
    if backbone.space.has_random_weights or not layers:
        return None
    with _record_inputs(layers) as moments:
        backbone.module.eval()
        for begin in range(0, len(pixels), backbone.batch_size):
            batch = torch.from_numpy(pixels[begin : begin + backbone.batch_size]).to(backbone.device)
            with torch.inference_mode():
                backbone.features(backbone.normalize(batch))
    distances = [_distance(layer, m) for layer, m in zip(layers, moments, strict=True) if m.count]
    return DomainShift(float(np.median(distances)), len(distances), len(pixels)) if distances else None


@dataclass
class _Moments:
    """Count, sum and sum of squares per channel of the inputs of a layer."""

    count: int = 0
    total: torch.Tensor | float = 0.0
    squares: torch.Tensor | float = 0.0

    def add(self, inputs: torch.Tensor) -> None:
        x = inputs.detach().transpose(0, 1).flatten(1).double()
        self.count += x.shape[1]
        self.total = self.total + x.sum(1)
        self.squares = self.squares + x.square().sum(1)


@contextmanager
def _record_inputs(layers: list[nn.Module]) -> Iterator[list[_Moments]]:
    """Yield the moments of what goes into each layer while the block runs the network."""
    moments = [_Moments() for _ in layers]

    def recorder(of: _Moments) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, inputs: of.add(inputs[0])

    hooks = [layer.register_forward_pre_hook(recorder(m)) for layer, m in zip(layers, moments, strict=True)]
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()


def _distance(layer: nn.Module, moments: _Moments) -> float:
    """Return the distance of one layer's inputs from its running statistics."""
    mean = torch.as_tensor(moments.total) / moments.count
    std = (torch.as_tensor(moments.squares) / moments.count - mean.square()).clamp(min=0).sqrt()
    old_mean = torch.as_tensor(layer.running_mean).double()
    old_std = (torch.as_tensor(layer.running_var).double() + float(getattr(layer, "eps", 1e-5))).sqrt()
    squared = ((mean - old_mean) / old_std).square() + (std / old_std - 1).square()
    return float(squared.mean().sqrt())

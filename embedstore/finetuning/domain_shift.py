"""How far images are from those a network was trained on, by the network's own statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.base import Backbone
from embedstore.finetuning.layers import batchnorm_layers

MAX_IMAGES = 256  # images looked at: the noise of the measure is then near 0.05 (measured on the training domain)


@dataclass(frozen=True)
class DomainShift:
    """Distance of the activations from what BatchNorm remembers of training.

    Attributes:
        value: median over the layers; 0 is the training domain, 1 is a typical channel one standard deviation off.
        layers: how many there are. images: looked at.
    """

    distance: float
    layers: int
    images: int


def measure_domain_shift(backbone: Backbone, pixels: NDArray[np.uint8]) -> DomainShift | None:
    """The 2-Wasserstein distance of each BatchNorm's inputs from its running statistics, both taken as Gaussians a
    channel, in units of the running standard deviation; root mean square over the channels, median over the layers.
    (Schneider et al. 2020 use the same distance for covariate shift.) None for a network without such statistics.

    Args:
        backbone: frozen. pixels: uint8 ``(n, 3, H, W)`` as embedding prepares them.
    """  # noqa: D205
    layers = batchnorm_layers(backbone.module)
    if backbone.space.has_random_weights or not layers:
        return None
    with _sums(layers) as sums:
        backbone.module.eval()
        for begin in range(0, len(pixels), backbone.batch_size):
            part = torch.from_numpy(pixels[begin : begin + backbone.batch_size]).to(backbone.device)
            with torch.inference_mode():
                backbone.features(backbone.normalize(part))
    found = [_distance(layer, *sums[i]) for i, layer in enumerate(layers) if sums[i][0]]
    return DomainShift(float(np.median(found)), len(found), len(pixels)) if found else None


ActivationSums = tuple[float, torch.Tensor | float, torch.Tensor | float]


@contextmanager
def _sums(layers: list[nn.Module]) -> Iterator[list[ActivationSums]]:
    """Count, sum and sum of squares a channel of what goes into each layer."""
    sums: list[ActivationSums] = [(0.0, 0.0, 0.0)] * len(layers)
    hooks = []

    def noting(i: int) -> object:
        def note(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0].detach().transpose(0, 1).flatten(1).double()
            n, total, squares = sums[i]
            sums[i] = (n + x.shape[1], total + x.sum(1), squares + x.square().sum(1))

        return note

    for i, layer in enumerate(layers):
        hooks.append(layer.register_forward_pre_hook(noting(i)))  # type: ignore[arg-type]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def _distance(layer: nn.Module, n: float, total: torch.Tensor | float, squares: torch.Tensor | float) -> float:
    """Of one layer."""
    mean, old_mean = torch.as_tensor(total) / n, torch.as_tensor(layer.running_mean).double()
    spread = (torch.as_tensor(squares) / n - mean.square()).clamp(min=0).sqrt()
    old = (torch.as_tensor(layer.running_var).double() + float(getattr(layer, "eps", 1e-5))).sqrt()
    squared = ((mean - old_mean) / old).square() + (spread / old - 1).square()
    return float(squared.mean().sqrt())

"""Batch normalisation folded into the convolutions before it, in place and undone afterwards.

In evaluation it is a scale and a shift per channel, which a convolution's weights can hold: one pass over the memory
less a layer. Which pairs belong together is seen in a forward; where that is misleading, the vectors come out wrong, so
they are compared before the folded network is used (:mod:`embedstore.backbones.runtimes.adaptive_encoder`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from embedstore.backbones.base import Backbone

ConvBatchNorm = tuple[nn.Conv2d, nn.BatchNorm2d]


class BatchNormFold:
    """A network whose pairs are folded from now on, until :meth:`undo`.

    Args:
        network: loaded; its module is changed.

    Attributes:
        pairs: how many were folded.
    """

    def __init__(self, backbone: Backbone) -> None:
        found = _pairs(backbone)
        self.folded_count = len(found)
        self._before = [(conv, conv.weight, conv.bias, norm) for conv, norm in found]
        for conv, norm in found:
            _fold(conv, norm)

    def restore(self) -> None:
        """Everything as it was."""
        for conv, weight, bias, norm in self._before:
            conv.weight, conv.bias = weight, bias
            norm.__dict__.pop("forward", None)
        self._before = []


def _pairs(network: Backbone) -> list[ConvBatchNorm]:
    """Convolutions whose output was read by one batch normalisation, each run once in a forward of one image."""
    made: dict[int, nn.Conv2d] = {}
    found: list[ConvBatchNorm] = []
    runs: Counter[nn.Module] = Counter()
    alive: list[Any] = []  # ids are those of tensors only while the tensors are there

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        runs[layer] += 1
        alive.append(output)
        if isinstance(layer, nn.Conv2d):
            made[id(output)] = layer
        elif isinstance(layer, nn.BatchNorm2d) and _plain(layer) and id(inputs[0]) in made:
            found.append((made[id(inputs[0])], layer))

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(look) for m in network.module.modules() if isinstance(m, kinds)]
    try:
        p = network.space.preprocess
        size = p.size if p else (1, 1)
        network.run_forward(torch.zeros((1, 3, *size), dtype=torch.uint8), network.vectors_from_pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in found if runs[conv] == runs[norm] == 1]


def _plain(norm: nn.BatchNorm2d) -> bool:
    """Its own statistics in evaluation, and a forward that is known here."""
    return type(norm) in (nn.BatchNorm2d, BatchNormAct2d) and norm.running_mean is not None and not norm.training


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move one normalisation into the weights before it; what timm's layer does besides stays."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None  # noqa: S101 - _plain has looked
    assert var is not None  # noqa: S101
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, mean, var, norm.eps, norm.weight, norm.bias)
    if conv.weight.is_contiguous(memory_format=torch.channels_last):
        weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    conv.weight, conv.bias = weight.requires_grad_(False), bias.requires_grad_(False)
    after: Callable[[torch.Tensor], torch.Tensor] = nn.Identity()
    if isinstance(norm, BatchNormAct2d):
        after = nn.Sequential(norm.drop, norm.act)
    norm.__dict__["forward"] = after.forward if isinstance(after, nn.Module) else after

"""Batch normalizations folded into the convolutions before them, in place, and restored afterwards.

In evaluation a batch normalization is a scale and a shift per channel, which a convolution's weights can hold: that
saves one pass over the memory per layer. A forward pass shows which pairs belong together. Where that is misleading the
vectors come out wrong, so they are compared before the folded network is used
(:mod:`embedstore.backbones.runtimes.adaptive_encoder`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from embedstore.backbones.base import Backbone

ConvBatchNorm = tuple[nn.Conv2d, nn.BatchNorm2d]


class BatchNormFold:
    """Fold the batch normalizations of a network until :meth:`restore`.

    Args:
        backbone: the loaded network; its module is changed.

    Attributes:
        folded_count: how many were folded.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._gate = backbone.gate
        with self._gate.alone():  # a search that uses the network would confuse the hooks, and meet half of the change
            pairs = _foldable_pairs(backbone)
            self._originals = [(conv, conv.weight, conv.bias, norm) for conv, norm in pairs]
            for conv, norm in pairs:
                _fold(conv, norm)
        self.folded_count = len(pairs)

    def restore(self) -> None:
        """Undo the folding, to the bit, while no other thread uses the network."""
        with self._gate.alone():
            for conv, weight, bias, norm in self._originals:
                conv.weight, conv.bias = weight, bias
                norm.__dict__.pop("forward", None)
        self._originals = []


def _foldable_pairs(backbone: Backbone) -> list[ConvBatchNorm]:
    """Return convolutions whose output one batch normalization reads, each run once in a forward pass of one image."""
    conv_by_output: dict[int, nn.Conv2d] = {}
    pairs: list[ConvBatchNorm] = []
    runs: Counter[nn.Module] = Counter()
    alive: list[Any] = []  # an id identifies a tensor only while the tensor exists

    def observe(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        runs[layer] += 1
        alive.append(output)
        if isinstance(layer, nn.Conv2d):
            conv_by_output[id(output)] = layer
        elif isinstance(layer, nn.BatchNorm2d) and _is_foldable(layer) and id(inputs[0]) in conv_by_output:
            pairs.append((conv_by_output[id(inputs[0])], layer))

    layers = (m for m in backbone.module.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d)))
    hooks = [layer.register_forward_hook(observe) for layer in layers]
    try:
        p = backbone.space.preprocess
        height, width = p.size if p else (1, 1)
        backbone.run_forward(torch.zeros((1, 3, height, width), dtype=torch.uint8), backbone.vectors_from_pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for conv, norm in pairs if runs[conv] == runs[norm] == 1]


def _is_foldable(norm: nn.BatchNorm2d) -> bool:
    """Return whether it uses its own statistics in evaluation and has a known forward."""
    return type(norm) in (nn.BatchNorm2d, BatchNormAct2d) and norm.running_mean is not None and not norm.training


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move a normalization into the weights before it; the activation in timm's layer remains."""
    mean, var = cast("torch.Tensor", norm.running_mean), cast("torch.Tensor", norm.running_var)  # see _is_foldable
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, mean, var, norm.eps, norm.weight, norm.bias)
    if conv.weight.is_contiguous(memory_format=torch.channels_last):
        weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    conv.weight, conv.bias = weight.requires_grad_(False), bias.requires_grad_(False)
    rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    norm.__dict__["forward"] = rest.forward

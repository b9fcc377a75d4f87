"""The blocks of any network, from input to output, found by one backward pass through it.

A parameter belongs to the features if a gradient reaches it; this leaves out text encoders, unused classifiers and
layers behind the one where features are taken. Gradients arrive last to first, which gives the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from embedstore.errors import FinetuneError

BLOCK_CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True)
class Block:
    """Adjacent parameters that are trained or frozen together.

    Attributes:
        name: the name of the module.
        parameters: their full names.
    """

    name: str
    parameters: tuple[str, ...]


def find_blocks(module: nn.Module, features: Callable[[Any], torch.Tensor], inputs: Any) -> list[Block]:
    """Return the blocks that lead from inputs to features, input first.

    A layer outside the blocks goes with the block after it, and the layers after the last block go with that block, so
    that "the last block" always has parameters to train.

    Args:
        module: holds the parameters.
        features: computes the features with it.
        inputs: the inputs for at least two items, as ``features`` takes them.

    Raises:
        FinetuneError: if no parameter contributes to the features.
    """
    order = _gradient_order(module, features, inputs)
    if not order:
        raise FinetuneError("no parameter of this network contributes to its features: there is nothing to tune")
    units: dict[str, list[str]] = {}
    is_block: dict[str, bool] = {}
    for name in order:
        unit, is_block_unit = _unit(module, name)
        units.setdefault(unit, []).append(name)
        is_block[unit] = is_block_unit
    ordered = sorted(units, key=lambda u: -max(order[n] for n in units[u]))
    if not any(is_block.values()):
        return [Block(u, tuple(units[u])) for u in ordered]
    return list(_merge_leaf_layers(ordered, units, is_block))


def _merge_leaf_layers(ordered: list[str], units: dict[str, list[str]], is_block: dict[str, bool]) -> Iterator[Block]:
    """Yield the stem alone, other leaf layers with the next block, and those at the end with the last block."""
    last = max(i for i, u in enumerate(ordered) if is_block[u])
    first = min(i for i, u in enumerate(ordered) if is_block[u])
    pending: list[str] = []
    for i, unit in enumerate(ordered[: last + 1]):
        pending += units[unit]
        if i == first - 1 and first > 0:
            yield Block("stem", tuple(pending))
            pending = []
        elif i == last:
            rest = [n for u in ordered[last + 1 :] for n in units[u]]
            yield Block(unit, (*pending, *rest))
        elif is_block[unit]:
            yield Block(unit, tuple(pending))
            pending = []


def _gradient_order(module: nn.Module, features: Callable[[Any], torch.Tensor], inputs: Any) -> dict[str, int]:
    """Return the position at which the gradient of the features reached each parameter, by name."""
    order: dict[str, int] = {}
    hooks = []
    parameters = dict(module.named_parameters())
    required_grad = {n: p.requires_grad for n, p in parameters.items()}

    def recorder(name: str) -> Callable[[torch.Tensor], None]:
        def record(_: torch.Tensor) -> None:
            order.setdefault(name, len(order))

        return record

    for name, parameter in parameters.items():
        parameter.requires_grad_(parameter.is_floating_point())
        hooks.append(parameter.register_post_accumulate_grad_hook(recorder(name)))  # type: ignore[no-untyped-call]
    try:
        with torch.enable_grad():
            out = features(inputs)
            if out.requires_grad:
                torch.autograd.backward(out.float().square().sum())
    finally:
        for hook in hooks:
            hook.remove()
        for name, parameter in parameters.items():
            parameter.grad = None
            parameter.requires_grad_(required_grad[name])
    return order


def _unit(module: nn.Module, parameter: str) -> tuple[str, bool]:
    """Return the block or leaf layer that holds a parameter, and whether it is a block.

    A block is an element of a container whose elements have layers of their own.
    """
    path = parameter.split(".")[:-1]
    current, name, inside = module, "", False
    for depth, step in enumerate(path):
        parent, current = current, getattr(current, step)
        name = ".".join(path[: depth + 1])
        inside = inside or isinstance(parent, BLOCK_CONTAINERS)
        if not _contains_blocks(current):
            return name, inside and _is_composite(current)
    return name or parameter, False


def _contains_blocks(module: nn.Module) -> bool:
    """Return whether the module, or one below it, is a container of blocks."""
    return any(isinstance(m, BLOCK_CONTAINERS) and any(map(_is_composite, m.children())) for m in module.modules())


def _is_composite(module: nn.Module) -> bool:
    """Return whether a module has layers that hold parameters."""
    return any(any(True for _ in c.parameters()) for c in module.children())


def select_blocks(blocks: list[Block], layers: str) -> list[Block]:
    """Return the blocks that ``head``, ``last-N``, ``first-N`` or ``all`` names, input first.

    Args:
        blocks: every block of the network.
        layers: the setting.

    Raises:
        FinetuneError: if the network has fewer blocks.
    """
    if layers == "head":
        return []
    side, _, number = layers.partition("-")
    if not number:
        return blocks
    count = int(number)
    if count > len(blocks):
        raise FinetuneError(f"the network has {len(blocks)} blocks; use {side}-1 to {side}-{len(blocks)}, or all")
    return blocks[-count:] if side == "last" else blocks[:count]


def batchnorm_layers(module: nn.Module) -> list[nn.Module]:
    """Return every BatchNorm layer that keeps running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]

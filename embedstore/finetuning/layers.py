"""The blocks of any network, from input to output, found by one pass through it.

A parameter belongs to the features when a gradient reaches it; text towers, unused classifiers and layers behind the
one where features are taken are left out so. The order is that in which gradients arrive, last to first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from embedstore.errors import FinetuneError

BLOCK_CONTAINERS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True)
class Block:
    """Neighbouring parameters that are trained or frozen together.

    Attributes:
        name: of the module. parameters: their full names.
    """

    name: str
    parameters: tuple[str, ...]


def find_blocks(
    module: nn.Module, features: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> list[Block]:
    """What leads from images to features, input first. Leaf layers go with the block behind them, the last ones with
    the last block, so that "the last block" is always one that can learn something.

    Args:
        module: holds the parameters. features: in terms of it. images: normalised, ``(B, 3, H, W)``, B at least 2.

    Raises:
        FinetuneError: no parameter takes part.
    """  # noqa: D205
    place = _arrivals(module, features, images)
    if not place:
        raise FinetuneError("no parameter of this network takes part in its features: there is nothing to tune")
    units: dict[str, list[str]] = {}
    inner: dict[str, bool] = {}
    for name in place:
        unit, is_block = _unit(module, name)
        units.setdefault(unit, []).append(name)
        inner[unit] = is_block
    ordered = sorted(units, key=lambda u: -max(place[n] for n in units[u]))
    if not any(inner.values()):
        return [Block(u, tuple(units[u])) for u in ordered]
    return list(_joined(ordered, units, inner))


def _joined(ordered: list[str], units: dict[str, list[str]], inner: dict[str, bool]) -> Iterator[Block]:
    """The stem on its own, other leaf layers with the next block, those at the end with the last."""
    last = max(i for i, u in enumerate(ordered) if inner[u])
    first = min(i for i, u in enumerate(ordered) if inner[u])
    waiting: list[str] = []
    for i, unit in enumerate(ordered[: last + 1]):
        waiting += units[unit]
        if i == first - 1 and first > 0:
            yield Block("stem", tuple(waiting))
            waiting = []
        elif i == last:
            rest = [n for u in ordered[last + 1 :] for n in units[u]]
            yield Block(unit, (*waiting, *rest))
        elif inner[unit]:
            yield Block(unit, tuple(waiting))
            waiting = []


def _arrivals(
    module: nn.Module, features: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor
) -> dict[str, int]:
    """When the gradient of the features reached each parameter, by name."""
    order: dict[str, int] = {}
    hooks = []
    named = dict(module.named_parameters())
    before = {n: p.requires_grad for n, p in named.items()}

    def arrived(name: str) -> Callable[[torch.Tensor], None]:
        def note(_: torch.Tensor) -> None:
            order.setdefault(name, len(order))

        return note

    for name, parameter in named.items():
        parameter.requires_grad_(parameter.is_floating_point())
        hooks.append(parameter.register_post_accumulate_grad_hook(arrived(name)))  # type: ignore[no-untyped-call]
    try:
        with torch.enable_grad():
            out = features(images)
            if out.requires_grad:
                torch.autograd.backward(out.float().square().sum())
    finally:
        for hook in hooks:
            hook.remove()
        for name, parameter in named.items():
            parameter.grad = None
            parameter.requires_grad_(before[name])
    return order


def _unit(module: nn.Module, parameter: str) -> tuple[str, bool]:
    """The block or leaf layer that holds a parameter, and whether it is a block: an element of a chain of layers
    that themselves have layers.
    """  # noqa: D205
    path = parameter.split(".")[:-1]
    here, found, inside = module, "", False
    for depth, step in enumerate(path):
        parent, here = here, getattr(here, step)
        found = ".".join(path[: depth + 1])
        inside = inside or isinstance(parent, BLOCK_CONTAINERS)
        if not _has_chain(here):
            return found, inside and _composite(here)
    return found or parameter, False


def _has_chain(module: nn.Module) -> bool:
    """A chain of blocks is the module, or lies somewhere below it."""
    return any(isinstance(m, BLOCK_CONTAINERS) and any(_composite(c) for c in m.children()) for m in module.modules())


def _composite(module: nn.Module) -> bool:
    """Has layers of its own that hold parameters."""
    return any(any(True for _ in c.parameters()) for c in module.children())


def select_blocks(blocks: list[Block], layers: str) -> list[Block]:
    """The blocks that ``head``, ``last-N``, ``first-N`` or ``all`` means, input first.

    Raises:
        FinetuneError: the network has fewer blocks.
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
    """Every BatchNorm that keeps statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]

"""Where in a timm network the features are taken, and how they are pooled to one vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from embedstore.backbones.base import FeatureFunction
from embedstore.errors import BadBackbone
from embedstore.space import Recipe

Pool = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
POOLINGS = ("avg", "max", "token")


def select_features(module: Any, recipe: Recipe) -> tuple[str, str, FeatureFunction]:
    """``(layer, pool, features)`` of a recipe.

    ``pooled`` is what the network itself puts before its classifier. ``final`` is its last feature map or tokens,
    normalised as the network does; a number is the raw output of that stage or block, counted from 0, negative
    from the end.

    Raises:
        BadBackbone: a layer or pool that the network does not have.
    """
    layer, pool = recipe.layer or ("final" if recipe.pool else "pooled"), recipe.pool
    if layer == "pooled":
        if pool:
            raise BadBackbone(f"the pooled layer pools by itself; use --layer final --pool {pool}")
        return "pooled", "", module
    pool = pool or "avg"
    if pool not in POOLINGS:
        raise BadBackbone(f"unknown pool {pool!r}; use one of {', '.join(POOLINGS)}")
    if layer == "final":
        return "final", pool, _final(module, pool)
    if not layer.lstrip("-").isdigit():
        raise BadBackbone(f"unknown layer {layer!r}; use pooled, final or a number")
    index, features = _intermediate(module, int(layer), pool)
    return str(index), pool, features


def _final(module: Any, pool: str) -> FeatureFunction:
    """Features of the last feature map."""
    prefix = int(getattr(module, "num_prefix_tokens", 0) or 0)
    if pool == "token" and not prefix:
        raise BadBackbone(f"{type(module).__name__} has no class token; use --pool avg or --pool max")
    last = str(getattr(module, "output_fmt", "NCHW")) == "NHWC"

    def features(images: torch.Tensor) -> torch.Tensor:
        maps = module.forward_features(images)
        return _pooled(maps, pool, prefix, channels_last=last)

    return features


def _intermediate(module: Any, index: int, pool: str) -> tuple[int, FeatureFunction]:
    """Features of one stage or block, and its number counted from 0."""
    if not hasattr(module, "forward_intermediates"):
        raise BadBackbone(f"{type(module).__name__} gives no intermediate layers; use --layer pooled or final")
    count = _depth(module)
    if not -count <= index < count:
        raise BadBackbone(f"{type(module).__name__} has the layers 0 to {count - 1} (or pooled, final), not {index}")
    index %= count
    prefix = int(getattr(module, "num_prefix_tokens", 0) or 0)
    if pool == "token" and not prefix:
        raise BadBackbone(f"{type(module).__name__} has no class token; use --pool avg or --pool max")
    extra = {"return_prefix_tokens": True} if pool == "token" else {}

    def features(images: torch.Tensor) -> torch.Tensor:
        maps = module.forward_intermediates(images, indices=[index], intermediates_only=True, **extra)[0]
        if pool == "token":
            token: torch.Tensor = maps[1][:, 0]
            return token
        return _pooled(maps, pool, 0, channels_last=False)

    return index, features


def _depth(module: Any) -> int:
    """How many intermediates the network gives, asked of the network itself."""
    size = getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
    with torch.inference_mode():
        return len(module.eval().forward_intermediates(torch.zeros((1, *size)), intermediates_only=True))


def _pooled(maps: torch.Tensor, pool: str, prefix: int, *, channels_last: bool) -> torch.Tensor:
    """One vector an image from a map ``(B, C, H, W)`` or ``(B, H, W, C)``, or from tokens ``(B, N, C)``."""
    if maps.dim() == 2:
        return maps
    if maps.dim() == 4:
        tokens = maps.flatten(1, 2) if channels_last else maps.flatten(2).transpose(1, 2)
    else:
        if pool == "token":
            return maps[:, 0]
        tokens = maps[:, prefix:]
    return tokens.mean(dim=1) if pool == "avg" else tokens.amax(dim=1)

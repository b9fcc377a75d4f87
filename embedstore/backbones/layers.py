"""Choose where in a timm network the features are taken, and how they are pooled to one vector."""

from __future__ import annotations

from typing import Any

import torch

from embedstore.backbones.base import FeatureFunction
from embedstore.errors import BadBackbone
from embedstore.space import Recipe

POOLINGS = ("avg", "max", "token")


def select_features(module: Any, recipe: Recipe) -> tuple[str, str, FeatureFunction]:
    """Return ``(layer, pool, features)`` of a recipe.

    ``pooled`` is the input of the network's own classifier. ``final`` is its last feature map or tokens, normalized as
    the network does; a number is the raw output of that stage or block, counted from 0, or from the end if negative.

    Raises:
        BadBackbone: when the network does not have the layer or pool.
    """
    layer, pool = recipe.layer or ("final" if recipe.pool else "pooled"), recipe.pool
    if layer == "pooled":
        if pool:
            raise BadBackbone(f"the pooled layer has its own pooling; use --layer final --pool {pool}")
        return "pooled", "", module
    pool = pool or "avg"
    if pool not in POOLINGS:
        raise BadBackbone(f"unknown pool {pool!r}; use one of {', '.join(POOLINGS)}")
    if layer == "final":
        return "final", pool, _final_layer(module, pool)
    if not layer.lstrip("-").isdigit():
        raise BadBackbone(f"unknown layer {layer!r}; use pooled, final or a number")
    index, features = _intermediate_layer(module, int(layer), pool)
    return str(index), pool, features


def _final_layer(module: Any, pool: str) -> FeatureFunction:
    """Return the features of the last feature map."""
    prefix_tokens = _prefix_tokens(module, pool)
    channels_last = str(getattr(module, "output_fmt", "NCHW")) == "NHWC"

    def features(images: torch.Tensor) -> torch.Tensor:
        return _pool(module.forward_features(images), pool, prefix_tokens, channels_last=channels_last)

    return features


def _intermediate_layer(module: Any, index: int, pool: str) -> tuple[int, FeatureFunction]:
    """Return the features of one stage or block, and its number counted from 0."""
    if not hasattr(module, "forward_intermediates"):
        raise BadBackbone(f"{type(module).__name__} has no intermediate layers; use --layer pooled or final")
    count = _layer_count(module)
    if not -count <= index < count:
        raise BadBackbone(f"{type(module).__name__} has the layers 0 to {count - 1} (or pooled, final), not {index}")
    index %= count
    _prefix_tokens(module, pool)
    extra = {"return_prefix_tokens": True} if pool == "token" else {}

    def features(images: torch.Tensor) -> torch.Tensor:
        maps = module.forward_intermediates(images, indices=[index], intermediates_only=True, **extra)[0]
        if pool == "token":
            token: torch.Tensor = maps[1][:, 0]
            return token
        return _pool(maps, pool, 0, channels_last=False)

    return index, features


def _prefix_tokens(module: Any, pool: str) -> int:
    """Return how many tokens precede those of the patches.

    Raises:
        BadBackbone: when the class token is requested and there is none.
    """
    count = int(getattr(module, "num_prefix_tokens", 0) or 0)
    if pool == "token" and not count:
        raise BadBackbone(f"{type(module).__name__} has no class token; use --pool avg or --pool max")
    return count


def _layer_count(module: Any) -> int:
    """Return how many intermediate layers the network has, from a forward pass."""
    size = getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
    with torch.inference_mode():
        return len(module.eval().forward_intermediates(torch.zeros((1, *size)), intermediates_only=True))


def _pool(maps: torch.Tensor, pool: str, prefix_tokens: int, *, channels_last: bool) -> torch.Tensor:
    """Return one vector per image from a map ``(B, C, H, W)`` or ``(B, H, W, C)``, or from tokens ``(B, N, C)``."""
    if maps.dim() == 2:
        return maps
    if maps.dim() == 4:
        tokens = maps.flatten(1, 2) if channels_last else maps.flatten(2).transpose(1, 2)
    elif pool == "token":
        return maps[:, 0]
    else:
        tokens = maps[:, prefix_tokens:]
    return tokens.mean(dim=1) if pool == "avg" else tokens.amax(dim=1)

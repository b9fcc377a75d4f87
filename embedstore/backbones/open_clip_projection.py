"""The image towers of open_clip without their projection into the shared space."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from embedstore.backbones.base import FeatureFunction
from embedstore.errors import BadBackbone


def remove_projection(module: Any) -> FeatureFunction:
    """Return the raw image features ``(B, D)``: the tower's output before its projection.

    The projection is removed from ``module`` in place; digest the weights first.

    Raises:
        BadBackbone: when the tower is of an unknown class.
    """
    visual = module.visual
    if isinstance(visual, VisionTransformer):
        visual.proj = None
    elif isinstance(visual, ModifiedResNet):
        visual.attnpool.c_proj = _identity(visual.attnpool.c_proj)
    elif isinstance(visual, TimmModel):
        _remove_timm_projection(visual)
    else:
        raise BadBackbone(f"a {type(visual).__name__} has no layer before-projection; use --layer projection")

    def features(images: torch.Tensor) -> torch.Tensor:
        out = visual(images)
        pooled: torch.Tensor = out[0] if isinstance(out, tuple) else out  # CoCa's tower returns its tokens too
        return pooled

    return features


def _identity(projection: nn.Linear) -> nn.Linear:
    """Return a linear map that changes nothing: attention pooling requires one."""
    out = nn.Linear(projection.in_features, projection.in_features)
    with torch.no_grad():
        out.weight.copy_(torch.eye(projection.in_features))
        out.bias.zero_()
    return out


def _remove_timm_projection(visual: Any) -> None:
    """Remove the projection of a tower built on a timm network, wherever it is."""
    head = visual.head
    if hasattr(head, "proj") or hasattr(head, "mlp"):
        kept = [(n, m) for n, m in head.named_children() if n not in ("proj", "mlp")]
        visual.head = nn.Sequential(*(m for _, m in kept))
    elif hasattr(head, "pool"):
        head.pool.proj = nn.Identity()
    else:
        visual.trunk.reset_classifier(0)  # the network's own classifier was the projection

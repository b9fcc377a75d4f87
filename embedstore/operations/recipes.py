"""A person's words about a backbone as a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, Unpack

from embedstore.backbones import resolve_name
from embedstore.space import JsonScalar, Recipe


class BackboneOptions(TypedDict, total=False):
    """What may be said of a backbone beside its name.

    Attributes:
        weights: a local weights file instead of the library's own loading.
        backbone_args: keyword arguments of the architecture.
        preprocess: overrides of the model's own preprocessing, e.g. ``{"mean": 0.5}``; recorded in the space.
        layer, pool: which features, by default the backbone's pooled ones.
        random_init: random weights, on purpose; recorded in the space. seed: of them.
    """

    weights: str | Path | None
    backbone_args: Mapping[str, JsonScalar]
    preprocess: Mapping[str, JsonScalar]
    layer: str | None
    pool: str | None
    random_init: bool
    seed: int


def recipe_of(backbone: str, **options: Unpack[BackboneOptions]) -> Recipe:
    """A person's words as a recipe."""
    weights = options.get("weights")
    return Recipe(
        backbone=resolve_name(backbone),
        weights=str(Path(weights).absolute()) if weights else None,
        args=dict(options.get("backbone_args", {})),
        preprocess=dict(options.get("preprocess", {})),
        layer=options.get("layer"),
        pool=options.get("pool"),
        random_init=options.get("random_init", False),
        seed=options.get("seed", 0),
    )


def short_name(backbone: str) -> str:
    """A space's name from its backbone's: ``timm/resnet50.a1_in1k`` is ``resnet50``, ``mine:tiny`` is ``tiny``."""
    if "/" not in backbone:
        return backbone.rsplit(":", 1)[-1]
    return backbone.rsplit("/", 1)[-1].split(":", 1)[0].split(".", 1)[0]

"""From a recipe to a backbone: family, device, precision, and the space that results."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING

from embedstore.backbones.error_text import one_line
from embedstore.errors import BadBackbone
from embedstore.space import Recipe, Space

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone, LoadedNetwork

# Torch gives back the memory of large activations after every layer, and Linux zeroes it again page by page. Of huge
# pages there are far fewer: a batch of 32 took a ResNet-50 21% less time on two cores (docs/benchmarks.md).
HUGE_PAGES_VARIABLE = "THP_MEM_ALLOC_ENABLE"  # read by torch at its first tensor on the CPU

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def load(
    recipe: Recipe, *, device: str = "auto", precision: str = "auto", allow_code: Collection[str] = ()
) -> Backbone:
    """The network that a recipe describes, ready to embed.

    Args:
        recipe: what to load; its ``backbone`` may be an alias.
        device: ``auto`` (cuda, then mps, then cpu), ``cpu``, ``cuda``, ``cuda:1``, ``mps``; of several with commas
            between them the first.
        precision: ``auto`` (bf16 or fp16 autocast on cuda, fp32 elsewhere), ``fp32``, ``fp16``, ``bf16``.
        allow_code: the ``module:factory`` names that may be imported. A recipe read from a store must not run
            code that its user has not named.

    Returns:
        A backbone whose ``space`` is complete: its key comes from what was really loaded.

    Raises:
        UnknownBackbone: no such architecture or tag; names near ones.
        BadBackbone: an argument, layer, pool, device or preprocessing that it does not have.
        WeightsNotFound: the weights are not on this machine and cannot be fetched.
        WeightsMismatch: the weights do not fit, or the file holds something else.
        CodeNotAllowed: the recipe names code that is not in ``allow_code``.
    """
    os.environ.setdefault(HUGE_PAGES_VARIABLE, "1")
    chosen = resolve_device(device.partition(",")[0])
    exact = resolve_precision(precision, chosen)
    return build_backbone(_loaded(recipe, allow_code), recipe, device=chosen, precision=exact)


def _loaded(recipe: Recipe, allow_code: Collection[str]) -> LoadedNetwork:
    """The recipe through the library that its name belongs to."""
    if recipe.random_init and recipe.weights:
        raise BadBackbone("random weights and a weights file exclude each other: give --weights or --random-init")
    prefix = recipe.backbone.partition("/")[0]
    if prefix in ("open_clip", "embedstore"):
        from embedstore.backbones.open_clip_models import load as of_open_clip

        return of_open_clip(recipe)
    if prefix == "timm":
        from embedstore.backbones.timm_models import load as of_timm

        return of_timm(recipe)
    from embedstore.backbones.custom import load as of_custom

    return of_custom(recipe, allow_code)


def build_backbone(loaded: LoadedNetwork, recipe: Recipe, *, device: str, precision: str) -> Backbone:
    """Move a network to its device, measure its dimension by a forward, and name its space."""
    import torch

    from embedstore.backbones.base import Backbone, is_convolutional

    loaded.module.eval().requires_grad_(False)
    if is_convolutional(loaded.module):
        loaded.module.to(memory_format=torch.channels_last)
    loaded.module.to(device)
    space = Space(
        family=loaded.family,
        architecture=loaded.architecture,
        weights=loaded.weights,
        preprocess=loaded.preprocess,
        dim=_dimension(loaded, device),
        unit=loaded.unit,
        layer=loaded.layer,
        pool=loaded.pool,
        args=dict(recipe.args),
        activation=loaded.activation,
        parent=recipe.parent,
        text=loaded.text_features is not None,
        origin=loaded.origin,
        licence=loaded.licence,
    )
    return Backbone(loaded, space, device=device, precision=precision)


def _dimension(loaded: LoadedNetwork, device: str) -> int:
    """D, from a forward of one grey image: what a network says of itself is wrong for some (VGG)."""
    import torch

    size = loaded.preprocess.size
    try:
        with torch.inference_mode():
            out = loaded.features(torch.zeros((1, 3, *size), device=device))
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
        raise BadBackbone(
            f"{loaded.architecture} does not take images of {size[0]}x{size[1]} with these options: {one_line(error)}"
        ) from error
    if not isinstance(out, torch.Tensor) or out.dim() != 2:
        got = f"shape {tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
        raise BadBackbone(f"{loaded.architecture} must give one vector an image, (B, D), but gave {got}")
    return int(out.shape[1])


def resolve_devices(device: str) -> list[str]:
    """The devices that an embedding run uses: those with commas between them, or for ``auto`` and ``cuda`` every GPU.

    Raises:
        BadBackbone: one of them is not here.
    """
    import torch

    if "," in device:
        return [resolve_device(d.strip()) for d in device.split(",")]
    chosen = resolve_device(device)
    return [f"cuda:{n}" for n in range(torch.cuda.device_count())] if chosen == "cuda" else [chosen]


def resolve_device(device: str) -> str:
    """The device meant by ``auto``, or the named one if this machine has it.

    Raises:
        BadBackbone: no such device here.
    """
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind, _, number = device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not there.get(kind, False) or (number and not (number.isdigit() and int(number) < count)):
        known = ", ".join(name for name, here in there.items() if here)
        raise BadBackbone(f"no device {device!r} here; use --device auto or one of: {known}")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """The precision meant by ``auto``: half on cuda (bf16 where the card has it), fp32 elsewhere.

    Raises:
        BadBackbone: an unknown name.
    """
    import torch

    if precision not in PRECISIONS:
        raise BadBackbone(f"unknown precision {precision!r}; use one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if not device.startswith("cuda"):
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"

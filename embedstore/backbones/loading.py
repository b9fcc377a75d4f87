"""From a recipe to a backbone: library, device, precision, and the space that results."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from embedstore.backbones.error_text import one_line
from embedstore.backbones.registry import BUNDLED_INFO, HF_PREFIX
from embedstore.devices import may_have_gpu
from embedstore.errors import BadBackbone, BadOption
from embedstore.space import Recipe, Space

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone, LoadedNetwork
    from embedstore.backbones.sequence import SequenceBackbone, SequenceNetwork
    from embedstore.backbones.trainable import TrainableBackbone

# Torch returns the memory of large activations after every layer, and Linux zeroes it again page by page. With huge
# pages there are far fewer of them: a batch of 32 took a ResNet-50 21% less time on two cores (docs/benchmarks.md).
HUGE_PAGES_VARIABLE = "THP_MEM_ALLOC_ENABLE"  # torch reads it at its first tensor on the CPU

PRECISIONS = ("auto", "fp32", "fp16", "bf16")


def load(
    recipe: Recipe, *, device: str = "auto", precision: str = "auto", allow_code: Collection[str] = ()
) -> Backbone | SequenceBackbone:
    """Load the network that a recipe describes, ready to embed.

    Args:
        recipe: what to load; its ``backbone`` may be an alias.
        device: ``auto`` (cuda, then mps, then cpu), ``cpu``, ``cuda``, ``cuda:1``, ``mps``; the first of several that
            are separated by commas.
        precision: ``auto`` (on cuda the half precisions that give the same vectors, fp32 elsewhere), ``fp32``,
            ``fp16``, ``bf16``. The backbone begins in fp32; an embedding run chooses after its first batch.
        allow_code: the ``module:factory`` names that may be imported. A recipe read from a store must not run
            code that its user has not named.

    Returns:
        A backbone whose ``space`` is complete: its key comes from what was actually loaded. One of texts or sound is a
        :class:`~embedstore.backbones.sequence.SequenceBackbone`.

    Raises:
        UnknownBackbone: when there is no such architecture or tag; the error lists near names.
        BadBackbone: when the network lacks an argument, layer, pool, device or preprocessing that the recipe asks for.
        WeightsNotFound: when the weights are not on this machine and cannot be downloaded.
        WeightsMismatch: when the weights do not fit, or the file holds something else.
        CodeNotAllowed: when the recipe names code that is not in ``allow_code``.
        MissingExtra: when the library of the backbone is not installed.
    """
    os.environ.setdefault(HUGE_PAGES_VARIABLE, "1")
    from embedstore.backbones.sequence import SequenceNetwork, build_sequence_backbone

    first_device = resolve_device(device.partition(",")[0])
    half_precisions = half_precision_candidates(precision, first_device)
    network = _load_network(recipe, allow_code)
    if isinstance(network, SequenceNetwork):
        if precision not in ("auto", "fp32"):
            raise BadOption(f"--precision {precision} is for backbones of images; leave it out for {recipe.backbone}")
        return build_sequence_backbone(network, recipe, device=first_device)
    return build_backbone(
        network,
        recipe,
        device=first_device,
        half_precisions=half_precisions,
        must_be_half=precision != "auto",
    )


def _load_network(recipe: Recipe, allow_code: Collection[str]) -> LoadedNetwork | SequenceNetwork:
    """Load the recipe through the library that its name belongs to."""
    if recipe.random_init and recipe.weights:
        raise BadBackbone("random weights and a weights file exclude each other: give --weights or --random-init")
    library = recipe.backbone.partition("/")[0]
    if library == "open_clip" or recipe.backbone == BUNDLED_INFO.name:
        from embedstore.backbones import open_clip_models

        return open_clip_models.load(recipe)
    if library == "timm":
        from embedstore.backbones import timm_models

        return timm_models.load(recipe)
    if recipe.backbone.startswith(HF_PREFIX):
        from embedstore.backbones.transformers_models import loading

        return loading.load(recipe)
    from embedstore.backbones import custom

    return custom.load(recipe, allow_code)


def build_backbone(
    loaded: LoadedNetwork,
    recipe: Recipe,
    *,
    device: str,
    half_precisions: Sequence[str] = (),
    must_be_half: bool = False,
) -> Backbone:
    """Move a network to its device, measure its dimension with a forward pass, and describe its space."""
    from embedstore.backbones.base import Backbone, is_convolutional

    module = loaded.module.eval().requires_grad_(False)
    if is_convolutional(module):
        import torch

        module.to(memory_format=torch.channels_last)
    module.to(device)
    space = Space(
        family=loaded.family,
        architecture=loaded.architecture,
        weights=loaded.weights,
        preprocess=loaded.preprocess,
        dim=_measure_dim(loaded, device),
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
    return Backbone(loaded, space, device=device, half_precisions=half_precisions, must_be_half=must_be_half)


def _measure_dim(loaded: LoadedNetwork, device: str) -> int:
    """Return D from a forward pass of one gray image: what some networks declare is wrong (VGG)."""
    import torch

    height, width = loaded.preprocess.size
    try:
        with torch.inference_mode():
            out = loaded.features(torch.zeros((1, 3, height, width), device=device))
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
        raise BadBackbone(
            f"{loaded.architecture} does not accept images of {height}x{width} with these options: {one_line(error)}"
        ) from error
    if not isinstance(out, torch.Tensor) or out.dim() != 2:
        got = f"shape {tuple(out.shape)}" if isinstance(out, torch.Tensor) else type(out).__name__
        raise BadBackbone(f"{loaded.architecture} must return one vector per image, (B, D), but returned {got}")
    return int(out.shape[1])


def computes_on_cpu(device: str, precision: str) -> bool:
    """Return whether a network would compute on the CPU in fp32; torch is imported only if there may be a GPU.

    Raises:
        BadOption: when this machine does not have the device.
    """
    if precision not in ("auto", "fp32"):
        return False
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
        return True
    return resolve_devices(device) == ["cpu"]


def require_images(backbone: Backbone | SequenceBackbone, name: str) -> Backbone:
    """Return a backbone of images.

    Raises:
        BadBackbone: when it reads something else.
    """
    from embedstore.backbones.base import Backbone

    if not isinstance(backbone, Backbone):
        raise BadBackbone(f"{name} reads {backbone.space.modality.plural}, and this needs a backbone of images")
    return backbone


def resolve_devices(device: str) -> list[str]:
    """Return the devices of an embedding run: those separated by commas, or every GPU for ``auto`` and ``cuda``.

    Raises:
        BadBackbone: when this machine does not have one of them.
    """
    import torch

    if "," in device:
        return [resolve_device(d.strip()) for d in device.split(",")]
    resolved = resolve_device(device)
    return [f"cuda:{n}" for n in range(torch.cuda.device_count())] if resolved == "cuda" else [resolved]


def resolve_device(device: str) -> str:
    """Return the best device for ``auto``, or the named one if this machine has it.

    Raises:
        BadBackbone: when this machine has no such device.
    """
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    kind, _, number = device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not available.get(kind, False) or (number and not (number.isdigit() and int(number) < count)):
        names = ", ".join(name for name, is_available in available.items() if is_available)
        raise BadOption(f"no device {device!r} on this machine; use --device auto or one of: {names}")
    return device


def half_precision_candidates(precision: str, device: str) -> tuple[str, ...]:
    """Return the half precisions to try: for ``auto`` on cuda fp16, which keeps three bits more, before bf16.

    Raises:
        BadOption: when the name is unknown.
    """
    import torch

    if precision not in PRECISIONS:
        raise BadOption(f"unknown precision {precision!r}; use one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return () if precision == "fp32" else (precision,)
    if not device.startswith("cuda"):
        return ()
    return ("fp16", "bf16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16",)


def training_precision(requested: str, backbone: TrainableBackbone) -> str:
    """Return the precision of training.

    For ``auto`` it is the one that the backbone was loaded for, else bf16, which does not overflow, where the card has
    it, and fp32 elsewhere.
    """
    if requested != "auto":
        return requested
    if backbone.must_be_half:
        return next(iter(backbone.half_precisions), "fp32")
    return "bf16" if "bf16" in backbone.half_precisions else "fp32"

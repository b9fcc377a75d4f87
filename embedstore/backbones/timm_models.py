"""timm's networks: any architecture and tag, its own weights or a file, its own preprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import get_pretrained_cfg, is_model, list_pretrained, split_model_name_tag
from torch import nn

from embedstore.backbones import weights
from embedstore.backbones.base import LoadedNetwork
from embedstore.backbones.error_text import join_names, one_line
from embedstore.backbones.layers import select_features
from embedstore.backbones.random_state import seeded_cpu
from embedstore.backbones.recipe_options import (
    apply_preprocess_overrides,
    reject_reserved_args,
    requested_size,
    weights_origin,
)
from embedstore.errors import BadBackbone, UnknownBackbone, WeightsNotFound, did_you_mean
from embedstore.space import Family, Interpolation, JsonScalar, Preprocess, Recipe, ResizeMode

RESERVED_ARGS = frozenset(
    {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes"}
    | {"in_chans", "features_only", "out_indices", "pretrained_strict"}  # an embedding fixes these
)
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in timm's own order
IGNORED_PREFIXES = ("AuxLogits.",)  # timm itself drops Inception's auxiliary classifier
NO_CLASSIFIER = -1  # no network has this number of classes, so timm always drops the classifier of a file


def load(recipe: Recipe) -> LoadedNetwork:
    """Load a timm network without its classifier.

    Raises:
        UnknownBackbone: when timm has no such architecture or tag.
        BadBackbone: when the network does not accept an argument, layer, pool or preprocessing of the recipe.
        WeightsNotFound: when the weights are not on this machine and cannot be downloaded.
        WeightsMismatch: when the weights do not fit the network.
    """
    name = recipe.backbone.removeprefix("timm/")
    config = _pretrained_config(name)
    reject_reserved_args(recipe, RESERVED_ARGS)
    args = _constructor_args(recipe, config)
    if recipe.random_init:
        with seeded_cpu(recipe.seed):
            module = _create_model(name, args)
    else:
        path = weights.resolve_file(recipe.weights) if recipe.weights else tag_weights_file(name, config)
        module = _create_model_with_weights(name, args, path, is_tag_file=not recipe.weights)
    layer, pool, features = select_features(module, recipe)
    return LoadedNetwork(
        family=Family.TIMM,
        architecture=split_model_name_tag(name)[0],
        weights=weights.digest(module, is_random=recipe.random_init),
        module=module,
        features=features,
        preprocess=apply_preprocess_overrides(timm_preprocess(module, args), recipe.preprocess),
        layer=layer,
        pool=pool,
        origin=weights_origin(recipe, _tag_origin(config)),
        licence="" if recipe.random_init or recipe.weights else str(config.get("license") or ""),
    )


def timm_preprocess(module: nn.Module, args: dict[str, Any] | None = None) -> Preprocess:
    """Return the preprocessing that timm's evaluation transform does for this network."""
    overrides = {"img_size": args["img_size"]} if args and isinstance(args.get("img_size"), int) else None
    data = resolve_model_data_config(module, args=overrides)
    height, width = (int(n) for n in data["input_size"][-2:])
    crop_fraction = float(data["crop_pct"]) or 0.875
    mean = tuple(float(v) for v in data["mean"])
    mode = {"squash": ResizeMode.SQUASH, "border": ResizeMode.LONGEST}.get(data["crop_mode"], ResizeMode.SHORTEST)
    return Preprocess(
        size=(height, width),
        resize=(math.floor(height / crop_fraction), math.floor(width / crop_fraction)),
        mean=(mean[0], mean[1], mean[2]),
        std=tuple(float(v) for v in data["std"]),  # type: ignore[arg-type]
        mode=mode,
        interpolation=Interpolation(data["interpolation"]),
        fill=round(255 * mean[0]) if mode is ResizeMode.LONGEST else 0,
    )


def _pretrained_config(name: str) -> dict[str, Any]:
    """Return timm's configuration of an architecture and tag.

    Raises:
        UnknownBackbone: when timm has no such architecture or tag.
    """
    architecture, tag = split_model_name_tag(name)
    if not is_model(architecture):
        raise UnknownBackbone(
            f"timm has no architecture {architecture!r}{did_you_mean(architecture, timm.list_models())}"
        )
    try:
        config = get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        tags = [n.partition(".")[2] for n in list_pretrained(f"{architecture}.*")]
        known = f"its tags are {join_names(tags)}" if tags else "it has no pre-trained weights"
        raise UnknownBackbone(f"timm/{architecture} has no tag {tag!r}; {known}") from None
    return dict(config.to_dict()) if config else {}


def _constructor_args(recipe: Recipe, config: dict[str, Any]) -> dict[str, JsonScalar | tuple[int, int]]:
    """Return the constructor's arguments; a network of fixed input size is built for the requested size."""
    args: dict[str, Any] = dict(recipe.args)
    size = requested_size(recipe)
    if size and config.get("fixed_input_size") and "img_size" not in args:
        args["img_size"] = size
    return args


def _create_model(name: str, args: dict[str, Any]) -> nn.Module:
    """Build an architecture without classifier.

    Raises:
        BadBackbone: when the architecture does not accept an argument.
    """
    try:
        module: nn.Module = timm.create_model(name, num_classes=0, **args)
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError, AttributeError) as error:
        shown = ", ".join(f"{k}={v}" for k, v in args.items())
        raise BadBackbone(f"timm/{name} cannot be built with {shown or 'its defaults'}: {one_line(error)}") from error
    return module


def _create_model_with_weights(name: str, args: dict[str, Any], path: Path, *, is_tag_file: bool) -> nn.Module:
    """Build an architecture with the weights of a file, through timm's own loading.

    timm drops the classifier and then loads leniently; this refuses what timm would leave random.

    Args:
        name: the architecture, with an optional tag.
        args: the constructor's arguments.
        path: the weights file.
        is_tag_file: the file belongs to the tag, so names that timm itself ignores are no sign of another network.

    Raises:
        WeightsMismatch: when the file is not readable or does not fit.
        BadBackbone: when the architecture does not accept an argument.
    """
    model, file = f"timm/{name}", str(path)
    overlay = {"file": file, "num_classes": NO_CLASSIFIER, "label_offset": 0}
    with weights.record_loading() as loading:
        try:
            module: nn.Module = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **args
            )
        except Exception as error:  # timm's filters fail in many ways on a file of another network
            weights.read(path)  # raises if the file is not readable
            with torch.device("meta"):
                _create_model(name, args)  # raises if the arguments are wrong
            raise weights.mismatch_error(model, file, error) from error
    missing, unexpected = loading.missing_and_unexpected(module) or (list(module.state_dict()), [])
    weights.check_keys(model, file, missing, [] if is_tag_file else _foreign_keys(module, unexpected))
    return module


def _foreign_keys(module: Any, unexpected: Sequence[str]) -> list[str]:
    """Return the names that belong neither to the network nor to the classifier that is dropped."""
    named = module.pretrained_cfg.get("classifier") or ()
    classifiers = (named,) if isinstance(named, str) else tuple(named)
    heads = tuple(f"{c.rpartition('.')[0] or c}." for c in classifiers)  # LeViT: head.linear comes with head.bn
    return [k for k in unexpected if not k.startswith((*IGNORED_PREFIXES, *heads))]


def tag_weights_file(name: str, config: dict[str, Any]) -> Path:
    """Return the weights file of a tag on this machine, after a download if necessary.

    Raises:
        WeightsNotFound: when the tag has no weights, or they can be neither found nor downloaded.
    """
    model, repo, url = f"timm/{name}", config.get("hf_hub_id"), config.get("url")
    if repo:
        file = config.get("hf_hub_filename")
        return weights.fetch_from_hub(repo, (file,) if file else HUB_FILES, model)
    if url:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return weights.fetch_from_url(
            url, folder, model, lambda: torch.hub.load_state_dict_from_url(url, weights_only=True)
        )
    tags = [f"timm/{n}" for n in list_pretrained(f"{name.partition('.')[0]}.*")]
    known = f" or one of its tags: {join_names(tags)}" if tags else ""
    raise WeightsNotFound(
        f"{model}: timm has no pre-trained weights; give a file with --weights FILE{known}, or --random-init"
    )


def _tag_origin(config: dict[str, Any]) -> str:
    """Return where the weights of a tag come from."""
    repo = config.get("hf_hub_id")
    return f"hf-hub:{repo}" if repo else str(config.get("url") or "")

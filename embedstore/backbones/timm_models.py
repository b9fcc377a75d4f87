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
from embedstore.backbones.error_text import apply_preprocess_overrides, join_names, one_line
from embedstore.backbones.layers import select_features
from embedstore.errors import BadBackbone, UnknownBackbone, WeightsNotFound, did_you_mean
from embedstore.space import Family, Interpolation, JsonScalar, Preprocess, Recipe, ResizeMode

RESERVED_ARGS = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "num_classes",
}
RESERVED_ARGS |= {"in_chans", "features_only", "out_indices", "pretrained_strict"}  # decided by what an embedding is
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # timm's own order
IGNORED_PREFIXES = ("AuxLogits.",)  # timm itself drops Inception's auxiliary classifier


def load(recipe: Recipe) -> LoadedNetwork:
    """A timm network without its classifier.

    Raises:
        UnknownBackbone, BadBackbone, WeightsNotFound, WeightsMismatch: see :func:`embedstore.backbones.load`.
    """
    name = recipe.backbone.removeprefix("timm/")
    config = _config(name)
    if forbidden := sorted(RESERVED_ARGS & set(recipe.args)):
        raise BadBackbone(f"--backbone-arg {', '.join(forbidden)} is decided by embedstore; leave it out")
    args = _sized(recipe, config)
    if recipe.random_init:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            module = _built(name, args)
        mark, origin = "random:", f"random weights of seed {recipe.seed}"
    else:
        path = weights.resolve_file(recipe.weights) if recipe.weights else tag_weights_file(name, config)
        module = _filled(name, args, path, own=not recipe.weights)
        mark, origin = "", recipe.weights or _origin(config)
    layer, pool, features = select_features(module, recipe)
    return LoadedNetwork(
        family=Family.TIMM,
        architecture=split_model_name_tag(name)[0],
        weights=mark + weights.digest(module),
        module=module,
        features=features,
        preprocess=apply_preprocess_overrides(timm_preprocess(module, args), recipe.preprocess),
        layer=layer,
        pool=pool,
        origin=origin,
        licence="" if recipe.random_init or recipe.weights else str(config.get("license") or ""),
    )


def timm_preprocess(module: nn.Module, args: dict[str, Any] | None = None) -> Preprocess:
    """The preprocessing that timm's evaluation transform would do for this network."""
    given = {"img_size": args["img_size"]} if args and isinstance(args.get("img_size"), int) else None
    data = resolve_model_data_config(module, args=given)
    height, width = (int(n) for n in data["input_size"][-2:])
    pct = float(data["crop_pct"]) or 0.875
    mean = tuple(float(v) for v in data["mean"])
    mode = {"squash": ResizeMode.SQUASH, "border": ResizeMode.LONGEST}.get(data["crop_mode"], ResizeMode.SHORTEST)
    return Preprocess(
        size=(height, width),
        resize=(math.floor(height / pct), math.floor(width / pct)),
        mean=(mean[0], mean[1], mean[2]),
        std=tuple(float(v) for v in data["std"]),  # type: ignore[arg-type]
        mode=mode,
        interpolation=Interpolation(data["interpolation"]),
        fill=round(255 * mean[0]) if mode is ResizeMode.LONGEST else 0,
    )


def _config(name: str) -> dict[str, Any]:
    """What timm knows of an architecture and tag.

    Raises:
        UnknownBackbone: timm has no such one.
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


def _sized(recipe: Recipe, config: dict[str, Any]) -> dict[str, JsonScalar | tuple[int, int]]:
    """The constructor's arguments; a network of fixed input size is built for the size that was asked for."""
    args: dict[str, Any] = dict(recipe.args)
    if config.get("fixed_input_size") and "size" in recipe.preprocess and "img_size" not in args:
        size = apply_preprocess_overrides(
            Preprocess((1, 1), (1, 1), (0, 0, 0), (1, 1, 1)), {"size": recipe.preprocess["size"]}
        ).size
        args["img_size"] = size
    return args


def _built(name: str, args: dict[str, Any], **how: Any) -> nn.Module:
    """An architecture without classifier.

    Raises:
        BadBackbone: an argument that it does not take.
    """
    try:
        module: nn.Module = timm.create_model(name, num_classes=0, **how, **args)
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError, AttributeError) as error:
        given = ", ".join(f"{k}={v}" for k, v in args.items())
        raise BadBackbone(f"timm/{name} cannot be built with {given or 'its defaults'}: {one_line(error)}") from error
    return module


def _filled(name: str, args: dict[str, Any], path: Path, *, own: bool) -> nn.Module:
    """An architecture with the weights of a file, through timm's own loading.

    timm drops the classifier and then loads leniently; what it would leave random is refused here.

    Args:
        own: the file is the tag's own, so names that timm itself ignores are no sign of another network.
    """
    what, where = f"timm/{name}", str(path)
    overlay = {"file": where, "num_classes": -1, "label_offset": 0}  # no number of classes equals -1: always dropped
    with weights.record_loading() as loading:
        try:
            module: nn.Module = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **args
            )
        except Exception as error:  # timm's filters stumble in many ways over a file of another network
            weights.read(path)  # raises where the file is at fault: not readable
            with torch.device("meta"):
                _built(name, args)  # raises where the arguments are at fault
            raise weights.mismatch_error(what, where, error) from error
    missing, unexpected = loading.missing_and_unexpected(module) or (list(module.state_dict()), [])
    weights.check_keys(what, where, missing, [] if own else _foreign(module, unexpected))
    return module


def _foreign(module: Any, unexpected: Sequence[str]) -> list[str]:
    """Names in a file that belong neither to the network nor to the classifier that is left out."""
    named = module.pretrained_cfg.get("classifier") or ()
    classifiers = (named,) if isinstance(named, str) else tuple(named)
    heads = tuple(f"{c.rpartition('.')[0] or c}." for c in classifiers)  # LeViT: head.linear comes with head.bn
    return [k for k in unexpected if not k.startswith((*IGNORED_PREFIXES, *heads))]


def tag_weights_file(name: str, config: dict[str, Any]) -> Path:
    """Where the weights of a tag lie on this machine, after a download if need be.

    Raises:
        WeightsNotFound: the tag has none, or they are neither here nor within reach.
    """
    what, repo, url = f"timm/{name}", config.get("hf_hub_id"), config.get("url")
    if repo:
        named = config.get("hf_hub_filename")
        return weights.fetch_from_hub(repo, (named,) if named else HUB_FILES, what)
    if url:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return weights.fetch_from_url(
            url, folder, what, lambda: torch.hub.load_state_dict_from_url(url, weights_only=True)
        )
    tags = [f"timm/{n}" for n in list_pretrained(f"{name.partition('.')[0]}.*")]
    known = f" or one of its tags: {join_names(tags)}" if tags else ""
    raise WeightsNotFound(
        f"{what}: timm knows no pre-trained weights; give a file with --weights FILE{known}, or --random-init"
    )


def _origin(config: dict[str, Any]) -> str:
    """Where the weights of a tag come from."""
    repo = config.get("hf_hub_id")
    return f"hf-hub:{repo}" if repo else str(config.get("url") or "")

"""open_clip's networks: a tag, a local folder or a file; image and text towers in one space."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from embedstore.backbones import weights
from embedstore.backbones.base import FeatureFunction, LoadedNetwork
from embedstore.backbones.error_text import apply_preprocess_overrides, join_names, one_line, suppress_root_logging
from embedstore.backbones.open_clip_projection import remove_projection
from embedstore.backbones.registry import weights_licence
from embedstore.errors import BadBackbone, EmbedstoreError, MissingExtra, UnknownBackbone, WeightsNotFound, did_you_mean
from embedstore.space import Family, Interpolation, Preprocess, Recipe, ResizeMode

LOCAL_DIR_PREFIX = "local-dir:"
BUNDLED_NAME = "embedstore/tiny"
BUNDLED_FOLDER = Path(__file__).parent / "tiny"  # its model card lies there too
RESERVED_ARGS = {
    "pretrained",
    "load_weights",
    "precision",
    "device",
    "jit",
    "output_dict",
    "require_pretrained",
    "cache_dir",
}
RESERVED_ARGS |= {
    "weights_only",
    "pretrained_image",
    "pretrained_text",
    "pretrained_image_path",
    "pretrained_text_path",
}
RESERVED_ARGS |= {"force_preprocess_cfg"}  # --preprocess says it, and is recorded
LAYERS = ("projection", "before-projection")
SHARED_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
URL_CACHE = "~/.cache/clip"  # where open_clip keeps what it fetched from a plain address


def load(recipe: Recipe) -> LoadedNetwork:
    """An open_clip network.

    Raises:
        UnknownBackbone, BadBackbone, WeightsNotFound, WeightsMismatch: see :func:`embedstore.backbones.load`.
        MissingExtra: its text tower needs ``transformers``.
    """
    name = recipe.backbone.removeprefix("open_clip/")
    if forbidden := sorted(RESERVED_ARGS & set(recipe.args)):
        raise BadBackbone(f"--backbone-arg {', '.join(forbidden)} is decided by embedstore; leave it out")
    if (layer := recipe.layer or LAYERS[0]) not in LAYERS or recipe.pool:
        raise BadBackbone(f"open_clip networks have the layers {' and '.join(LAYERS)}, and pool by themselves")
    source = _source(name, recipe)
    module = _built(source, recipe)
    mark = "random:" if recipe.random_init else ""
    digest = mark + weights.digest(module)
    projected = layer == LAYERS[0]
    tokens = _tokens(source, recipe)
    return LoadedNetwork(
        family=Family.OPEN_CLIP,
        architecture=source.architecture,
        weights=digest,
        module=module,
        features=_projection(module) if projected else remove_projection(module),
        preprocess=apply_preprocess_overrides(_preprocess_of(module), recipe.preprocess),
        layer=layer,
        pool="",
        unit=projected,
        text_features=_texts(tokens, module) if projected else None,
        tokenize=tokens if projected else None,
        bpe_merges=source.vocabulary,
        logit_scale=float(module.logit_scale.detach().exp()) if projected else None,
        activation="quick_gelu" if source.quick_gelu else "",
        origin=f"random weights of seed {recipe.seed}" if recipe.random_init else source.origin,
        licence="" if recipe.random_init or recipe.weights else weights_licence(recipe.backbone),
    )


@dataclass(frozen=True)
class OpenClipSource:
    """Where a network and its weights come from, decided before anything is built.

    Attributes:
        model: what ``open_clip.create_model`` and ``get_tokenizer`` are given.
        file: the weights; None for random ones, and for a local folder's own.
        architecture: its name in the space. quick_gelu: its activation.
        preprocess: what the weights' own tag says of the preprocessing.
        vocabulary: the tokenizer's merges, where a local folder brings its own.
    """

    model: str
    file: Path | None
    architecture: str
    quick_gelu: bool
    origin: str
    preprocess: dict[str, Any]
    vocabulary: Path | None = None


def _source(name: str, recipe: Recipe) -> OpenClipSource:
    """What the name means: the bundled network, a local folder, or one of open_clip's own list."""
    if name == BUNDLED_NAME:
        bundled = _local(f"{LOCAL_DIR_PREFIX}{BUNDLED_FOLDER}", recipe)
        return replace(bundled, architecture=BUNDLED_NAME, origin=recipe.weights or "bundled with embedstore")
    return _local(name, recipe) if name.startswith(LOCAL_DIR_PREFIX) else _builtin(name, recipe)


def _builtin(name: str, recipe: Recipe) -> OpenClipSource:
    """An architecture of open_clip's own list, with a tag, a file or random weights."""
    architecture, _, tag = name.partition(":")
    architecture = architecture.replace("/", "-")
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise UnknownBackbone(
            f"open_clip has no architecture {architecture!r}{did_you_mean(architecture, open_clip.list_models())}"
        )
    facts = _tag_facts(architecture, tag)
    quick_gelu = bool(recipe.args.get("force_quick_gelu") or config.get("quick_gelu", False))
    if tag and not recipe.random_init and bool(facts.get("quick_gelu", False)) != quick_gelu:
        raise BadBackbone(
            f"the weights {tag} were trained with {_activation(not quick_gelu)}, and {architecture} has "
            f"{_activation(quick_gelu)}: vectors would be wrong; use open_clip/{_twin(architecture, tag)}"
        )
    file = None
    if not tag:
        facts = _agreed(architecture, recipe)
    if recipe.weights:
        file = weights.resolve_file(recipe.weights)
    elif not recipe.random_init:
        file = _tag_file(architecture, tag, facts)
    return OpenClipSource(architecture, file, architecture, quick_gelu, recipe.weights or _origin(facts), facts)


def _local(name: str, recipe: Recipe) -> OpenClipSource:
    """A folder in open_clip's own layout: ``open_clip_config.json`` beside the weights and the tokenizer."""
    folder = Path(name.removeprefix(LOCAL_DIR_PREFIX)).expanduser()
    path = folder / "open_clip_config.json"
    if not path.is_file():
        raise WeightsNotFound(
            f"no {path}; open_clip/local-dir:FOLDER needs open_clip_config.json and the weights in it"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadBackbone(f"{path} is no open_clip configuration with a model_cfg: {one_line(error)}") from error
    same = [n for n in open_clip.list_models() if open_clip.get_model_config(n) == config]
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    file = weights.resolve_file(recipe.weights) if recipe.weights else None
    found = [p for p in folder.iterdir() if p.suffix in weights.SUFFIXES and p.is_file()]
    for p in found:
        weights.check_claimed_size(p)
    if not (file or recipe.random_init or found):
        raise WeightsNotFound(
            f"no weights (.safetensors, .bin, .pth) in {folder}; put them there or give --weights FILE"
        )
    return OpenClipSource(
        model=f"{LOCAL_DIR_PREFIX}{folder}",
        file=file,
        architecture=same[0] if same else f"model_cfg#{digest}",
        quick_gelu=bool(recipe.args.get("force_quick_gelu") or config.get("quick_gelu", False)),
        origin=recipe.weights or str(folder),
        preprocess={},
        vocabulary=_vocabulary(config, folder),
    )


def _vocabulary(config: dict[str, Any], folder: Path) -> Path | None:
    """The merges that the folder's configuration names, beside it."""
    named = ((config.get("text_cfg") or {}).get("tokenizer_kwargs") or {}).get("bpe_path")
    return folder / named if named else None


def _tag_facts(architecture: str, tag: str) -> dict[str, Any]:
    """open_clip's facts on a pre-trained tag, {} without one.

    Raises:
        UnknownBackbone: the architecture has no such tag.
    """
    if not tag:
        return {}
    facts = dict(get_pretrained_cfg(architecture, tag))
    if not facts:
        tags = join_names(list_pretrained_tags_by_model(architecture))
        raise UnknownBackbone(f"open_clip/{architecture} has no pre-trained tag {tag!r}; it has {tags}")
    return facts


def _agreed(architecture: str, recipe: Recipe) -> dict[str, Any]:
    """The preprocessing where no tag is named: what all tags of the architecture agree on.

    Raises:
        BadBackbone: they differ for a weights file, and the recipe does not say: a guess would be silently wrong.
    """
    known = [get_pretrained_cfg(architecture, t) for t in list_pretrained_tags_by_model(architecture)]
    differ = [n for n in SHARED_PREPROCESS_KEYS if len({str(k.get(n)) for k in known}) > 1]
    said = {"resize_mode": "mode"}
    if recipe.weights and (open_ := [n for n in differ if said.get(n, n) not in recipe.preprocess]):
        raise BadBackbone(
            f"the pre-trained weights of {architecture} differ in {', '.join(open_)}: name the tag that the file "
            f"belongs to (open_clip/{architecture}:TAG --weights FILE) or give --preprocess"
        )
    return {n: known[0][n] for n in SHARED_PREPROCESS_KEYS if known and n in known[0] and n not in differ}


def _tag_file(architecture: str, tag: str, facts: dict[str, Any]) -> Path:
    """Where the weights of a tag lie on this machine, after a download if need be.

    Raises:
        WeightsNotFound: no tag was named, or they are neither here nor within reach.
    """
    if not tag:
        tags = join_names(list_pretrained_tags_by_model(architecture))
        raise WeightsNotFound(
            f"open_clip/{architecture} alone has no weights: name a tag (open_clip/{architecture}:TAG; it has {tags}), "
            "give --weights FILE, or say --random-init"
        )
    what = f"open_clip/{architecture}:{tag}"
    if hub := facts.get("hf_hub"):
        repo, _, named = hub.rpartition("/")
        file = named or open_clip.constants.HF_WEIGHTS_NAME
        safe = open_clip.constants.HF_SAFE_WEIGHTS_NAME
        if named:
            safe = f"{file[:-4]}.safetensors" if file.endswith((".bin", ".pth")) else file  # as open_clip itself looks
        return weights.fetch_from_hub(repo, tuple(dict.fromkeys((safe, file))), what)
    return weights.fetch_from_url(
        facts["url"],
        Path(URL_CACHE).expanduser(),
        what,
        lambda: open_clip.download_pretrained(facts, prefer_hf_hub=False),
    )


def _built(source: OpenClipSource, recipe: Recipe) -> Any:
    """The network with its weights, through open_clip's own loading; strict, and never random in silence."""
    local = source.model.startswith(LOCAL_DIR_PREFIX)
    args: dict[str, Any] = dict(recipe.args)
    if "size" in recipe.preprocess and "force_image_size" not in args:
        args["force_image_size"] = _size_of(recipe)
    how = {"force_preprocess_cfg": source.preprocess, "pretrained_text": False, **args}
    try:
        with suppress_root_logging(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            if recipe.random_init or (local and source.file):
                module = open_clip.create_model(source.model, load_weights=False, **how)
                if source.file:
                    open_clip.load_checkpoint(module, str(source.file), strict=True, weights_only=True)
            else:
                file = str(source.file) if source.file else None
                module = open_clip.create_model(source.model, pretrained=file, require_pretrained=True, **how)
    except Exception as error:  # open_clip and torch raise RuntimeError, ValueError, KeyError, OSError alike
        raise _why(source, recipe, error) from error
    return module


def _why(source: OpenClipSource, recipe: Recipe, error: Exception) -> Exception:
    """What went wrong in building: an extra package, the arguments, or the weights."""
    name, where = f"open_clip/{source.architecture}", str(source.file or source.model.removeprefix(LOCAL_DIR_PREFIX))
    if "transformers" in str(error).lower():
        return MissingExtra(f"the text tower of {name} needs the package transformers: pip install transformers")
    try:
        with suppress_root_logging(), torch.device("meta"):
            how = {"load_weights": False, "pretrained_text": False, **recipe.args}
            open_clip.create_model(source.model, device="meta", **how)
    except Exception as why:  # as above
        return BadBackbone(f"{name} cannot be built with {recipe.args or 'its defaults'}: {one_line(why)}")
    if source.file:
        try:
            weights.read(source.file)
        except EmbedstoreError as why:
            return why
    return weights.mismatch_error(name, where, error)


def _size_of(recipe: Recipe) -> tuple[int, int]:
    """The input size that ``--preprocess size=`` asks for."""
    blank = Preprocess((1, 1), (1, 1), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return apply_preprocess_overrides(blank, {"size": recipe.preprocess["size"]}).size


def _preprocess_of(module: Any) -> Preprocess:
    """The preprocessing that open_clip's evaluation transform would do for this network."""
    config = open_clip.get_model_preprocess_cfg(module)
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    mode = ResizeMode(config.get("resize_mode") or "shortest")
    bilinear = config.get("interpolation") == "bilinear"
    if mode is ResizeMode.SHORTEST and height != width:
        bilinear = False  # open_clip's own transform ignores the setting there
    return Preprocess(
        size=(height, width),
        resize=(height, width),
        mean=_three(config.get("mean") or open_clip.constants.OPENAI_DATASET_MEAN),
        std=_three(config.get("std") or open_clip.constants.OPENAI_DATASET_STD),
        mode=mode,
        interpolation=Interpolation.BILINEAR if bilinear else Interpolation.BICUBIC,
        fill=int(config.get("fill_color") or 0) if mode is ResizeMode.LONGEST else 0,
    )


def _three(value: Any) -> tuple[float, float, float]:
    """Three channels; one number stands for three."""
    v = [float(x) for x in value] if isinstance(value, Sequence) else [float(value)] * 3
    return v[0], v[1], v[2]


def _projection(module: Any) -> FeatureFunction:
    """Image features in the space that words share, before their length is made 1."""

    def features(images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module.encode_image(images, normalize=False)
        return out

    return features


def _tokens(source: OpenClipSource, recipe: Recipe) -> Callable[[Sequence[str]], torch.Tensor]:
    """Words to ids; the tokenizer is made at the first words."""

    @functools.cache
    def tokenizer() -> Any:
        try:
            own = {"bpe_path": str(source.vocabulary)} if source.vocabulary else {}
            length = recipe.args.get("force_context_length")
            with suppress_root_logging():
                return open_clip.get_tokenizer(source.model, context_length=length, **own)
        except Exception as error:  # transformers and the hub client raise their own trees
            if isinstance(error, ImportError) or "transformers" in str(error).lower():
                raise MissingExtra(
                    f"the tokenizer of open_clip/{source.architecture} needs the package transformers: "
                    "pip install transformers"
                ) from error
            raise WeightsNotFound(
                f"the tokenizer of open_clip/{source.architecture} is not on this machine: {one_line(error, 160)}; "
                "fill the hub's cache on a machine with a network and copy it"
            ) from error

    def tokens(words: Sequence[str]) -> torch.Tensor:
        out: torch.Tensor = tokenizer()(list(words))
        return out

    return tokens


def _texts(
    tokens: Callable[[Sequence[str]], torch.Tensor], module: Any
) -> Callable[[Sequence[str], torch.device], torch.Tensor]:
    """Words to features."""

    def texts(words: Sequence[str], device: torch.device) -> torch.Tensor:
        out: torch.Tensor = module.encode_text(tokens(words).to(device), normalize=False)
        return out

    return texts


def _activation(quick_gelu: bool) -> str:
    return "QuickGELU" if quick_gelu else "GELU"


def _twin(architecture: str, tag: str) -> str:
    """The same architecture with the other activation, for a tag that needs it."""
    suffix = "-quickgelu"
    other = architecture.removesuffix(suffix) if architecture.endswith(suffix) else architecture + suffix
    return f"{other}:{tag}" if open_clip.get_model_config(other) else f"{architecture}:TAG with another tag"


def _origin(facts: dict[str, Any]) -> str:
    """Where the weights of a tag come from."""
    hub = facts.get("hf_hub")
    return f"hf-hub:{hub.rpartition('/')[0]}" if hub else str(facts.get("url") or "")

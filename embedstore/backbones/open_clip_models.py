"""open_clip's networks: a tag, a local folder or a file; image and text towers in one space."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from embedstore.backbones import weights
from embedstore.backbones.base import LoadedNetwork
from embedstore.backbones.error_text import join_names, one_line, suppress_root_logging
from embedstore.backbones.open_clip_projection import remove_projection
from embedstore.backbones.random_state import seeded_cpu
from embedstore.backbones.recipe_options import (
    apply_preprocess_overrides,
    reject_reserved_args,
    requested_size,
    weights_origin,
)
from embedstore.backbones.registry import BUNDLED_INFO, LOCAL_DIR_PREFIX, weights_licence
from embedstore.errors import BadBackbone, EmbedstoreError, MissingExtra, UnknownBackbone, WeightsNotFound, did_you_mean
from embedstore.space import Family, Interpolation, Preprocess, Recipe, ResizeMode

BUNDLED_FOLDER = Path(__file__).parent / "tiny"  # it holds the model card too
CONFIG_FILE = "open_clip_config.json"
RESERVED_ARGS = frozenset(
    {"pretrained", "load_weights", "precision", "device", "jit", "output_dict", "require_pretrained", "cache_dir"}
    | {"weights_only", "pretrained_image", "pretrained_text", "pretrained_image_path", "pretrained_text_path"}
    | {"force_preprocess_cfg"}  # --preprocess sets it, and is recorded
)
LAYERS = ("projection", "before-projection")
SPECIAL_TOKENS = 2  # the start and the end of a text
SHARED_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode")
RECIPE_KEYS = {"resize_mode": "mode"}  # open_clip's name -> ours, where they differ
URL_CACHE = "~/.cache/clip"  # where open_clip keeps files that it downloaded from a plain address
QUICK_GELU_SUFFIX = "-quickgelu"


def load(recipe: Recipe) -> LoadedNetwork:
    """Load an open_clip network.

    Raises:
        UnknownBackbone: when open_clip has no such architecture or tag.
        BadBackbone: when the network does not accept an argument, layer, pool or preprocessing of the recipe.
        WeightsNotFound: when the weights are not on this machine and cannot be downloaded.
        WeightsMismatch: when the weights do not fit the network.
        MissingExtra: when the text tower needs the package ``transformers``.
    """
    reject_reserved_args(recipe, RESERVED_ARGS)
    if (layer := recipe.layer or LAYERS[0]) not in LAYERS or recipe.pool:
        raise BadBackbone(f"open_clip networks have the layers {' and '.join(LAYERS)}, and their own pooling")
    source = _resolve_source(recipe)
    module = _create_model(source, recipe)
    digest = weights.digest(module, is_random=recipe.random_init)  # before the projection is removed
    is_projected = layer == LAYERS[0]
    tokenizer = _Tokenizer(source, recipe) if is_projected else None
    return LoadedNetwork(
        family=Family.OPEN_CLIP,
        architecture=source.architecture,
        weights=digest,
        module=module,
        features=functools.partial(module.encode_image, normalize=False) if is_projected else remove_projection(module),
        preprocess=apply_preprocess_overrides(open_clip_preprocess(module), recipe.preprocess),
        layer=layer,
        pool="",
        unit=is_projected,
        text_features=functools.partial(module.encode_text, normalize=False) if is_projected else None,
        tokenize=tokenizer.tokenize if tokenizer else None,
        is_cut=tokenizer.is_cut if tokenizer else None,
        bpe_merges=source.bpe_merges,
        logit_scale=float(module.logit_scale.detach().exp()) if is_projected else None,
        activation="quick_gelu" if source.uses_quick_gelu else "",
        origin=weights_origin(recipe, source.origin),
        licence="" if recipe.random_init or recipe.weights else weights_licence(recipe.backbone),
    )


@dataclass(frozen=True)
class OpenClipSource:
    """Where a network and its weights come from, decided before anything is built.

    Attributes:
        model: the name for ``open_clip.create_model`` and ``get_tokenizer``.
        file: the weights; None for random ones, and for a local folder's own.
        architecture: its name in the space.
        uses_quick_gelu: its activation is QuickGELU.
        origin: where the weights come from, for the space.
        preprocess: the preprocessing that belongs to the weights' tag.
        bpe_merges: the tokenizer's merges, if a local folder brings its own.
    """

    model: str
    file: Path | None
    architecture: str
    uses_quick_gelu: bool
    origin: str
    preprocess: dict[str, Any]
    bpe_merges: Path | None = None

    @property
    def is_local(self) -> bool:
        """The network comes from a folder in open_clip's own layout."""
        return self.model.startswith(LOCAL_DIR_PREFIX)


def _resolve_source(recipe: Recipe) -> OpenClipSource:
    """Resolve a name: the bundled network, a local folder, or one of open_clip's own list."""
    if recipe.backbone == BUNDLED_INFO.name:
        bundled = _local_source(BUNDLED_FOLDER, recipe)
        return replace(bundled, architecture=BUNDLED_INFO.name, origin="bundled with embedstore")
    name = recipe.backbone.removeprefix("open_clip/")
    if name.startswith(LOCAL_DIR_PREFIX):
        return _local_source(Path(name.removeprefix(LOCAL_DIR_PREFIX)).expanduser(), recipe)
    return _listed_source(name, recipe)


def _listed_source(name: str, recipe: Recipe) -> OpenClipSource:
    """Resolve an architecture of open_clip's own list, with a tag, a file or random weights.

    Raises:
        UnknownBackbone: when open_clip has no such architecture or tag.
        BadBackbone: when the weights were trained with the other activation.
        WeightsNotFound: when the weights are not on this machine and cannot be downloaded.
    """
    architecture, _, tag = name.partition(":")
    architecture = architecture.replace("/", "-")
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise UnknownBackbone(
            f"open_clip has no architecture {architecture!r}{did_you_mean(architecture, open_clip.list_models())}"
        )
    quick_gelu = bool(recipe.args.get("force_quick_gelu") or config.get("quick_gelu", False))
    tag_config = _tag_config(architecture, tag) if tag else _common_preprocess(architecture, recipe)
    if tag and not recipe.random_init and bool(tag_config.get("quick_gelu", False)) != quick_gelu:
        raise BadBackbone(
            f"the weights {tag} were trained with {_activation(not quick_gelu)}, and {architecture} has "
            f"{_activation(quick_gelu)}: vectors would be wrong; use open_clip/{_other_activation(architecture, tag)}"
        )
    file = None
    if recipe.weights:
        file = weights.resolve_file(recipe.weights)
    elif not recipe.random_init:
        file = _tag_weights_file(architecture, tag, tag_config)
    return OpenClipSource(architecture, file, architecture, quick_gelu, _tag_origin(tag_config), tag_config)


def _local_source(folder: Path, recipe: Recipe) -> OpenClipSource:
    """Resolve a folder in open_clip's own layout: ``open_clip_config.json`` next to the weights and the tokenizer.

    Raises:
        WeightsNotFound: when the folder lacks its configuration or its weights.
        BadBackbone: when the configuration is not one of open_clip's.
        WeightsMismatch: when a weights file claims more than it holds.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise WeightsNotFound(f"no {path}; open_clip/local-dir:FOLDER needs {CONFIG_FILE} and the weights in it")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadBackbone(f"{path} is not an open_clip configuration with a model_cfg: {one_line(error)}") from error
    file = weights.resolve_file(recipe.weights) if recipe.weights else None
    candidates = [p for p in folder.iterdir() if p.suffix in weights.SUFFIXES and p.is_file()]
    for candidate in candidates:
        weights.check_claimed_size(candidate)
    if not (file or recipe.random_init or candidates):
        raise WeightsNotFound(
            f"no weights (.safetensors, .bin, .pth) in {folder}; put them there or give --weights FILE"
        )
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    listed = (n for n in open_clip.list_models() if open_clip.get_model_config(n) == config)
    merges = ((config.get("text_cfg") or {}).get("tokenizer_kwargs") or {}).get("bpe_path")
    return OpenClipSource(
        model=f"{LOCAL_DIR_PREFIX}{folder}",
        file=file,
        architecture=next(listed, f"model_cfg#{digest}"),
        uses_quick_gelu=bool(recipe.args.get("force_quick_gelu") or config.get("quick_gelu", False)),
        origin=str(folder),
        preprocess={},
        bpe_merges=folder / merges if merges else None,
    )


def _tag_config(architecture: str, tag: str) -> dict[str, Any]:
    """Return open_clip's configuration of a pre-trained tag.

    Raises:
        UnknownBackbone: when the architecture has no such tag.
    """
    config = dict(get_pretrained_cfg(architecture, tag))
    if not config:
        tags = join_names(list_pretrained_tags_by_model(architecture))
        raise UnknownBackbone(f"open_clip/{architecture} has no pre-trained tag {tag!r}; it has {tags}")
    return config


def _common_preprocess(architecture: str, recipe: Recipe) -> dict[str, Any]:
    """Return the preprocessing on which all tags of an architecture agree, for a recipe without a tag.

    Raises:
        BadBackbone: when they differ for a weights file and the recipe does not decide: a guess would be wrong.
    """
    configs = [get_pretrained_cfg(architecture, t) for t in list_pretrained_tags_by_model(architecture)]
    differing = [n for n in SHARED_PREPROCESS_KEYS if len({str(c.get(n)) for c in configs}) > 1]
    undecided = [n for n in differing if RECIPE_KEYS.get(n, n) not in recipe.preprocess]
    if recipe.weights and undecided:
        raise BadBackbone(
            f"the pre-trained weights of {architecture} differ in {', '.join(undecided)}: name the tag that the file "
            f"belongs to (open_clip/{architecture}:TAG --weights FILE) or give --preprocess"
        )
    return {n: configs[0][n] for n in SHARED_PREPROCESS_KEYS if configs and n in configs[0] and n not in differing}


def _tag_weights_file(architecture: str, tag: str, config: dict[str, Any]) -> Path:
    """Return the weights file of a tag on this machine, after a download if necessary.

    Raises:
        WeightsNotFound: when there is no tag, or its weights can be neither found nor downloaded.
    """
    if not tag:
        tags = join_names(list_pretrained_tags_by_model(architecture))
        raise WeightsNotFound(
            f"open_clip/{architecture} alone has no weights: name a tag (open_clip/{architecture}:TAG; it has {tags}), "
            "give --weights FILE, or use --random-init"
        )
    model = f"open_clip/{architecture}:{tag}"
    if hub := config.get("hf_hub"):
        repo, _, named = hub.rpartition("/")
        file = named or open_clip.constants.HF_WEIGHTS_NAME
        safe_file = open_clip.constants.HF_SAFE_WEIGHTS_NAME
        if named:  # the same order as open_clip itself
            safe_file = f"{file[:-4]}.safetensors" if file.endswith((".bin", ".pth")) else file
        return weights.fetch_from_hub(repo, tuple(dict.fromkeys((safe_file, file))), model)
    return weights.fetch_from_url(
        config["url"],
        Path(URL_CACHE).expanduser(),
        model,
        lambda: open_clip.download_pretrained(config, prefer_hf_hub=False),
    )


def _create_model(source: OpenClipSource, recipe: Recipe) -> Any:
    """Build the network with its weights, through open_clip's own strict loading."""
    args: dict[str, Any] = dict(recipe.args)
    size = requested_size(recipe)
    if size and "force_image_size" not in args:
        args["force_image_size"] = size[0] if len(set(size)) == 1 else size  # its ResNets take a number only
    options = {"force_preprocess_cfg": source.preprocess, "pretrained_text": False, **args}
    try:
        with suppress_root_logging(), seeded_cpu(recipe.seed):
            if recipe.random_init or (source.is_local and source.file):
                module = open_clip.create_model(source.model, load_weights=False, **options)
                if source.file:
                    open_clip.load_checkpoint(module, str(source.file), strict=True, weights_only=True)
                return module
            file = str(source.file) if source.file else None
            return open_clip.create_model(source.model, pretrained=file, require_pretrained=True, **options)
    except Exception as error:  # open_clip and torch raise RuntimeError, ValueError, KeyError, OSError alike
        raise _creation_error(source, recipe, error) from error


def _creation_error(source: OpenClipSource, recipe: Recipe, error: Exception) -> EmbedstoreError:
    """Return why a network could not be built: a missing package, the arguments, or the weights."""
    name, file = f"open_clip/{source.architecture}", str(source.file or source.model.removeprefix(LOCAL_DIR_PREFIX))
    if "transformers" in str(error).lower():
        return MissingExtra(f"the text tower of {name} needs the package transformers: pip install transformers")
    try:
        with suppress_root_logging(), torch.device("meta"):
            options = {"load_weights": False, "pretrained_text": False, **recipe.args}
            open_clip.create_model(source.model, device="meta", **options)
    except Exception as args_error:  # as in _create_model
        return BadBackbone(f"{name} cannot be built with {recipe.args or 'its defaults'}: {one_line(args_error)}")
    if source.file:
        try:
            weights.read(source.file)
        except EmbedstoreError as file_error:
            return file_error
    return weights.mismatch_error(name, file, error)


def open_clip_preprocess(module: Any) -> Preprocess:
    """Return the preprocessing that open_clip's evaluation transform does for this network."""
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
        mean=_channel_values(config.get("mean") or open_clip.constants.OPENAI_DATASET_MEAN),
        std=_channel_values(config.get("std") or open_clip.constants.OPENAI_DATASET_STD),
        mode=mode,
        interpolation=Interpolation.BILINEAR if bilinear else Interpolation.BICUBIC,
        fill=int(config.get("fill_color") or 0) if mode is ResizeMode.LONGEST else 0,
    )


def _channel_values(value: Any) -> tuple[float, float, float]:
    """Return one value per channel; a single number is repeated."""
    v = [float(x) for x in value] if isinstance(value, Sequence) else [float(value)] * 3
    return v[0], v[1], v[2]


class _Tokenizer:
    """open_clip's tokenizer of a network, created for the first texts.

    Args:
        source: the network.
        recipe: its options.
    """

    def __init__(self, source: OpenClipSource, recipe: Recipe) -> None:
        self._source = source
        self._length = recipe.args.get("force_context_length")

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the token ids of texts, int64 ``(T, L)``."""
        out: torch.Tensor = self._tokenizer(list(texts))
        return out

    def is_cut(self, text: str) -> bool:
        """Return whether a text has more tokens than the network reads.

        A text that is not cut has as many tokens where there is room for more.
        """
        length = self._tokenizer.context_length
        if len(text.encode()) + SPECIAL_TOKENS <= length:  # a token has at least one byte
            return False
        padding = self._tokenizer([""], context_length=length + 1)[0, -1]
        longer, short = (self._tokenizer([text], context_length=n) for n in (length + 1, length))
        return bool((longer != padding).sum() > (short != padding).sum())

    @functools.cached_property
    def _tokenizer(self) -> Any:
        source = self._source
        try:
            options = {"bpe_path": str(source.bpe_merges)} if source.bpe_merges else {}
            with suppress_root_logging():
                return open_clip.get_tokenizer(source.model, context_length=self._length, **options)
        except Exception as error:  # transformers and the hub client raise their own trees
            name = f"open_clip/{source.architecture}"
            if isinstance(error, ImportError) or "transformers" in str(error).lower():
                raise MissingExtra(
                    f"the tokenizer of {name} needs the package transformers: pip install transformers"
                ) from error
            raise WeightsNotFound(
                f"the tokenizer of {name} is not on this machine: {one_line(error, 160)}; "
                "fill the hub's cache on a machine with a network and copy it"
            ) from error


def _activation(quick_gelu: bool) -> str:
    """Return the name of an activation."""
    return "QuickGELU" if quick_gelu else "GELU"


def _other_activation(architecture: str, tag: str) -> str:
    """Return the same architecture with the other activation, for a tag that needs it."""
    other = architecture.removesuffix(QUICK_GELU_SUFFIX)
    if other == architecture:
        other = architecture + QUICK_GELU_SUFFIX
    return f"{other}:{tag}" if open_clip.get_model_config(other) else f"{architecture}:TAG with another tag"


def _tag_origin(config: dict[str, Any]) -> str:
    """Return where the weights of a tag come from."""
    hub = config.get("hf_hub")
    return f"hf-hub:{hub.rpartition('/')[0]}" if hub else str(config.get("url") or "")

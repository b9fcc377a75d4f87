"""Networks of images with the preprocessing of their own processor, and CLIP-likes with both towers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from embedstore.backbones import weights
from embedstore.backbones.base import FeatureFunction, LoadedNetwork
from embedstore.backbones.error_text import one_line
from embedstore.backbones.recipe_options import apply_preprocess_overrides, weights_origin
from embedstore.backbones.transformers_models.folder import ModelFolder, load_module, quiet_library
from embedstore.backbones.transformers_models.tokens import Tokenizer, load_tokenizer
from embedstore.errors import BadBackbone, WeightsNotFound
from embedstore.space import Family, Interpolation, Preprocess, Recipe, ResizeMode

PROCESSOR_FILE = "preprocessor_config.json"
INTERPOLATIONS = {  # Pillow's numbers of filters, in which the files name them
    0: Interpolation.NEAREST, 1: Interpolation.LANCZOS, 2: Interpolation.BILINEAR, 3: Interpolation.BICUBIC
}  # fmt: skip
SQUASH_FROM = 384  # pixels: from here on a ConvNeXt is not cropped (its processor's own rule)
CONTRASTIVE_TYPES = ("clip", "siglip")  # towers of images and texts
POOLS = ("cls", "mean")
CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")  # what networks call the parameter of their class token
FIRST_IS_POOLED = ("dinov3_convnext",)  # networks whose first token is made of the others, without a parameter
MAP_ONLY = ("cvt",)  # networks whose class token is not in their last layer's output
REFUSED = {  # networks whose output cannot be pooled here, with the reason
    "vit_mae": "hides random patches of every image; use its weights in timm, such as timm/vit_base_patch16_224.mae",
    "dinat": "gives a map whose channels are last, which is not supported; use another model",
}  # fmt: skip


@dataclass(frozen=True)
class _Texts:
    """The tower of texts of a CLIP-like.

    Attributes:
        tokenize: from texts to token ids ``(T, L)``.
        features: from token ids to features ``(T, D)``.
        is_cut: whether a text has more tokens than the network reads.
    """

    tokenize: Callable[[Sequence[str]], torch.Tensor]
    features: FeatureFunction
    is_cut: Callable[[str], bool]


def load(folder: ModelFolder, recipe: Recipe) -> LoadedNetwork:
    """Load a network of images.

    Raises:
        WeightsNotFound: when weights, tokenizer or the settings of the processor are not on this machine.
        WeightsMismatch: when the weights do not fit the network.
        BadBackbone: when the network or its processor is of a kind that is not supported.
    """
    from transformers import AutoModel

    if folder.model_type in REFUSED:
        raise BadBackbone(f"{folder.name} {REFUSED[folder.model_type]}")
    if recipe.layer not in (None, "last", "projection"):
        raise BadBackbone(f"{folder.name} gives its last layer only; leave out --layer {recipe.layer}")
    preprocess = apply_preprocess_overrides(_processor(folder), recipe.preprocess)
    module = load_module(folder, recipe, AutoModel, ignored=("pooler.",))
    is_contrastive = folder.model_type in CONTRASTIVE_TYPES
    if not is_contrastive and getattr(module, "pooler", None) is not None and _has_class_token(module):
        module.pooler = None  # a head that was not trained with the network
    texts = _texts(folder, module) if is_contrastive else None
    pool = "" if is_contrastive else _pool(folder, recipe, module)
    return LoadedNetwork(
        family=Family.TRANSFORMERS,
        architecture=folder.model_type,
        weights=weights.digest(module, is_random=recipe.random_init),
        module=module,
        features=_projection(module) if is_contrastive else _last_layer(module, pool),
        preprocess=preprocess,
        layer="projection" if is_contrastive else "last",
        pool=pool,
        unit=is_contrastive,
        text_features=texts.features if texts else None,
        tokenize=texts.tokenize if texts else None,
        is_cut=texts.is_cut if texts else None,
        logit_scale=float(module.logit_scale.detach().exp()) if is_contrastive else None,
        origin=weights_origin(recipe, folder.name),
    )


def _processor(folder: ModelFolder) -> Preprocess:
    """Return the preprocessing that the processor of a model does."""
    from transformers import AutoImageProcessor

    if not folder.has(PROCESSOR_FILE):
        raise WeightsNotFound(
            f"{folder.name}: no {PROCESSOR_FILE} in {folder.path}, which says how images are read; copy it there"
        )
    try:
        with quiet_library():
            facts = AutoImageProcessor.from_pretrained(folder.path, local_files_only=True).to_dict()
    except Exception as error:  # damaged settings fail in any way
        raise BadBackbone(
            f"{folder.name}: {PROCESSOR_FILE} cannot be used: {one_line(error, 160)}; bring the file of the model back"
        ) from error
    return processor_preprocess(facts, folder.name)


def processor_preprocess(facts: dict[str, Any], name: str) -> Preprocess:
    """Return the settings of a processor as a preprocessing.

    Args:
        facts: what the processor says of itself.
        name: the name of the model in messages.

    Raises:
        BadBackbone: when it does something that no preprocessing here does.
    """
    size = facts.get("size") or {}
    filter_ = INTERPOLATIONS.get(int(facts.get("resample", 3)))
    scale = float(facts.get("rescale_factor", 1 / 255)) if facts.get("do_rescale", True) else 1.0
    if not facts.get("do_resize", True) or filter_ is None or abs(scale * 255 - 1) > 1e-6 or "max_num_patches" in facts:
        raise BadBackbone(
            f"{name} reads images of any shape or scale, which is not supported; use a model of fixed size"
        )
    normalizes = facts.get("do_normalize", True)
    mean, std = (tuple(facts[key]) if normalizes else fixed for key, fixed in _NORMALIZATION.items())
    mode, resize, target = _geometry(facts, dict(size), name)
    return Preprocess(target, resize, mean, std, mode, filter_)


_NORMALIZATION = {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}


def _geometry(
    facts: dict[str, Any], size: dict[str, int], name: str
) -> tuple[ResizeMode, tuple[int, int], tuple[int, int]]:
    """Return how an image is resized, to what, and the size of the center that is cut out."""
    crop = facts.get("crop_size") or {}
    center = (crop["height"], crop["width"]) if facts.get("do_center_crop") and "height" in crop else None
    if edge := size.get("shortest_edge"):
        if "crop_pct" in facts:  # ConvNeXt
            if edge >= SQUASH_FROM:
                return ResizeMode.SQUASH, (edge, edge), (edge, edge)
            return ResizeMode.SHORTEST, (int(edge / facts["crop_pct"]),) * 2, (edge, edge)
        if center:
            return ResizeMode.SHORTEST, (edge, edge), center
    elif "height" in size and (center or not facts.get("do_center_crop")):
        whole = (size["height"], size["width"])
        return ResizeMode.SQUASH, whole, center or whole
    raise BadBackbone(f"{name} resizes images to {size} without a center of fixed size, which is not supported")


def _has_class_token(module: Any) -> bool:
    """Return whether the first token of a network's output stands for the whole image."""
    kind = module.config.model_type
    return kind in FIRST_IS_POOLED or (kind not in MAP_ONLY and not _parameters(module).isdisjoint(CLASS_TOKENS))


def _parameters(module: Any) -> set[str]:
    """Return the last parts of the names of a network's parameters."""
    return {name.rpartition(".")[2] for name, _ in module.named_parameters()}


def _pool(folder: ModelFolder, recipe: Recipe, module: Any) -> str:
    """Return the pooling: the class token, where there is one, else the mean over the map or the patches."""
    pools = POOLS if _has_class_token(module) else ("mean",)
    pool = recipe.pool or pools[0]
    if pool not in pools:
        raise BadBackbone(f"unknown pool {pool!r} for {folder.name}; use {' or '.join(pools)}")
    return pool


def _last_layer(module: Any, pool: str) -> FeatureFunction:
    """Return the features of the last layer."""
    registers = int(getattr(module.config, "num_register_tokens", 0) or 0)
    no_patches = _has_class_token(module) + registers + ("distillation_token" in _parameters(module))

    def features(images: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = module(pixel_values=images).last_hidden_state
        if hidden.dim() == 4:
            return hidden.mean(dim=(2, 3))
        return hidden[:, 0] if pool == "cls" else hidden[:, no_patches:].mean(dim=1)

    return features


def _projection(module: Any) -> FeatureFunction:
    """Return the projection of images, which texts share."""
    return lambda images: _vectors(module.get_image_features(pixel_values=images))


def _texts(folder: ModelFolder, module: Any) -> _Texts:
    """Return the tower of texts. Its networks were trained on texts that are padded to one length, without a mask."""
    tokenizer, length = load_tokenizer(folder), int(module.config.text_config.max_position_embeddings)

    def tokenize(texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([_padded(text, tokenizer, length) for text in texts], dtype=torch.long)

    return _Texts(
        tokenize,
        lambda tokens: _vectors(module.get_text_features(input_ids=tokens)),
        lambda text: len(tokenizer.backend.encode(text).ids) > length,
    )


def _padded(text: str, tokenizer: Tokenizer, length: int) -> list[int]:
    """Return the tokens of a text, cut or padded on the right to one length, with the special tokens."""
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    encoding.truncate(length - tokenizer.backend.num_special_tokens_to_add(is_pair=False))
    ids: list[int] = tokenizer.backend.post_process(encoding, None, True).ids
    return ids + [tokenizer.pad_id] * (length - len(ids))


def _vectors(output: Any) -> torch.Tensor:
    """Return the vectors of a projection, which versions of the library wrap differently."""
    vectors: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return vectors

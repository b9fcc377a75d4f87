"""Networks of texts: encoders, decoders, and the encoders of networks with both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.backbones import weights
from embedstore.backbones.recipe_options import weights_origin
from embedstore.backbones.sequence import PreparedSequence, SequenceNetwork, TextTower
from embedstore.backbones.transformers_models.dense import add_dense_layers
from embedstore.backbones.transformers_models.folder import ModelFolder, load_module
from embedstore.backbones.transformers_models.layers import layer_output
from embedstore.backbones.transformers_models.options import parse_overrides
from embedstore.backbones.transformers_models.pooling import POOLINGS, PoolFunction, is_pooling, pooling
from embedstore.backbones.transformers_models.sentence_transformers_files import SentenceFiles, read_sentence_files
from embedstore.backbones.transformers_models.tokens import (
    Tokenizer,
    load_tokenizer,
    stated_length,
)
from embedstore.errors import BadBackbone, WeightsMismatch
from embedstore.media.text.decode import TEXT_INFO, decode_text
from embedstore.modality import LongText, TextInput
from embedstore.space import Recipe
from embedstore.types import ContentInfo

DEFAULT_LENGTH = 512  # tokens, where neither the network nor the tokenizer has a limit
PASS_TOKENS = 8192  # in one pass on a CPU, with padding
IGNORED_WEIGHTS = ("pooler.",)  # a head on CLS that no vector passes through
OFFSET_TYPES = (
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "data2vec-text",
    "longformer",
    "ernie",
)


def load(folder: ModelFolder, recipe: Recipe) -> SequenceNetwork:
    """Load a network of texts.

    Raises:
        WeightsNotFound: when weights or tokenizer are not on this machine.
        WeightsMismatch: when the weights or the tokenizer do not fit the network.
        BadBackbone: when the network has no such layer, pooling or reading.
    """
    files, tokenizer = read_sentence_files(folder), load_tokenizer(folder)
    module = _module(folder, recipe)
    _check_vocabulary(folder, module, tokenizer)
    reading = _reading(folder, recipe, files, tokenizer)
    pool = recipe.pool or files.pool or default_pool(folder)
    if not is_pooling(pool):
        raise BadBackbone(f"unknown pool {pool!r} for {folder.name}; use one of {', '.join(POOLINGS)}")
    layer, hidden = layer_output(module, recipe.layer, folder.name)
    features = _features(hidden, _pool(pool, module, folder, recipe, files), tokenizer)

    def prepare_query(text: str) -> PreparedSequence:
        return tokenizer.prepare(text, reading, reading.query_prompt)

    def prepare(data: bytes) -> tuple[PreparedSequence, ContentInfo]:
        return tokenizer.prepare(decode_text(data), reading, reading.prompt), TEXT_INFO

    return SequenceNetwork(
        architecture=folder.model_type,
        weights=weights.digest(module, is_random=recipe.random_init),
        module=module,
        input=reading,
        layer=layer,
        pool=pool,
        prepare=prepare,
        features=features,
        example=tokenizer.prepare("example", replace(reading, max_length=max(8, reading.max_length)), "").windows[0],
        pass_length=PASS_TOKENS,
        unit=files.unit,
        text=TextTower(prepare_query, features),
        unread=_unread(reading),
        origin=weights_origin(recipe, folder.name),
    )


def default_pool(folder: ModelFolder) -> str:
    """Return the pooling that fits the nature of a network.

    The mean of the real tokens for encoders: on ten topics of WordNet it scored 0.82 where CLS scored 0.72 (MiniLM).
    XLNet puts CLS at the end. A decoder's tokens have read what is before them only, so later ones count more.
    """
    from transformers.models.auto import modeling_auto

    if folder.model_type == "xlnet":
        return "last"
    is_decoder = folder.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    is_encoder = folder.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "weighted" if is_decoder and not is_encoder else "mean"


def _pool(pool: str, module: Any, folder: ModelFolder, recipe: Recipe, files: SentenceFiles) -> PoolFunction:
    """Return the function from tokens to one vector: the pooling, then the folder's dense layers, if any."""
    pool_tokens = pooling(pool)
    if not files.dense:
        return pool_tokens
    dense = add_dense_layers(module, folder, files.dense, recipe)
    return lambda hidden, mask: dense(pool_tokens(hidden, mask))


def _module(folder: ModelFolder, recipe: Recipe) -> Any:
    """Return the network of the tokens' vectors, without a head."""
    from transformers import AutoModel, AutoModelForTextEncoding
    from transformers.models.auto import modeling_auto

    if modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(folder.model_type, "").endswith("EncoderModel"):
        return load_module(folder, recipe, AutoModelForTextEncoding, ignored=("decoder.",))
    if not folder.config.is_encoder_decoder:
        module = load_module(folder, recipe, AutoModel, ignored=IGNORED_WEIGHTS)
        if getattr(module, "pooler", None) is not None:
            module.pooler = None
        return module
    return load_module(folder, recipe, _Encoders, ignored=("decoder.",))


class _Encoders:
    """Loads the encoder of a network with both parts, in the form of the library's own classes."""

    @staticmethod
    def from_config(config: Any) -> Any:
        """Return an encoder with random weights."""
        from transformers import AutoModel

        return AutoModel.from_config(config).get_encoder()

    @staticmethod
    def from_pretrained(path: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Return the encoder of a folder, and what its weights lack."""
        from transformers import AutoModel

        module, loading = AutoModel.from_pretrained(path, **options)
        return module.get_encoder(), loading


def _check_vocabulary(folder: ModelFolder, module: Any, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that has tokens which the network lacks."""
    tokens, rows = tokenizer.backend.get_vocab_size(), module.get_input_embeddings().num_embeddings
    if tokens > rows:
        raise WeightsMismatch(
            f"{folder.name}: the tokenizer has {tokens:,} tokens and the network {rows:,}; copy the tokenizer that "
            "belongs to the network"
        )


def _reading(folder: ModelFolder, recipe: Recipe, files: SentenceFiles, tokenizer: Tokenizer) -> TextInput:
    """Return how texts are read: as the files of the model say, with the user's overrides."""
    most = _positions(folder)
    own = files.max_length or stated_length(folder) or DEFAULT_LENGTH
    reading = TextInput(
        tokenizer=tokenizer.digest,
        max_length=min(own, most or own),
        prompt=files.prompt,
        query_prompt=files.query_prompt,
        lowercase=files.lowercase,
    )
    reading = parse_overrides(reading, recipe.preprocess, ("max_length", "long", "prompt", "query_prompt"))
    least = tokenizer.backend.num_special_tokens_to_add(is_pair=False) + 1
    if reading.max_length < least or (most and reading.max_length > most):
        limit = f"{least} to {most}" if most else f"at least {least}"
        raise BadBackbone(f"--preprocess max_length={reading.max_length}: {folder.name} reads {limit} tokens")
    return reading


def _positions(folder: ModelFolder) -> int | None:
    """Return how many tokens the network has positions for; None if it has no limit."""
    most = getattr(folder.config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    offset = (folder.config.pad_token_id or 0) + 1 if folder.model_type in OFFSET_TYPES else 0
    return most - offset


def _unread(reading: TextInput) -> str:
    """Return the notice about texts whose ends are not read."""
    if reading.long is LongText.WINDOWS:
        return "longer than the windows that are read of a text: their ends were not read; cut them into several texts"
    return (
        f"longer than the {reading.max_length} tokens that are read of a text: their ends were not read; read them in "
        "windows in a space of --preprocess long=windows"
    )


def _features(
    hidden: Callable[..., torch.Tensor], pool: PoolFunction, tokenizer: Tokenizer
) -> Callable[[list[NDArray[np.int64]]], torch.Tensor]:
    """Return the function from windows of tokens to pooled features."""

    def features(windows: list[NDArray[np.int64]]) -> torch.Tensor:
        inputs = token_batch(windows, tokenizer)
        vectors = hidden(**inputs)
        return pool(vectors, inputs["attention_mask"].to(vectors.device, vectors.dtype))

    return features


def token_batch(windows: list[NDArray[np.int64]], tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """Return windows of tokens as the inputs of one pass, padded on the right, with the mask of the real tokens."""
    length = max(window.shape[1] for window in windows)
    ids = np.full((len(windows), length), tokenizer.pad_id, dtype=np.int64)
    types, mask = np.zeros_like(ids), np.zeros_like(ids)
    for row, window in enumerate(windows):
        count = window.shape[1]
        ids[row, :count], types[row, :count], mask[row, :count] = window[0], window[1], 1
    inputs = {"input_ids": ids, "attention_mask": mask} | ({"token_type_ids": types} if tokenizer.has_types else {})
    return {name: torch.from_numpy(value) for name, value in inputs.items()}

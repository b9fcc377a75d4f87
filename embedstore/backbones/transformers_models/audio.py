"""Networks of sound: Whisper's encoder, Wav2Vec2 and its kin, and CLAP, which has a tower of texts too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.backbones import weights
from embedstore.backbones.error_text import one_line
from embedstore.backbones.recipe_options import weights_origin
from embedstore.backbones.sequence import PreparedSequence, SequenceNetwork, TextTower
from embedstore.backbones.transformers_models.folder import ModelFolder, load_module, quiet_library
from embedstore.backbones.transformers_models.layers import layer_output
from embedstore.backbones.transformers_models.options import parse_overrides
from embedstore.backbones.transformers_models.text import token_batch
from embedstore.backbones.transformers_models.tokens import load_tokenizer, stated_length
from embedstore.errors import AudioError, BadBackbone, WeightsNotFound
from embedstore.media.audio.isolation import SoundDecoder
from embedstore.modality import AudioInput, TextInput
from embedstore.space import Recipe
from embedstore.types import ContentInfo, FailureReason

Features = Callable[[list[NDArray[Any]]], torch.Tensor]

EXTRACTOR_FILE = "preprocessor_config.json"
DEFAULT_WINDOW = 30.0  # seconds that a network without a length of its own reads at once
PASS_SECONDS = 240  # of sound in one pass on a CPU
WHISPER_BATCH = 8  # windows at once: each is padded to 30 s
MIN_SECONDS = 0.05  # of a sound, and of the rest of one after its last whole window
CLAP_TEXT_LENGTH = 77  # tokens of a query, where the tokenizer states none


@dataclass(frozen=True)
class SoundTower:
    """How sounds become vectors.

    Attributes:
        module: the network, which holds every parameter.
        layer: where the features are taken.
        pool: how they are pooled over the frames.
        features: from the samples of windows to features ``(B, D)``.
        window: seconds that are read at once.
        least: samples that a window needs.
    """

    module: Any
    layer: str
    pool: str
    features: Features
    window: float
    least: int


def load(folder: ModelFolder, recipe: Recipe) -> SequenceNetwork:
    """Load a network of sound.

    Raises:
        WeightsNotFound: when weights, tokenizer or the settings of the feature extractor are not on this machine.
        WeightsMismatch: when the weights do not fit the network.
        BadBackbone: when the network has no such layer, pooling or reading.
    """
    if recipe.pool not in (None, "mean"):
        raise BadBackbone(f"{folder.name} has the mean over its frames only; leave out --pool {recipe.pool}")
    extractor = _load_extractor(folder)
    build = {"whisper": _whisper, "clap": _clap}.get(folder.model_type, _wave)
    tower = build(folder, recipe, extractor)
    reading = _reading(folder, recipe, extractor, tower)
    is_clap = folder.model_type == "clap"

    decoder = SoundDecoder(reading.sample_rate)

    def prepare(data: bytes) -> tuple[PreparedSequence, ContentInfo]:
        samples, info = decoder.decode(data)
        return PreparedSequence(split_windows(samples, reading, tower.least)), info

    return SequenceNetwork(
        architecture=folder.model_type,
        weights=weights.digest(tower.module, is_random=recipe.random_init),
        module=tower.module,
        input=reading,
        layer=tower.layer,
        pool=tower.pool,
        prepare=prepare,
        features=tower.features,
        example=np.sin(np.arange(reading.sample_rate, dtype=np.float32) / 20),
        pass_length=PASS_SECONDS * reading.sample_rate,
        unit=is_clap,
        text=_clap_texts(folder, tower.module) if is_clap else None,
        logit_scale=float(tower.module.logit_scale_a.detach().exp()) if is_clap else None,
        origin=weights_origin(recipe, folder.name),
        release=decoder.close,
    )


def split_windows(samples: NDArray[np.float32], reading: AudioInput, least: int) -> tuple[NDArray[np.float32], ...]:
    """Return the windows of a sound; a rest that is too short for the network is left out.

    Args:
        samples: ``(S,)``.
        reading: length and hop of the windows.
        least: samples that a window needs.

    Raises:
        AudioError: if the whole sound is too short.
    """
    if len(samples) < least:
        detail = f"{len(samples) / reading.sample_rate:.3f} s; the network needs {least / reading.sample_rate:.3f} s"
        raise AudioError(FailureReason.TOO_SHORT, detail)
    length, hop = (max(least, round(seconds * reading.sample_rate)) for seconds in (reading.window, reading.hop))
    last = max(0, len(samples) - length)
    starts = [start for start in range(0, last + hop, hop) if len(samples) - start >= least]
    return tuple(samples[start : start + length] for start in starts)


def _load_extractor(folder: ModelFolder) -> Any:
    """Load the feature extractor of a model."""
    from transformers import AutoFeatureExtractor

    if not folder.has(EXTRACTOR_FILE):
        raise WeightsNotFound(
            f"{folder.name}: no {EXTRACTOR_FILE} in {folder.path}, which says how sound is read; copy it there"
        )
    try:
        with quiet_library():
            return AutoFeatureExtractor.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # damaged settings fail in any way
        raise BadBackbone(
            f"{folder.name}: {EXTRACTOR_FILE} cannot be used: {one_line(error, 160)}; bring the file of the model back"
        ) from error


def _reading(folder: ModelFolder, recipe: Recipe, extractor: Any, tower: SoundTower) -> AudioInput:
    """Return how sounds are read: as the model was trained, with the user's overrides."""
    settings = {k: v for k, v in extractor.to_dict().items() if isinstance(v, str | int | float | bool)}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    overrides = dict(recipe.preprocess)
    reading = AudioInput(f"sha256:{digest}", int(extractor.sampling_rate), tower.window, tower.window)
    if "window" in overrides:
        overrides.setdefault("hop", overrides["window"])
    reading = parse_overrides(reading, overrides, ("window", "hop"))
    if not MIN_SECONDS <= reading.hop <= reading.window <= tower.window:
        raise BadBackbone(
            f"--preprocess window={reading.window:g} hop={reading.hop:g}: {folder.name} reads windows of {MIN_SECONDS} "
            f"to {tower.window:g} s, and a hop is at most a window"
        )
    return reading


class _WhisperEncoders:
    """Loads the encoder of Whisper alone, in the form of the library's own classes."""

    @staticmethod
    def from_config(config: Any) -> Any:
        """Return an encoder with random weights."""
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder(config)

    @staticmethod
    def from_pretrained(path: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Return the encoder of a folder, and what its weights lack."""
        from transformers import WhisperModel

        module, loading = WhisperModel.from_pretrained(path, **options)
        missing = [name for name in loading["missing_keys"] if not name.startswith("decoder.")]
        return module.encoder, {**loading, "missing_keys": missing}


def _whisper(folder: ModelFolder, recipe: Recipe, extractor: Any) -> SoundTower:
    """Return Whisper's encoder: it always reads 30 s, and only the frames of the sound itself count."""
    module = load_module(folder, recipe, _WhisperEncoders)
    layer, hidden = layer_output(module, recipe.layer, folder.name)
    hop, rate = int(extractor.hop_length), int(extractor.sampling_rate)

    def features(windows: list[NDArray[np.float32]]) -> torch.Tensor:
        return torch.cat([batch(windows[at : at + WHISPER_BATCH]) for at in range(0, len(windows), WHISPER_BATCH)])

    def batch(windows: list[NDArray[np.float32]]) -> torch.Tensor:
        mels = extractor(windows, sampling_rate=rate, return_tensors="pt", padding="max_length").input_features
        frames = hidden(input_features=mels.float())
        counts = [-(-len(window) // (2 * hop)) for window in windows]  # the second convolution has a stride of 2
        return torch.stack([rows[:count].mean(dim=0) for rows, count in zip(frames, counts, strict=True)])

    window = float(extractor.n_samples / rate)
    return SoundTower(module, layer, "mean", features, window, max(int(extractor.n_fft), round(MIN_SECONDS * rate)))


def _wave(folder: ModelFolder, recipe: Recipe, extractor: Any) -> SoundTower:
    """Return Wav2Vec2 or its kin. Windows of one length go together and nothing is padded.

    Some of these networks normalize over time, padding included, so that a padded clip would have another vector.
    """
    from transformers import AutoModel

    module = load_module(folder, recipe, AutoModel, ignored=("masked_spec_embed",))
    layer, hidden = layer_output(module, recipe.layer, folder.name)
    rate = int(extractor.sampling_rate)

    def features(windows: list[NDArray[np.float32]]) -> torch.Tensor:
        vectors: list[Any] = [None] * len(windows)
        for length in {len(window) for window in windows}:
            rows = [row for row, window in enumerate(windows) if len(window) == length]
            values = extractor([windows[row] for row in rows], sampling_rate=rate, return_tensors="pt").input_values
            for row, frames in zip(rows, hidden(input_values=values.float()), strict=True):
                vectors[row] = frames.mean(dim=0)
        return torch.stack(vectors)

    least = round(MIN_SECONDS * rate)
    while int(module._get_feat_extract_output_lengths(torch.tensor(least))) < 1:
        least *= 2
    return SoundTower(module, layer, "mean", features, DEFAULT_WINDOW, least)


def _clap(folder: ModelFolder, recipe: Recipe, extractor: Any) -> SoundTower:
    """Return CLAP: the projection of sounds, which texts share."""
    from transformers import AutoModel

    if recipe.layer not in (None, "projection"):
        raise BadBackbone(f"{folder.name} gives its projection only; leave out --layer {recipe.layer}")
    module = load_module(folder, recipe, AutoModel)
    rate = int(extractor.sampling_rate)

    def features(windows: list[NDArray[np.float32]]) -> torch.Tensor:
        mels = extractor(windows, sampling_rate=rate, return_tensors="pt").input_features.float().to(module.device)
        # no window is longer than what is read; the extractor of a fused network would declare a random one to be
        is_longer = torch.zeros((len(windows), 1), dtype=torch.bool, device=module.device)
        return _projected(module.get_audio_features(input_features=mels, is_longer=is_longer))

    window = float(extractor.max_length_s)
    return SoundTower(module, "projection", "", features, window, round(MIN_SECONDS * rate))


def _clap_texts(folder: ModelFolder, module: Any) -> TextTower:
    """Return how queries are read by CLAP's tower of texts."""
    tokenizer = load_tokenizer(folder)
    config = module.config.text_config
    most = int(config.max_position_embeddings) - int(config.pad_token_id or 0) - 1
    reading = TextInput(tokenizer.digest, min(stated_length(folder) or CLAP_TEXT_LENGTH, most))

    def features(windows: list[NDArray[np.int64]]) -> torch.Tensor:
        batch = token_batch(windows, tokenizer)
        inputs = {name: batch[name].to(module.device) for name in ("input_ids", "attention_mask")}
        return _projected(module.get_text_features(**inputs))

    return TextTower(lambda text: tokenizer.prepare(text, reading, ""), features)


def _projected(output: Any) -> torch.Tensor:
    """Return the vectors of a projection, which versions of the library wrap differently."""
    vectors: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return vectors

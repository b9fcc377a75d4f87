"""Small folders of networks of sound as `save_pretrained` writes them, and sounds as files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from tests.helpers.text_models import save_tokenizer

FAMILIES = ("wav2vec2", "hubert", "whisper", "clap", "clap-fused")


def save_sound_model(folder: Path, family: str, *, seed: int = 0) -> Path:
    """Write configuration, random weights and feature extractor of a small network, and return the folder."""
    import transformers as tf

    torch.manual_seed(seed)
    waves = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    waves |= {"conv_dim": (32, 32), "conv_kernel": (10, 8), "conv_stride": (5, 4), "num_conv_pos_embeddings": 16}
    waves |= {"num_conv_pos_embedding_groups": 4, "num_feat_extract_layers": 2}
    match family:
        case "wav2vec2":
            module = tf.Wav2Vec2Model(tf.Wav2Vec2Config(**waves))
            extractor = tf.Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True)
        case "hubert":
            module = tf.HubertModel(tf.HubertConfig(**waves))
            extractor = tf.Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True)
        case "whisper":
            size = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
            size |= {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "vocab_size": 50}
            special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
            module = tf.WhisperModel(tf.WhisperConfig(max_source_positions=100, num_mel_bins=80, **size, **special))
            extractor = tf.WhisperFeatureExtractor(chunk_length=2)
        case "clap" | "clap-fused":
            module, extractor = _clap(is_fused=family == "clap-fused")
            save_tokenizer(folder, "roberta", "right")
    module.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def _clap(*, is_fused: bool):
    """Return CLAP with two small towers; the fused one has a second path, for sounds beyond a window."""
    import transformers as tf

    audio = {"spec_size": 64, "num_mel_bins": 16, "patch_size": 2, "patch_stride": 2, "window_size": 4}
    audio |= {"patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2]}
    audio |= {"enable_fusion": True, "fusion_type": "aff_2d"} if is_fused else {}
    text = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    text |= {"intermediate_size": 64, "max_position_embeddings": 66}
    config = tf.ClapConfig(audio_config=audio, text_config=text, projection_dim=24)
    # the files of a network without fusion say rand_trunc; a window is never longer than what is read
    extractor = tf.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=16000,
        max_length_s=2,
        hop_length=160,
        truncation="fusion" if is_fused else "rand_trunc",
    )
    return tf.ClapModel(config), extractor


def tone(seconds: float, *, rate: int = 16000, pitch: float = 440.0, seed: int = 0) -> np.ndarray:
    """Return a tone with noise, float32 ``(S,)``."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.05, len(time))
    return (0.4 * np.sin(2 * np.pi * pitch * time) + noise).astype(np.float32)


def sound_file(samples: np.ndarray, *, rate: int = 16000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """Return samples ``(S,)`` or ``(S, channels)`` as the bytes of a file."""
    import soundfile

    data = io.BytesIO()
    soundfile.write(data, samples, rate, format=kind, subtype=subtype)
    return data.getvalue()

"""The network in open_clip's terms, and its folder: configuration, vocabulary, weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
MERGES = "merges.txt.gz"
CONTEXT = 32  # tokens; longer captions are cut


def configuration(vocabulary: int) -> dict[str, Any]:
    """A ResNet of CLIP's own kind (Radford et al. 2021, section 2.4) and a two-layer transformer for the words."""
    return {
        "model_cfg": {
            "embed_dim": 256,
            "vision_cfg": {"image_size": 64, "layers": [2, 2, 2, 2], "width": 16, "head_width": 64, "patch_size": None},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocabulary,
                "width": 128,
                "heads": 4,
                "layers": 2,
                "tokenizer_kwargs": {"bpe_path": MERGES},
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def tokenizer(folder: Path) -> Any:
    """open_clip's own tokenizer with the folder's vocabulary."""
    return open_clip.tokenizer.SimpleTokenizer(bpe_path=str(folder / MERGES), context_length=CONTEXT)


def build(folder: Path, seed: int) -> Any:
    """The network of the folder's configuration, with random weights of a seed."""
    torch.manual_seed(seed)
    return open_clip.model.CLIP(**json.loads((folder / CONFIG).read_text())["model_cfg"])

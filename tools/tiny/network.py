"""The network as open_clip configures it, and its folder: configuration, vocabulary, weights."""

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
    """Return a CLIP ResNet (Radford et al. 2021, section 2.4) with a two-layer text transformer."""
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
    """Return open_clip's tokenizer with the folder's vocabulary."""
    return open_clip.tokenizer.SimpleTokenizer(bpe_path=str(folder / MERGES), context_length=CONTEXT)


def build(folder: Path, seed: int) -> Any:
    """Return the network of the folder's configuration, with random weights from a seed."""
    torch.manual_seed(seed)
    return open_clip.model.CLIP(**json.loads((folder / CONFIG).read_text())["model_cfg"])

"""Small networks: custom ones, loaded as ``module:factory``, and tiny CLIPs in open_clip's folder layout.

The CIFAR ResNets are those of He et al. 2015, section 4.2.
"""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import pad, relu


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters: subsampled and padded with zeros (option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride, self.more = stride, out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        return relu(y + pad(short, (0, 0, 0, 0, self.more // 2, self.more // 2)))


class CifarResNet(nn.Module):
    """A network of 6n + 2 layers; the forward returns the 64 pooled features, ``linear`` maps them to classes."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(in_channels, out_channels, stride)
        return nn.Sequential(first, *(Block(out_channels, out_channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


def resnet20() -> nn.Module:
    return CifarResNet(3)


def resnet56() -> nn.Module:
    return CifarResNet(9)


def colors(bins: int = 4) -> nn.Module:
    """Return a network without weights that declares its preprocessing: average colors on a grid."""
    net = nn.Sequential(nn.AdaptiveAvgPool2d(bins), nn.Flatten())
    net.pretrained_cfg = {
        "input_size": (3, 24, 32),
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }
    return net


def maps() -> nn.Module:
    """Return a network whose output is a feature map, not a vector."""
    return nn.Conv2d(3, 4, 1, bias=False).requires_grad_(False)


def text() -> str:
    """Return something that is not a network."""
    return "not a network"


VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 32, "patch_size": None, "head_width": 32}
TIMM = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}


def local_clip(folder: Path, tower: dict = VIT, mean: tuple = (0.5, 0.4, 0.3)) -> str:
    """Write a tiny CLIP with random weights in open_clip's own folder layout, and return its backbone name."""
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    preprocess = {"mean": list(mean), "std": [0.25, 0.25, 0.25], "resize_mode": "squash", "interpolation": "bilinear"}
    config = {"embed_dim": 24, "vision_cfg": tower, "text_cfg": text}
    folder.mkdir(exist_ok=True)
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(module.state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip/local-dir:{folder}"

"""A backbone with a classifier on top, and which of its parameters learn at which rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.base import Backbone, is_convolutional, l2_normalize
from embedstore.errors import FinetuneError, MissingExtra
from embedstore.finetuning.layers import Block, batchnorm_layers, find_blocks, select_blocks
from embedstore.finetuning.settings import FinetuneSettings

if TYPE_CHECKING:
    from peft import PeftModel

BASE_LEARNING_RATE = 1e-3  # AdamW's usual rate when a network is trained from nothing
INSTALL_HINT = "run `pip install embedstore[finetune]`"


class ClassificationHead(nn.Module):
    """A linear classifier over features divided by their typical size, so that one rate suits every network.

    Args:
        weight: float32 ``(K, D)`` for the raw features. bias: ``(K,)``. size: root mean square of the features.
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32], feature_rms: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(np.asarray(weight * feature_rms, dtype=np.float32)))
        self.bias = nn.Parameter(torch.from_numpy(np.asarray(bias, dtype=np.float32).copy()))
        self.feature_rms = feature_rms

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, K)`` of features ``(B, D)``."""
        return nn.functional.linear(features / self.feature_rms, self.weight, self.bias)

    def unscaled_weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights ``(K, D)`` and biases ``(K,)`` for the raw features."""
        return (self.weight.detach().cpu().numpy() / self.feature_rms).astype(
            np.float32
        ), self.bias.detach().cpu().numpy()


class BackboneClassifier(nn.Module):
    """Normalised images ``(B, 3, H, W)`` to logits ``(B, K)``, through the backbone's own features.

    Args:
        backbone: freshly loaded; its network is changed in place. head: on top of it.
    """

    def __init__(self, backbone: Backbone, head: ClassificationHead) -> None:
        super().__init__()
        self.module = backbone.module
        self.head = head
        self._features, self._unit = backbone.features, backbone.space.unit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, in float32."""
        out = self._features(images).float()
        logits: torch.Tensor = self.head(l2_normalize(out) if self._unit else out)
        return logits


class FinetuneModel:
    """What learns, and how fast.

    Args:
        backbone: freshly loaded. head: on top. settings: of the run.

    Attributes:
        model: with ``requires_grad`` set. blocks: every block, input first. tuned: those that learn.
    """

    def __init__(self, backbone: Backbone, head: ClassificationHead, settings: FinetuneSettings) -> None:
        self.settings = settings
        self.backbone = backbone
        self.model = BackboneClassifier(backbone, head)
        self.blocks = backbone_blocks(backbone)
        self._adapters: PeftModel | None = None
        self.initial_state = {n: t.detach().clone() for n, t in backbone.module.state_dict().items()}
        backbone.module.requires_grad_(False)
        if settings.layers == "lora":
            self.trainable_blocks = self.blocks
            self._adapters = add_lora_adapters(backbone.module, self.blocks, settings)
        else:
            self.trainable_blocks = select_blocks(self.blocks, settings.layers)
            named = dict(backbone.module.named_parameters())
            for name in (n for block in self.trainable_blocks for n in block.parameters):
                named[name].requires_grad_(True)
        head.requires_grad_(True)

    @property
    def learning_rate(self) -> float:
        """Of the last block."""
        if self.settings.lr is not None:
            return self.settings.lr
        if self.settings.layers == "lora":
            return BASE_LEARNING_RATE
        return BASE_LEARNING_RATE / (10 if is_convolutional(self.backbone.module) else 100)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that learns, by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def groups(self) -> list[dict[str, Any]]:
        """For the optimiser: earlier blocks slower, no decay of weights on vectors."""
        depth = {f"module.{n}": i for i, block in enumerate(reversed(self.trainable_blocks)) for n in block.parameters}
        out: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in self.trainable_parameters().items():
            rate = self.learning_rate * (1.0 if self._adapters else self.settings.decay ** depth.get(name, 0))
            decay = self.settings.weight_decay if parameter.dim() > 1 else 0.0
            group = out.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay, "names": []})
            group["params"].append(parameter)
            group["names"].append(name)
        return list(out.values())

    def set_train_mode(self) -> None:
        """Training mode; BatchNorm's statistics stand still unless they are to follow."""
        self.model.train()
        if not self.settings.bn:
            for norm in batchnorm_layers(self.model.module):
                norm.eval()

    def batchnorm_buffers(self) -> dict[str, torch.Tensor]:
        """BatchNorm's statistics where they follow the images."""
        if not self.settings.bn:
            return {}
        own = {n for n, _ in self.model.named_buffers()}
        return {n: t for n, t in self.model.state_dict().items() if n in own and t.is_floating_point()}

    def trainable_state(self) -> dict[str, torch.Tensor]:
        """Everything that learns as it is now, by name: parameters and statistics."""
        return {n: p.detach() for n, p in self.trainable_parameters().items()} | self.batchnorm_buffers()

    def copy_trainable_state(self) -> dict[str, torch.Tensor]:
        """A copy of :meth:`values` on the CPU."""
        return {n: t.to("cpu", copy=True) for n, t in self.trainable_state().items()}

    @torch.no_grad()
    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        """Set parameters and statistics."""
        there = {n: p.data for n, p in self.model.named_parameters()} | dict(self.model.named_buffers())
        for name, value in state.items():
            there[name].copy_(value)

    def merge_adapters(self) -> None:
        """Make adapters part of the weights; the network has its own names again."""
        if self._adapters is not None:
            self._adapters.merge_and_unload()
            self._adapters = None

    def changed_weights(self) -> dict[str, torch.Tensor]:
        """The network's numbers that differ from those it was loaded with, on the CPU; adapters must be merged.

        Counters (BatchNorm's of batches) are left out: they say nothing to a network that is only used.
        """
        now = {n: t for n, t in self.model.module.state_dict().items() if t.is_floating_point()}
        return {n: t.detach().to("cpu", copy=True) for n, t in now.items() if not torch.equal(t, self.initial_state[n])}


def backbone_blocks(backbone: Backbone) -> list[Block]:
    """The blocks of a backbone.

    Raises:
        FinetuneError: nothing of it can be tuned.
    """
    size = backbone.space.preprocess.size if backbone.space.preprocess else (32, 32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        images = torch.randn((2, 3, *size)).to(backbone.device)
    return find_blocks(backbone.module, backbone.features, images)


def add_lora_adapters(module: nn.Module, blocks: Iterable[Block], settings: FinetuneSettings) -> PeftModel:
    """LoRA in the linear layers of the blocks (Hu et al. 2021), put into the network in place by peft.

    Raises:
        MissingExtra: peft is not installed. FinetuneError: the blocks have no linear layers.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as e:
        raise MissingExtra(f"adapters need the package peft, which is not installed; {INSTALL_HINT}") from e
    names = _linear(module, blocks)
    if not names:
        raise FinetuneError(
            "adapters go into linear layers, and the blocks of this network have none; use last-N or all"
        )
    config = LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules=names, bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        made: PeftModel = get_peft_model(module, config)
    return made


def _linear(module: nn.Module, found: Iterable[Block]) -> list[str]:
    """Linear and attention layers inside the blocks; the ones within torch's attention belong to it."""
    taking_part = {n.rpartition(".")[0] for block in found for n in block.parameters}
    inside = {n: m for n, m in module.named_modules() if n in taking_part}
    attention = [n for n, m in inside.items() if isinstance(m, nn.MultiheadAttention)]
    linear = [n for n, m in inside.items() if isinstance(m, nn.Linear) and n.rpartition(".")[0] not in attention]
    return attention + linear

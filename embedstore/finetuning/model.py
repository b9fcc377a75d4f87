"""A backbone with a classification head, and which of its parameters are trained at which rate."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.base import is_convolutional, l2_normalize
from embedstore.backbones.trainable import TrainableBackbone
from embedstore.errors import FinetuneError, MissingExtra
from embedstore.finetuning.layers import Block, batchnorm_layers, find_blocks, select_blocks
from embedstore.finetuning.settings import FinetuneSettings

if TYPE_CHECKING:
    from peft import PeftModel

BASE_LEARNING_RATE = 1e-3  # AdamW's usual rate when a network is trained from scratch


class ClassificationHead(nn.Module):
    """A linear classifier over features divided by their RMS, so that one learning rate suits every network.

    Args:
        weight: float32 ``(K, D)`` for the raw features.
        bias: float32 ``(K,)``.
        feature_rms: root mean square of the features.
    """

    def __init__(self, weight: NDArray[np.float32], bias: NDArray[np.float32], feature_rms: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(np.asarray(weight * feature_rms, dtype=np.float32)))
        self.bias = nn.Parameter(torch.from_numpy(np.asarray(bias, dtype=np.float32).copy()))
        self.feature_rms = feature_rms

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, K)`` of features ``(B, D)``."""
        return nn.functional.linear(features / self.feature_rms, self.weight, self.bias)

    def unscaled_weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return weights ``(K, D)`` and biases ``(K,)`` for the raw features."""
        weight = self.weight.detach().cpu().numpy() / self.feature_rms
        return weight.astype(np.float32), self.bias.detach().cpu().numpy()


class BackboneClassifier(nn.Module):
    """Map inputs of the network to logits ``(B, K)`` through the backbone's own features.

    Args:
        backbone: freshly loaded; its network is changed in place.
        head: classifier over the features.
    """

    def __init__(self, backbone: TrainableBackbone, head: ClassificationHead) -> None:
        super().__init__()
        self.module = backbone.module
        self.head = head
        self._features, self._unit = backbone.features, backbone.space.unit

    def forward(self, inputs: Any) -> torch.Tensor:
        """Return float32 logits."""
        out = self._features(inputs).float()
        logits: torch.Tensor = self.head(l2_normalize(out) if self._unit else out)
        return logits


class FinetuneModel:
    """A backbone and head with the chosen blocks set to be trained.

    Args:
        backbone: freshly loaded.
        head: classifier over the features; moved to the backbone's device.
        settings: the settings of the run.

    Attributes:
        model: the classifier, with ``requires_grad`` set.
        blocks: every block, input first.
        trainable_blocks: the blocks that are trained.
        initial_state: copy of the backbone's state before training.
        trainable_count: numbers that are trained, with the head's.
    """

    def __init__(self, backbone: TrainableBackbone, head: ClassificationHead, settings: FinetuneSettings) -> None:
        self.settings = settings
        self.backbone = backbone
        self.device = torch.device(backbone.device)
        self.model = BackboneClassifier(backbone, head.to(self.device))
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
        self.trainable_count = sum(p.numel() for p in self.trainable_parameters().values())

    @property
    def head(self) -> ClassificationHead:
        """The classification head."""
        return self.model.head

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last block."""
        if self.settings.lr is not None:
            return self.settings.lr
        if self.settings.layers == "lora":
            return BASE_LEARNING_RATE
        return BASE_LEARNING_RATE / (10 if is_convolutional(self.backbone.module) else 100)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return every trained parameter by name."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return optimizer groups: lower rates for earlier blocks, no weight decay on vectors."""
        depth = {f"module.{n}": i for i, block in enumerate(reversed(self.trainable_blocks)) for n in block.parameters}
        out: dict[tuple[float, float], dict[str, Any]] = {}
        for name, parameter in self.trainable_parameters().items():
            layer_decay = 1.0 if self._adapters else self.settings.layer_decay ** depth.get(name, 0)
            rate = self.learning_rate * layer_decay
            decay = self.settings.weight_decay if parameter.dim() > 1 else 0.0
            group = out.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay, "names": []})
            group["params"].append(parameter)
            group["names"].append(name)
        return list(out.values())

    def set_train_mode(self) -> None:
        """Switch to training mode; BatchNorm statistics stay fixed unless ``update_batchnorm`` is set."""
        self.model.train()
        if not self.settings.update_batchnorm:
            for norm in batchnorm_layers(self.model.module):
                norm.eval()

    def batchnorm_buffers(self) -> dict[str, torch.Tensor]:
        """Return the BatchNorm statistics if they are updated in training, else {}."""
        if not self.settings.update_batchnorm:
            return {}
        buffers = {n for n, _ in self.model.named_buffers()}
        return {n: t for n, t in self.model.state_dict().items() if n in buffers and t.is_floating_point()}

    def trainable_state(self) -> dict[str, torch.Tensor]:
        """Return the live trained parameters and statistics by name."""
        return {n: p.detach() for n, p in self.trainable_parameters().items()} | self.batchnorm_buffers()

    def copy_trainable_state(self) -> dict[str, torch.Tensor]:
        """Return a copy of :meth:`trainable_state` on the CPU."""
        return {n: t.to("cpu", copy=True) for n, t in self.trainable_state().items()}

    @torch.no_grad()
    def load_trainable_state(self, state: dict[str, torch.Tensor]) -> None:
        """Copy parameters and statistics into the network."""
        targets = {n: p.data for n, p in self.model.named_parameters()} | dict(self.model.named_buffers())
        for name, value in state.items():
            targets[name].copy_(value)

    def merge_adapters(self) -> None:
        """Merge adapters into the weights; the network then has its original parameter names."""
        if self._adapters is not None:
            self._adapters.merge_and_unload()
            self._adapters = None

    def changed_weights(self) -> dict[str, torch.Tensor]:
        """Return, on the CPU, the weights that differ from the initial ones; adapters must be merged.

        Integer buffers (BatchNorm's batch counters) are left out: they do not affect inference.
        """
        current = {n: t for n, t in self.model.module.state_dict().items() if t.is_floating_point()}
        changed = (n for n, t in current.items() if not torch.equal(t, self.initial_state[n]))
        return {n: current[n].detach().to("cpu", copy=True) for n in changed}


def backbone_blocks(backbone: TrainableBackbone) -> list[Block]:
    """Return the blocks of a backbone, input first.

    Raises:
        FinetuneError: if no parameter of it contributes to the features.
    """
    return find_blocks(backbone.module, backbone.features, backbone.example_input())


def add_lora_adapters(module: nn.Module, blocks: Iterable[Block], settings: FinetuneSettings) -> PeftModel:
    """Insert LoRA adapters (Hu et al. 2021) into the linear layers of the blocks, in place, with peft.

    GPT-2's layers are linear too: transformers stores their weights transposed and calls them Conv1D, and peft adapts
    them as such.

    Args:
        module: the network.
        blocks: the blocks to adapt.
        settings: the settings with the rank and the seed.

    Raises:
        MissingExtra: if peft is not installed.
        FinetuneError: if the blocks have no linear layers.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as e:
        raise MissingExtra(
            "layers lora needs the package peft, which is not installed; run `pip install embedstore[finetune]`"
        ) from e
    from transformers.pytorch_utils import Conv1D  # peft needs it as well

    names = _linear_layers(module, blocks, (nn.Linear, Conv1D))
    if not names:
        raise FinetuneError(
            "lora puts adapters into linear layers, and the blocks of this network have none; use layers last-N or all"
        )
    config = LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules=names, bias="none")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out is set")  # peft sets it by the layer: a network may have both
        warnings.simplefilter("ignore", FutureWarning)  # what peft calls of transformers is deprecated in some versions
        torch.default_generator.manual_seed(settings.seed)
        adapted: PeftModel = get_peft_model(module, config)
    return adapted


def _linear_layers(module: nn.Module, blocks: Iterable[Block], kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Return names of linear and attention layers in the blocks; layers inside torch's attention are part of it.

    Args:
        module: the network.
        blocks: the blocks to adapt.
        kinds: the classes of linear layers.
    """
    parents = {n.rpartition(".")[0] for block in blocks for n in block.parameters}
    inside = {n: m for n, m in module.named_modules() if n in parents}
    attention = [n for n, m in inside.items() if isinstance(m, nn.MultiheadAttention)]
    linear = [n for n, m in inside.items() if isinstance(m, kinds) and n.rpartition(".")[0] not in attention]
    return attention + linear

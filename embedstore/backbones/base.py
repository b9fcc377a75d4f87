"""A loaded backbone: uint8 pixels or words in, float32 vectors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.errors import BadBackbone, NoTextTower
from embedstore.space import Family, Preprocess, Space

FeatureFunction = Callable[[torch.Tensor], torch.Tensor]
AUTOCAST_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TEXT_BATCH_SIZE = 256  # texts per forward: a text is far cheaper than an image


@dataclass(frozen=True)
class LoadedNetwork:
    """What a library gave for a recipe, before device, precision and overrides.

    Attributes:
        family, architecture, weights, activation, origin, licence: as in :class:`~embedstore.space.Space`.
        module: the library's own network, holding every parameter.
        features: normalised images ``(B, 3, H, W)`` to features ``(B, D)``, in terms of ``module``.
        preprocess: with the person's overrides.
        layer, pool: where the features are taken.
        unit: vectors of this space are compared on the sphere.
        texts: tokenises and encodes words to ``(T, D)`` features, or None.
        tokens: words as its tokenizer's ids ``(T, L)``, or None.
        vocabulary: the file of the tokenizer's merges, where they are the network's own.
        logit_scale: exp of CLIP's learned scale, or None.
    """

    family: Family
    architecture: str
    weights: str
    module: nn.Module
    features: FeatureFunction
    preprocess: Preprocess
    layer: str
    pool: str
    unit: bool = False
    text_features: Callable[[Sequence[str], torch.device], torch.Tensor] | None = None
    tokenize: Callable[[Sequence[str]], torch.Tensor] | None = None
    bpe_merges: Path | None = None
    logit_scale: float | None = None
    activation: str = ""
    origin: str = ""
    licence: str = ""


class Backbone:
    """A frozen network on a device.

    Attributes:
        space: what its vectors mean.
        device, precision: as chosen, e.g. ``cuda`` and ``bf16``.
        module: the library's own network (fine-tuning trains it; embedding only reads it).
        logit_scale: exp of CLIP's own logit scale, or None.
        vocabulary: the file of its tokenizer's merges, where they are its own.
        convolutional: most parameters sit in convolutions; they run with channels last.
        batch_size: images per forward: a sensible choice for the device, halved when memory runs out.
    """

    def __init__(self, loaded: LoadedNetwork, space: Space, *, device: str, precision: str) -> None:
        self.space = space
        self.device = device
        self.precision = precision
        self.module = loaded.module
        self.logit_scale = loaded.logit_scale
        self.bpe_merges = loaded.bpe_merges
        self._loaded = loaded
        self._torch_device = torch.device(device)
        mean, std = loaded.preprocess.mean, loaded.preprocess.std
        self._mean = torch.tensor(mean, device=self._torch_device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self._torch_device).view(1, 3, 1, 1)
        self.is_convolutional = is_convolutional(loaded.module)
        self.batch_size = default_batch_size(self._torch_device.type, loaded.preprocess.size, loaded.module)

    def encode_images(self, batch: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """Vectors of prepared images; the batch is cut and halved as memory demands.

        Args:
            batch: uint8 ``(B, 3, H, W)`` at ``space.preprocess.size``; a tensor may lie on the device already.

        Returns:
            float32 ``(B, D)``; rows of length 1 if ``space.unit``.

        Raises:
            ValueError: another dtype or shape.
            BadBackbone: not even one image fits into the device's memory.
        """
        expected = (3, *self._loaded.preprocess.size)
        if batch.dtype not in (np.uint8, torch.uint8) or batch.ndim != 4 or batch.shape[1:] != expected:
            got = f"{batch.dtype} {tuple(batch.shape)}"
            raise ValueError(f"expected uint8 (B, {', '.join(map(str, expected))}), got {got}")
        out: list[NDArray[np.float32]] = []
        start = 0
        while start < len(batch):
            part = batch[start : start + self.batch_size]
            vectors = self._tried(part)
            if vectors is None:
                self._halve(len(part))
                continue
            out.append(vectors)
            start += len(part)
        return np.concatenate(out) if out else np.empty((0, self.space.dim), np.float32)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts in this space.

        Args:
            texts: one string a row.

        Returns:
            float32 ``(T, D)``, rows of length 1.

        Raises:
            NoTextTower: the space knows images only.
            WeightsNotFound: the tokenizer's files are not on this machine.
        """
        if self._loaded.text_features is None:
            raise self._wordless()
        if not texts:
            return np.empty((0, self.space.dim), np.float32)
        parts = []
        for start in range(0, len(texts), TEXT_BATCH_SIZE):
            with torch.inference_mode(), self._autocast():
                parts.append(
                    self._loaded.text_features(texts[start : start + TEXT_BATCH_SIZE], self._torch_device).float()
                )
        return _numpy(l2_normalize(torch.cat(parts)))

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Texts as the ids of the network's own tokenizer, ``(T, L)``.

        Raises:
            NoTextTower, WeightsNotFound: as :meth:`encode_texts`.
        """
        if self._loaded.tokenize is None:
            raise self._wordless()
        ids: NDArray[np.int64] = self._loaded.tokenize(texts).long().numpy()
        return ids

    def _wordless(self) -> NoTextTower:
        """The error of a network that knows images only."""
        return NoTextTower(
            f"{self.space.architecture} ({self.space.layer or 'vectors'}) maps no words into its space; "
            "text search needs a CLIP-like backbone, e.g. `--backbone clip` (`embedstore backbones open_clip`)"
        )

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features ``(B, D)`` of normalised float images on the device, before any unit norm; keeps gradients."""
        return self._loaded.features(images)

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 pixels ``(B, 3, H, W)`` on the device as the network's float32 input."""
        images = (batch.float() / 255 - self._mean) / self._std
        return images.contiguous(memory_format=torch.channels_last) if self.is_convolutional else images

    def _tried(self, batch: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32] | None:
        """A forward pass, or None where memory ran out and a smaller one may fit.

        The error is let go of before another try: its traceback holds the tensors that filled the memory.
        """
        try:
            return self._forward(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) > 1:
                return None
            raise BadBackbone(
                f"one image of {'x'.join(map(str, self._loaded.preprocess.size))} does not fit into the memory of "
                f"{self.device}; try --device cpu, --precision fp16 or a smaller backbone"
            ) from error

    def _forward(self, batch: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """One forward pass, nothing caught."""
        return self.run_forward(batch, self.vectors_from_pixels)

    def run_forward(self, batch: NDArray[np.uint8] | torch.Tensor, forward: FeatureFunction) -> NDArray[np.float32]:
        """One forward pass of prepared images through ``call``, :meth:`vectors` or what was compiled of it."""
        with torch.inference_mode(), self._autocast():
            return _numpy(forward(self._moved(batch)))

    def _moved(self, batch: NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
        """The batch on the device; from pinned memory the copy runs beside the work before it."""
        if isinstance(batch, np.ndarray):
            batch = torch.from_numpy(np.require(batch, requirements=("C", "W")))  # torch warns where it could write
            if self._torch_device.type == "cuda":
                batch = batch.pin_memory()
        return batch.to(self._torch_device, non_blocking=True)

    def vectors_from_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels ``(B, 3, H, W)`` on the device as the vectors of the space, float32."""
        out = self.features(self.normalize(pixels)).float()
        return l2_normalize(out) if self.space.unit else out

    def _autocast(self) -> Any:
        """Mixed precision where it was chosen."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._torch_device.type, dtype=AUTOCAST_DTYPES[self.precision])

    def _halve(self, tried: int) -> None:
        """Remember a batch size that is half of what did not fit."""
        if self._torch_device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_size = tried // 2


def l2_normalize(vectors: torch.Tensor) -> torch.Tensor:
    """Rows scaled to length 1 (a zero row stays zero)."""
    return nn.functional.normalize(vectors, dim=-1)


def is_convolutional(module: nn.Module) -> bool:
    """Most parameters sit in convolutions: such networks run faster with channels last."""
    parameters = list(module.parameters())
    return 2 * sum(p.numel() for p in parameters if p.dim() == 4) > sum(p.numel() for p in parameters)


def default_batch_size(device: str, size: tuple[int, int], module: nn.Module) -> int:
    """Images per forward: what keeps the device busy at 224 pixels, fewer for larger images and networks."""
    if device == "cpu":
        return 32  # a CPU is busy with a few; more only costs memory
    base = 256 if device == "cuda" else 64
    parameters = sum(p.numel() for p in module.parameters())
    scale = (224 * 224) / (size[0] * size[1]) * min(1.0, 300e6 / max(parameters, 1))
    return max(8, min(2 * base, 8 * round(base * scale / 8)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "cannot allocate memory" in text


def _numpy(vectors: torch.Tensor) -> NDArray[np.float32]:
    """A float32 array on the host."""
    array: NDArray[np.float32] = vectors.detach().float().cpu().numpy()
    return array

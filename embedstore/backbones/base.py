"""A loaded backbone: uint8 pixels or texts in, float32 vectors out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.batch_runner import BatchRunner, require_pixels
from embedstore.backbones.device_clock import DeviceClock
from embedstore.backbones.forward_gate import gate_of_device
from embedstore.backbones.precision import HALF_DTYPES, HalfWeights, true_fp32
from embedstore.backbones.random_state import seeded_cpu
from embedstore.backbones.runtimes.runtime import no_text_tower
from embedstore.resources import memory_share
from embedstore.space import Family, Preprocess, Space

FeatureFunction = Callable[[torch.Tensor], torch.Tensor]
OVERFLOW_BATCH_SIZE = 8  # images per forward pass of what overflowed in half precision: few, and memory is in use
TEXT_BATCH_SIZE = 256  # texts per forward pass: a text is far cheaper than an image
CPU_BATCH_SIZE = 32
CPU_TRAINING_PIXELS = 8 * 224 * 224  # in one pass with gradients: 0.6 GB of MobileNetV2's activations
MAX_BATCH_SIZE = 256  # images per forward pass that are tried


@dataclass(frozen=True)
class LoadedNetwork:
    """What a library returned for a recipe, before the device and the precision are chosen.

    Attributes:
        family: as in :class:`~embedstore.space.Space`, like architecture, weights, activation, origin and licence.
        architecture: its name in the space.
        weights: the digest of its parameters.
        module: the library's own network, which holds every parameter.
        features: maps normalized images ``(B, 3, H, W)`` to features ``(B, D)``, through ``module``.
        preprocess: the preprocessing, with the user's overrides.
        layer: where the features are taken.
        pool: how they are pooled.
        unit: the vectors are scaled to length 1.
        text_features: maps token ids ``(T, L)`` to features ``(T, D)``; None without a text tower.
        tokenize: maps texts to token ids ``(T, L)``; None without a text tower.
        is_cut: whether a text has more tokens than the network reads; None without a text tower.
        bpe_merges: the file of the tokenizer's merges, if the network brings its own.
        logit_scale: exp of CLIP's learned scale, or None.
        activation: where it is a choice apart from the architecture.
        origin: where the weights came from.
        licence: the license of the weights.
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
    text_features: FeatureFunction | None = None
    tokenize: Callable[[Sequence[str]], torch.Tensor] | None = None
    is_cut: Callable[[str], bool] | None = None
    bpe_merges: Path | None = None
    logit_scale: float | None = None
    activation: str = ""
    origin: str = ""
    licence: str = ""


class Backbone:
    """A frozen network on a device.

    Args:
        loaded: the network, already moved to the device.
        space: the space of its vectors.
        device: the device's name, e.g. ``cuda``.
        half_precisions: half precisions to try, the first choice first; none for fp32.
        must_be_half: a half precision that gives other vectors is an error, not passed over.

    Attributes:
        space: the space of its vectors.
        device: the device's name.
        precision: the precision of a forward pass: ``fp32``, unless an embedding run chose ``fp16`` or ``bf16``.
        half_precisions: as given.
        must_be_half: as given.
        training_items: as :func:`training_items` says.
        gate: shared by the forward passes on the device.
        clock: how fast the device computes.
        module: the library's own network: fine-tuning trains it, embedding only reads it.
        logit_scale: exp of CLIP's own logit scale, or None.
        bpe_merges: the file of its tokenizer's merges, if it has its own.
        is_convolutional: most parameters belong to convolutions, which run with channels last.
        runner: splits images into batches and owns the batch size.
    """

    def __init__(
        self,
        loaded: LoadedNetwork,
        space: Space,
        *,
        device: str,
        half_precisions: Sequence[str] = (),
        must_be_half: bool = False,
    ) -> None:
        self.space = space
        self.device = device
        self.precision = "fp32"
        self.half_precisions, self.must_be_half = tuple(half_precisions), must_be_half
        self.gate = gate_of_device(device)
        self.clock = DeviceClock(torch.device(device))
        self._half: HalfWeights | None = None
        self.module = loaded.module
        self.logit_scale: float | None = loaded.logit_scale
        self.bpe_merges = loaded.bpe_merges
        self._loaded = loaded
        self._torch_device = torch.device(device)
        self.training_items = training_items(self._torch_device.type, loaded.preprocess.size)
        mean, std = loaded.preprocess.mean, loaded.preprocess.std
        self._mean = torch.tensor(mean, device=self._torch_device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self._torch_device).view(1, 3, 1, 1)
        self.is_convolutional = is_convolutional(loaded.module)
        image_batch_size = default_batch_size(self._torch_device.type, loaded.preprocess.size, loaded.module)
        self.runner, self._text_runner = (
            BatchRunner(space.dim, size, device=device, gate=self.gate, release_memory=torch.cuda.empty_cache)
            for size in (image_batch_size, TEXT_BATCH_SIZE)
        )
        # used by a thread that holds the device's gate alone, so it has a gate of its own
        self._overflow_runner = BatchRunner(
            space.dim, OVERFLOW_BATCH_SIZE, device=device, release_memory=torch.cuda.empty_cache
        )

    @property
    def batch_size(self) -> int:
        """Images per forward pass: a default for the device, halved when memory runs out."""
        return self.runner.batch_size

    def encode_images(self, batch: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """Embed prepared images, in batches that fit into memory; what overflows in half precision is computed in fp32.

        Args:
            batch: uint8 ``(B, 3, H, W)`` of ``space.preprocess.size``; a tensor may already be on the device.

        Returns:
            float32 ``(B, D)``; rows of length 1 if ``space.unit``.

        Raises:
            ValueError: when the batch has another dtype or shape.
            BadBackbone: when not even one image fits into the device's memory.
        """
        require_pixels(batch, self._loaded.preprocess.size)
        vectors = self.runner.run(batch, self._forward_pixels)
        if self._half is not None:
            self._repeat_overflowed(batch, vectors)
        return vectors

    def set_precision(self, precision: str) -> None:
        """Choose the precision of the forward passes from now on: ``fp32``, ``fp16`` or ``bf16``."""
        if precision == self.precision:
            return
        with self.gate.alone():
            if self._half is not None:
                self._half.use_full()
            self.precision = precision
            self._half = HalfWeights(self.module, HALF_DTYPES[precision]) if precision != "fp32" else None
            if self._half is not None:
                self._half.use_half()

    @contextmanager
    def full_precision(self) -> Iterator[None]:
        """Compute in fp32 while the block runs, alone on the device."""
        with self.gate.alone():
            half, precision, self.precision = self._half, self.precision, "fp32"
            if half is not None:
                half.use_full()
            try:
                yield
            finally:
                self.precision = precision
                if half is not None:
                    half.use_half()

    def _repeat_overflowed(self, batch: NDArray[np.uint8] | torch.Tensor, vectors: NDArray[np.float32]) -> None:
        """Compute in fp32, in small parts, the vectors that are not finite in half precision."""
        rows = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(rows):
            with self.full_precision():
                vectors[rows] = self._overflow_runner.run(batch[rows], self._forward_pixels)

    def _forward_pixels(self, pixels: NDArray[np.uint8] | torch.Tensor) -> NDArray[np.float32]:
        """Return the vectors of one batch of prepared images."""
        return self.run_forward(pixels, self.vectors_from_pixels)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts into this space.

        Args:
            texts: one string per row.

        Returns:
            float32 ``(T, D)``, rows of length 1.

        Raises:
            NoTextTower: when the space has no text tower.
            WeightsNotFound: when the tokenizer's files are not on this machine.
        """
        text_features = self._loaded.text_features
        if text_features is None:
            raise no_text_tower(self.space)
        if not texts:
            return np.empty((0, self.space.dim), np.float32)

        def vectors_from_tokens(tokens: torch.Tensor) -> torch.Tensor:
            return l2_normalize(text_features(tokens).float())

        return self._text_runner.run(self.tokenize(texts), lambda tokens: self.run_forward(tokens, vectors_from_tokens))

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that have more tokens than the network reads, so that their ends are ignored."""
        is_cut = self._loaded.is_cut
        return [text for text in texts if is_cut(text)] if is_cut else []

    def tokenize(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the token ids of texts, int64 ``(T, L)``, by the network's own tokenizer.

        Raises:
            NoTextTower: when the space has no text tower.
            WeightsNotFound: when the tokenizer's files are not on this machine.
        """
        if self._loaded.tokenize is None:
            raise no_text_tower(self.space)
        ids: NDArray[np.int64] = self._loaded.tokenize(texts).long().numpy()
        return ids

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features ``(B, D)`` of normalized float images on the device, not scaled; keeps gradients."""
        return self._loaded.features(images)

    def normalize(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the network's float32 input for uint8 pixels ``(B, 3, H, W)`` on the device."""
        images = (batch.float() / 255 - self._mean) / self._std
        return images.contiguous(memory_format=torch.channels_last) if self.is_convolutional else images

    def network_input(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the network's float32 input for uint8 pixels ``(B, 3, H, W)`` on any device."""
        return self.normalize(batch.to(self._torch_device))

    def example_input(self) -> torch.Tensor:
        """Return two normalized images of noise, which are the same every time."""
        with seeded_cpu(0):
            return torch.randn((2, 3, *self._loaded.preprocess.size)).to(self._torch_device)

    def vectors_from_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the space, float32, for uint8 pixels ``(B, 3, H, W)`` on the device."""
        out = self.features(self.normalize(pixels)).float()
        return l2_normalize(out) if self.space.unit else out

    def run_forward(self, batch: NDArray[Any] | torch.Tensor, forward: FeatureFunction) -> NDArray[np.float32]:
        """Run one forward pass on the device.

        Args:
            batch: prepared images or token ids.
            forward: :meth:`vectors_from_pixels`, its compiled form, or the text tower.

        Returns:
            float32 ``(B, D)`` on the host.
        """
        with torch.inference_mode(), self._autocast():
            on_device = self._to_device(batch)
            begin = self.clock.now()
            vectors = forward(on_device).float()
            end = self.clock.now()
        out: NDArray[np.float32] = vectors.detach().cpu().numpy()  # waits for the device
        self.clock.add(len(batch), begin, end)
        return out

    def _to_device(self, batch: NDArray[Any] | torch.Tensor) -> torch.Tensor:
        """Copy a batch to the device; from pinned memory the copy overlaps with earlier work."""
        if isinstance(batch, np.ndarray):
            batch = torch.from_numpy(np.require(batch, requirements=("C", "W")))  # torch warns about read-only arrays
            if self._torch_device.type == "cuda":
                batch = batch.pin_memory()
        return batch.to(self._torch_device, non_blocking=True)

    def _autocast(self) -> Any:
        """Return the context of mixed precision, if one was chosen, otherwise that of exact fp32."""
        if self.precision == "fp32":
            return true_fp32(self._torch_device.type)
        return torch.autocast(self._torch_device.type, dtype=HALF_DTYPES[self.precision])


def l2_normalize(vectors: torch.Tensor) -> torch.Tensor:
    """Scale rows to length 1; a zero row remains zero."""
    return nn.functional.normalize(vectors, dim=-1)


def is_convolutional(module: nn.Module) -> bool:
    """Return whether most parameters belong to convolutions: such networks run faster with channels last."""
    parameters = list(module.parameters())
    return 2 * sum(p.numel() for p in parameters if p.dim() == 4) > sum(p.numel() for p in parameters)


def affordable_batch(size: tuple[int, int]) -> int:
    """Return how many images of one size a forward pass on the CPU may have, in a quarter of the process's memory.

    The values that a network holds at a time take up to about 32 times its input (ConvNeXt-L at 224 pixels).
    """
    image_bytes = 32 * 4 * 3 * size[0] * size[1]
    return max(1, memory_share(MAX_BATCH_SIZE * image_bytes, 4) // image_bytes)


def training_items(device_type: str, size: tuple[int, int]) -> int | None:
    """Return images per pass with gradients, which keeps the output of every layer; None tries a whole batch.

    A graphics card reports that its memory is full, and a smaller pass follows; a process without memory is killed.
    """
    return max(1, CPU_TRAINING_PIXELS // (size[0] * size[1])) if device_type == "cpu" else None


def default_batch_size(device_type: str, size: tuple[int, int], module: nn.Module) -> int:
    """Return images per forward pass: enough to keep the device busy, fewer for large images and networks."""
    if device_type == "cpu":
        return min(CPU_BATCH_SIZE, affordable_batch(size))  # a CPU is busy with a few; more only costs memory
    base = 256 if device_type == "cuda" else 64
    parameters = sum(p.numel() for p in module.parameters())
    scale = (224 * 224) / (size[0] * size[1]) * min(1.0, 300e6 / max(parameters, 1))
    return max(8, min(2 * base, 8 * round(base * scale / 8)))

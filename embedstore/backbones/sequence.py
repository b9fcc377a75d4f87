"""A loaded backbone of texts or sound: items of any length in, float32 vectors out.

The items of a group are sorted by their length and go through the network in passes of about equal cost. What is padded
is masked, so that a vector does not depend on the other items of its pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.backbones.base import l2_normalize
from embedstore.backbones.batch_runner import BatchRunner
from embedstore.backbones.error_text import one_line
from embedstore.backbones.precision import true_fp32
from embedstore.backbones.random_state import keep_random_state
from embedstore.backbones.runtimes.runtime import no_text_tower
from embedstore.errors import BadBackbone
from embedstore.modality import SequenceInput
from embedstore.space import Family, Recipe, Space
from embedstore.types import ContentInfo

GROUP_SIZE = 256  # items that are sorted together
MAX_PASS_ITEMS = {"cpu": 64, "cuda": 512}  # windows in one pass through the network
TRAINING_ITEMS = {"cpu": 8, "cuda": 64}  # in one pass with gradients, which keeps every layer's output
DEVICE_COST = {"cpu": 1, "cuda": 16}  # how much more than on a CPU one pass may cost


@dataclass(frozen=True)
class PreparedSequence:
    """One item as its backbone reads it.

    Attributes:
        windows: at least one; the last axis of each is its length. Of texts token ids and types, int64 ``(2, L)``; of
            sound samples, float32 ``(S,)``.
        is_cut: the end of the item is not in the windows.
    """

    windows: tuple[NDArray[Any], ...]
    is_cut: bool = False


@dataclass(frozen=True)
class TextTower:
    """How texts are mapped into a space.

    Attributes:
        prepare: from a query to its tokens.
        features: from the windows of one pass to features ``(B, D)`` on the device.
    """

    prepare: Callable[[str], PreparedSequence]
    features: Callable[[list[NDArray[Any]]], torch.Tensor]


@dataclass(frozen=True)
class SequenceNetwork:
    """What a library returned for a recipe of texts or sound.

    Attributes:
        architecture: its name in the space.
        weights: the digest of its parameters.
        module: the library's own network, which holds every parameter.
        input: how an item becomes the network's input.
        layer: where the features are taken.
        pool: how they are pooled over the tokens or frames.
        prepare: from the bytes of an item to windows, and facts about the content.
        features: from the windows of one pass, padded here, to features ``(B, D)`` on the device.
        example: one window, by which the dimension is measured.
        pass_length: the total length of all windows of one pass together on a CPU, with what is padded.
        unit: the vectors are scaled to length 1.
        text: how texts are mapped into the space; None if they are not.
        unread: what a notice says about items whose ends are not read, with the cure.
        logit_scale: exp of the learned scale of a network with two towers, or None.
        origin: where the weights came from.
        release: ends the processes that prepare items; later items start others.
    """

    architecture: str
    weights: str
    module: nn.Module
    input: SequenceInput
    layer: str
    pool: str
    prepare: Callable[[bytes], tuple[PreparedSequence, ContentInfo]]
    features: Callable[[list[NDArray[Any]]], torch.Tensor]
    example: NDArray[Any]
    pass_length: int
    unit: bool = False
    text: TextTower | None = None
    unread: str = ""
    logit_scale: float | None = None
    origin: str = ""
    release: Callable[[], None] = lambda: None


class SequenceBackbone:
    """A frozen network of texts or sound on a device.

    Args:
        network: already moved to the device.
        space: the space of its vectors.
        device: the device's name, e.g. ``cuda``.

    Attributes:
        space: the space of its vectors.
        device: the device's name.
        module: the library's own network.
        logit_scale: exp of the learned scale of a network with two towers, or None.
        group_size: items that :meth:`encode` is given at once.
        training_items: items in one pass with gradients, at first.
        half_precisions: none: embedding computes in fp32.
        must_be_half: False.
    """

    def __init__(self, network: SequenceNetwork, space: Space, *, device: str) -> None:
        self.space, self.device = space, device
        self.module = network.module
        self.logit_scale: float | None = network.logit_scale
        self.group_size = GROUP_SIZE
        self.half_precisions: tuple[str, ...] = ()
        self.must_be_half = False
        self._network = network
        self._kind = torch.device(device).type
        self.training_items: int | None = TRAINING_ITEMS.get(self._kind, 8)
        self._runner = BatchRunner(
            space.dim, MAX_PASS_ITEMS.get(self._kind, 64), device=device, release_memory=torch.cuda.empty_cache
        )
        self._pass_length = network.pass_length * DEVICE_COST.get(self._kind, 4)
        self._lock = threading.Lock()
        self.start_run()

    @property
    def batch_size(self) -> int:
        """Windows in one pass at most: halved when memory runs out."""
        return self._runner.batch_size

    @property
    def notices(self) -> list[str]:
        """What a person should know about the items since :meth:`start_run`: those that were not read to their end."""
        if not self._cut:
            return []
        are = "is" if self._cut == 1 else "are"
        return [f"{self._cut:,} of {self._prepared:,} {self.space.modality.plural} {are} {self._network.unread}"]

    def start_run(self) -> None:
        """Count the items anew."""
        self._prepared = self._cut = 0

    def prepare(self, data: bytes) -> tuple[PreparedSequence, ContentInfo]:
        """Return one item as the network reads it, and facts about the content; many threads may call it.

        Raises:
            ItemError: if it cannot be used; ``reason`` says why.
        """
        prepared, info = self._network.prepare(data)
        with self._lock:
            self._prepared += 1
            self._cut += prepared.is_cut
        return prepared, info

    def release(self) -> None:
        """End the processes that prepare items, also those that are at work; later items start others."""
        self._network.release()

    def encode(self, items: Sequence[PreparedSequence]) -> NDArray[np.float32]:
        """Embed prepared items; the order does not matter, and neither do the other items.

        Returns:
            float32 ``(B, D)``; rows of length 1 if ``space.unit``.

        Raises:
            BadBackbone: when not even one window fits into the device's memory.
        """
        return self._encode(items, self._network.features, unit=self.space.unit)

    def network_input(self, batch: list[PreparedSequence]) -> list[PreparedSequence]:
        """Return prepared items as :meth:`features` takes them: the network moves them to its device itself."""
        return batch

    def features(self, inputs: Sequence[PreparedSequence]) -> torch.Tensor:
        """Return the features ``(B, D)`` of prepared items: the mean over their windows; keeps gradients."""
        windows = [window for item in inputs for window in item.windows]
        vectors = self._network.features(windows).float()
        if len(windows) == len(inputs):
            return vectors
        if self.space.unit:
            vectors = l2_normalize(vectors)
        lengths = torch.tensor([window.shape[-1] for window in windows], dtype=torch.float32, device=vectors.device)
        owners = [row for row, item in enumerate(inputs) for _ in item.windows]
        shares = torch.zeros((len(inputs), len(windows)), device=vectors.device)
        shares[owners, list(range(len(windows)))] = lengths
        return (shares / shares.sum(dim=1, keepdim=True)) @ vectors

    def example_input(self) -> list[PreparedSequence]:
        """Return two items of one window."""
        return [PreparedSequence((self._network.example,))] * 2

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed queries into this space.

        Args:
            texts: one string per row.

        Returns:
            float32 ``(T, D)``, rows of length 1.

        Raises:
            NoTextTower: when the space has no text tower.
            TextError: when a text has no tokens.
        """
        tower = self._tower()
        return self._encode([tower.prepare(text) for text in texts], tower.features, unit=True)

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return the queries that have more tokens than the network reads, so that their ends are ignored."""
        tower = self._tower()
        return [text for text in texts if tower.prepare(text).is_cut]

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Refuse images.

        Raises:
            BadBackbone: always.
        """
        raise BadBackbone(f"{self.space.architecture} reads {self.space.modality.plural}, not images")

    def _tower(self) -> TextTower:
        if self._network.text is None:
            raise no_text_tower(self.space)
        return self._network.text

    def _encode(
        self,
        items: Sequence[PreparedSequence],
        features: Callable[[list[NDArray[Any]]], torch.Tensor],
        *,
        unit: bool,
    ) -> NDArray[np.float32]:
        """Return one vector per item: the mean of those of its windows, weighted by their lengths."""
        windows = [window for item in items for window in item.windows]
        owners = np.repeat(np.arange(len(items)), [len(item.windows) for item in items])
        lengths = np.array([window.shape[-1] for window in windows], dtype=np.int64)
        vectors = np.empty((len(windows), self.space.dim), np.float32)
        for rows in _passes(lengths, self._pass_length):
            vectors[rows] = self._runner.run(
                [windows[row] for row in rows], lambda batch: self._forward(batch, features)
            )
        if unit:
            vectors = _unit_rows(vectors)
        if len(windows) == len(items):
            return vectors
        means = np.zeros((len(items), self.space.dim), np.float64)
        np.add.at(means, owners, vectors * lengths[:, None].astype(np.float64))
        means /= np.bincount(owners, lengths, minlength=len(items))[:, None]
        return _unit_rows(means.astype(np.float32)) if unit else means.astype(np.float32)

    def _forward(
        self, windows: list[NDArray[Any]], features: Callable[[list[NDArray[Any]]], torch.Tensor]
    ) -> NDArray[np.float32]:
        """Run one pass on the device."""
        with torch.inference_mode(), true_fp32(self._kind), keep_random_state():
            out: NDArray[np.float32] = features(windows).float().cpu().numpy()
        return out


def build_sequence_backbone(network: SequenceNetwork, recipe: Recipe, *, device: str) -> SequenceBackbone:
    """Move a network to its device, measure its dimension with a forward pass, and describe its space."""
    network.module.eval().requires_grad_(requires_grad=False).to(device)
    dim = _measure_dim(network, recipe.backbone)
    space = Space(
        family=Family.TRANSFORMERS,
        architecture=network.architecture,
        weights=network.weights,
        preprocess=None,
        dim=dim,
        unit=network.unit,
        layer=network.layer,
        pool=network.pool,
        args=dict(recipe.args),
        parent=recipe.parent,
        text=network.text is not None,
        input=network.input,
        origin=network.origin,
    )
    return SequenceBackbone(network, space, device=device)


def _measure_dim(network: SequenceNetwork, name: str) -> int:
    """Return D from a forward pass of one window.

    Raises:
        BadBackbone: when the network does not accept what its own tokenizer or feature extractor gives.
    """
    try:
        with torch.inference_mode(), keep_random_state():
            return int(network.features([network.example]).shape[-1])
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, KeyError) as error:
        raise BadBackbone(
            f"{name} does not accept {network.input.modality.plural} as its files say ({one_line(error, 160)}); bring "
            "the tokenizer or the feature extractor that belongs to the network"
        ) from error


def _passes(lengths: NDArray[np.int64], pass_length: int) -> Iterator[list[int]]:
    """Yield the rows of every pass: alike in length, together at most ``pass_length`` long when padded."""
    rows: list[int] = []
    for row in np.argsort(lengths, kind="stable").tolist():
        if rows and (len(rows) + 1) * int(lengths[row]) > pass_length:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to length 1; a zero row remains zero."""
    unit: NDArray[np.float32] = l2_normalize(torch.from_numpy(vectors)).numpy()
    return unit

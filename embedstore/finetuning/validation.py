"""Validation scores of the network in training, computed on the embedding pipeline's own pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.backbones.batch_runner import BatchRunner
from embedstore.classify import metrics
from embedstore.finetuning.dataset import LabeledImageDataset
from embedstore.finetuning.history import FinetuneScore
from embedstore.finetuning.model import FinetuneModel
from embedstore.resources import memory_share

if TYPE_CHECKING:
    from accelerate import Accelerator

PIXEL_CACHE_BYTES = 1 << 29  # bytes of validation pixels kept in memory
METRICS = ("accuracy", "mean_per_class_recall", "log_loss")


class Validator:
    """Score a network on the validation rows.

    Args:
        network: scored with the weights that it has at each call.
        dataset: every row.
        rows: validation rows of the dataset.
        accelerator: of this process.
    """

    def __init__(
        self,
        network: FinetuneModel,
        dataset: LabeledImageDataset,
        rows: NDArray[np.int64],
        accelerator: Accelerator,
    ) -> None:
        self.network, self.dataset, self.rows, self.accelerator = network, dataset, rows, accelerator
        self._cached_pixels: list[torch.Tensor] | None = None
        size = min(network.settings.batch_size, network.backbone.batch_size)
        self._runner = BatchRunner(
            len(network.head.bias), size, device=network.backbone.device, release_memory=torch.cuda.empty_cache
        )

    def score(self) -> FinetuneScore:
        """Return the score of the first process, so that all processes decide the same."""
        score = self._score_here()
        if self.accelerator.num_processes == 1:
            return score
        from accelerate.utils import broadcast_object_list

        shared: FinetuneScore = broadcast_object_list([score])[0]
        return shared

    def _score_here(self) -> FinetuneScore:
        probabilities = torch.softmax(torch.from_numpy(self.predict_logits(self.rows)), 1).numpy()
        if not np.isfinite(probabilities).all():
            return FinetuneScore(0.0, 0.0, math.inf)
        labels = self.dataset.class_indices(self.rows)
        return FinetuneScore(*(metrics.compute_metric(m, labels, probabilities) for m in METRICS))

    def accuracy(self, rows: NDArray[np.int64]) -> float:
        """Return the network's own accuracy on some rows."""
        return float((self.predict_logits(rows).argmax(1) == self.dataset.class_indices(rows)).mean())

    def predict_logits(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 logits ``(n, K)`` of some rows.

        Raises:
            BadBackbone: if not even one image fits into the device's memory.
        """
        self.network.model.eval()
        logits = [self._runner.run(pixels, self._forward) for pixels in self._pixel_batches(rows)]
        return np.concatenate(logits) if logits else np.empty((0, len(self.network.head.bias)), np.float32)

    def _forward(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """Return the logits of one batch."""
        network = self.network
        with torch.inference_mode(), self.accelerator.autocast():
            logits = network.model(network.backbone.normalize(pixels.to(network.device)))
        values: NDArray[np.float32] = logits.float().cpu().numpy()
        return values

    def _pixel_batches(self, rows: NDArray[np.int64]) -> Iterator[torch.Tensor]:
        """Yield evaluation pixels in batches; those of the validation rows are cached if they fit."""
        caching = rows is self.rows
        if caching and self._cached_pixels is not None:
            yield from self._cached_pixels
            return
        size = min(self.network.settings.batch_size, self.network.backbone.batch_size)
        batches: list[torch.Tensor] = []
        total = 0
        for begin in range(0, len(rows), size):
            pixels = torch.from_numpy(self.dataset.evaluation_pixels(rows[begin : begin + size].tolist()))
            total += pixels.numel()
            if caching and total <= memory_share(PIXEL_CACHE_BYTES, 16):
                batches.append(pixels)
            yield pixels
        if caching and total <= memory_share(PIXEL_CACHE_BYTES, 16):
            self._cached_pixels = batches

"""Validation scores of the network in training, computed on the embedding pipeline's own inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.backbones.batch_runner import BatchRunner
from embedstore.classify import metrics
from embedstore.finetuning.history import FinetuneScore
from embedstore.finetuning.labeled import LabeledDataset
from embedstore.finetuning.model import FinetuneModel
from embedstore.resources import memory_share

if TYPE_CHECKING:
    from accelerate import Accelerator

INPUT_CACHE_BYTES = 1 << 29  # bytes of validation inputs kept in memory
METRICS = ("accuracy", "mean_per_class_recall", "log_loss")


class Validator:
    """Score a network on the validation rows.

    Args:
        network: scored with the weights that it has at each call.
        dataset: every row.
        rows: validation rows of the dataset.
        accelerator: the accelerator of this process.
    """

    def __init__(
        self,
        network: FinetuneModel,
        dataset: LabeledDataset,
        rows: NDArray[np.int64],
        accelerator: Accelerator,
    ) -> None:
        self.network, self.dataset, self.rows, self.accelerator = network, dataset, rows, accelerator
        self._cached: list[Any] | None = None
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
            BadBackbone: if not even one item fits into the device's memory.
        """
        self.network.model.eval()
        logits = [self._runner.run(batch, self._forward) for batch in self._batches(rows)]
        return np.concatenate(logits) if logits else np.empty((0, len(self.network.head.bias)), np.float32)

    def _forward(self, batch: Any) -> NDArray[np.float32]:
        """Return the logits of one batch."""
        network = self.network
        with torch.inference_mode(), self.accelerator.autocast():
            logits = network.model(network.backbone.network_input(batch))
        values: NDArray[np.float32] = logits.float().cpu().numpy()
        return values

    def _batches(self, rows: NDArray[np.int64]) -> Iterator[Any]:
        """Yield evaluation inputs in batches; those of the validation rows are cached if they fit."""
        caching = rows is self.rows
        if caching and self._cached is not None:
            yield from self._cached
            return
        size = min(self.network.settings.batch_size, self.network.backbone.batch_size)
        batches: list[Any] = []
        total, limit = 0, memory_share(INPUT_CACHE_BYTES, 16)
        for begin in range(0, len(rows), size):
            batch = self.dataset.evaluation_batch(rows[begin : begin + size].tolist())
            total += self.dataset.batch_bytes(batch)
            if caching and total <= limit:
                batches.append(batch)
            yield batch
        if caching and total <= limit:
            self._cached = batches

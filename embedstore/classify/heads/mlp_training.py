"""Training of the one-hidden-layer head in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.heads.linear.backend import compute_on
from embedstore.classify.heads.optimizer import AdamW

Tensor = Any  # torch.Tensor


@dataclass(frozen=True)
class WeightedBatch:
    """Rows with their classes and weights.

    Attributes:
        X: standardized features float32 ``(N, D)``.
        y: classes int64 ``(N,)``.
        weights: float64 ``(N,)``, at least 0.
    """

    X: FloatArray
    y: IntArray
    weights: FloatArray

    def tensors(self, device: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, classes and weights on a device; the weights have the mean 1."""
        import torch

        scaled = (self.weights / self.weights.mean()).astype(np.float32)
        return tuple(torch.as_tensor(a).to(device) for a in (self.X, self.y, scaled))  # type: ignore[return-value]


@dataclass(frozen=True)
class MLPTraining:
    """Settings of the training; see :class:`~embedstore.classify.heads.mlp.MLPHead`."""

    hidden: int
    dropout: float
    learning_rate: float
    weight_decay: float
    batch_size: int
    max_epochs: int
    patience: int
    seed: int
    device: str

    def run(self, train: WeightedBatch, held_out: WeightedBatch, n_classes: int) -> TrainedMLP:
        """Train until the held-out loss has stopped falling.

        Args:
            train: the rows to train on.
            held_out: the rows that decide when to stop.
            n_classes: the number of classes.

        Raises:
            BadHead: if the rows do not fit into the memory of the named device.
        """
        work = 6.0 * train.X.size * self.hidden  # two products forward and four backward for every weight
        return compute_on(self.device, work, lambda device: self._run_on(device, train, held_out, n_classes))

    def _run_on(self, name: str, train: WeightedBatch, held_out: WeightedBatch, n_classes: int) -> TrainedMLP:
        """Train on one device."""
        import torch

        device = torch.device(name)
        dropout_rng = torch.Generator(device).manual_seed(self.seed)
        rng = torch.Generator().manual_seed(self.seed)
        layers = self._initial_layers(train.X.shape[1], n_classes, rng, device)
        X, y, weights = train.tensors(device)
        X_held_out, y_held_out, held_out_weights = held_out.tensors(device)
        optimizer = AdamW([p.data for p in layers], self.learning_rate, self.weight_decay)
        best, losses = layers, []
        for _ in range(self.max_epochs):
            order: Tensor = torch.randperm(len(X), generator=rng).to(device)
            for rows in order.split(self.batch_size):
                loss = _weighted_loss(self._forward_with_dropout(layers, X[rows], dropout_rng), y[rows], weights[rows])
                optimizer.step(torch.autograd.grad(loss, layers))
            with torch.inference_mode():
                hidden = torch.relu(X_held_out @ layers[0] + layers[1])
                losses.append(float(_weighted_loss(hidden @ layers[2] + layers[3], y_held_out, held_out_weights)))
            epochs_since_best = len(losses) - 1 - int(np.argmin(losses))
            if epochs_since_best == 0:
                best = [p.detach().clone() for p in layers]
            if epochs_since_best >= self.patience:
                break
        return TrainedMLP([p.detach().cpu().numpy() for p in best], losses)

    def _forward_with_dropout(self, layers: list[Tensor], X: Tensor, rng: Any) -> Tensor:
        """Return logits with dropout; kept units are scaled up, so that prediction needs no change."""
        import torch

        hidden = torch.relu(X @ layers[0] + layers[1])
        keep = torch.rand(hidden.shape, generator=rng, device=hidden.device) >= self.dropout
        return (hidden * keep / max(1 - self.dropout, 1e-6)) @ layers[2] + layers[3]

    def _initial_layers(self, dim: int, n_classes: int, rng: Any, device: Any) -> list[Tensor]:
        """Return weights and biases drawn uniformly within 1 / sqrt(inputs), as torch's own layers start."""
        import torch

        layers = []
        for inputs, outputs in ((dim, self.hidden), (self.hidden, n_classes)):
            for shape in ((inputs, outputs), (outputs,)):
                values = (torch.rand(shape, generator=rng) * 2 - 1) / inputs**0.5
                layers.append(values.to(device).requires_grad_())
        return layers


@dataclass(frozen=True)
class TrainedMLP:
    """The layers of the best epoch, and the held-out loss of every epoch.

    Attributes:
        layers: weights ``(D, H)``, biases ``(H,)``, weights ``(H, K)`` and biases ``(K,)``, float32.
        losses: the loss that decides, by epoch.
    """

    layers: list[FloatArray]
    losses: list[float]


def _weighted_loss(logits: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of the rows' cross-entropies times their weights."""
    import torch

    return (torch.nn.functional.cross_entropy(logits, y, reduction="none") * weights).mean()

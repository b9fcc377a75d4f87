"""Training of the one-hidden-layer head in torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.arrays import FloatArray, IntArray
from embedstore.classify.heads.linear.backend import resolve_device
from embedstore.classify.heads.optimizer import AdamW

Tensor = Any  # torch.Tensor


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

    def run(
        self, train: tuple[FloatArray, IntArray], held_out: tuple[FloatArray, IntArray], n_classes: int
    ) -> TrainedMLP:
        """Train until the held-out loss has stopped falling.

        Args:
            train: standardized features float32 ``(N, D)`` and classes int64 ``(N,)``.
            held_out: the same of the rows that decide when to stop.
            n_classes: the number of classes.
        """
        import torch

        device = torch.device(resolve_device(self.device))
        dropout_rng = torch.Generator(device).manual_seed(self.seed)
        rng = torch.Generator().manual_seed(self.seed)
        layers = self._initial_layers(train[0].shape[1], n_classes, rng, device)
        X, y, X_held_out, y_held_out = (torch.as_tensor(a).to(device) for a in (*train, *held_out))
        loss_of = torch.nn.functional.cross_entropy
        optimizer = AdamW([p.data for p in layers], self.learning_rate, self.weight_decay)
        best, losses = layers, []
        for _ in range(self.max_epochs):
            order: Tensor = torch.randperm(len(X), generator=rng).to(device)
            for rows in order.split(self.batch_size):
                loss = loss_of(self._forward_with_dropout(layers, X[rows], dropout_rng), y[rows])
                optimizer.step(torch.autograd.grad(loss, layers))
            with torch.inference_mode():
                hidden = torch.relu(X_held_out @ layers[0] + layers[1])
                losses.append(float(loss_of(hidden @ layers[2] + layers[3], y_held_out)))
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

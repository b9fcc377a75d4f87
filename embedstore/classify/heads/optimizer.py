"""AdamW by hand: torch's own optimiser package imports its compiler, which costs as much as torch itself (3 s)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Tensor = Any  # numpy.ndarray or torch.Tensor

_BETAS, _EPS = (0.9, 0.999), 1e-8  # Kingma and Ba 2015


class AdamW:
    """Loshchilov and Hutter 2019, on numpy arrays or torch tensors alike; parameters change in place.

    Args:
        parameters: what to train. rate: learning rate. decay: weight decay, times the rate.
    """

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, weight_decay: float = 0.01) -> None:
        self.parameters, self.rate, self.decay, self.n_steps = list(parameters), learning_rate, weight_decay, 0
        self.means = [p * 0 for p in self.parameters]
        self.squares = [p * 0 for p in self.parameters]

    def step(self, grads: Sequence[Tensor], learning_rate_scale: float = 1.0) -> None:
        """One step down the gradients, at a share of the learning rate."""
        self.n_steps += 1
        rate = self.rate * learning_rate_scale
        to_mean, to_square = 1 - _BETAS[0] ** self.n_steps, 1 - _BETAS[1] ** self.n_steps
        for i, grad in enumerate(grads):
            self.means[i] += (1 - _BETAS[0]) * (grad - self.means[i])
            self.squares[i] += (1 - _BETAS[1]) * (grad * grad - self.squares[i])
            self.parameters[i] *= 1 - rate * self.decay
            self.parameters[i] -= rate * (self.means[i] / to_mean) / ((self.squares[i] / to_square) ** 0.5 + _EPS)

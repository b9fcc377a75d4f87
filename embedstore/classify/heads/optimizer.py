"""AdamW for NumPy and torch: torch's own package imports its compiler, which takes as long as torch itself (3 s)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Tensor = Any  # numpy.ndarray or torch.Tensor

_BETAS = (0.9, 0.999)  # Kingma and Ba 2015, as is the default of epsilon


class AdamW:
    """AdamW (Loshchilov and Hutter 2019) on NumPy arrays or torch tensors; parameters change in place.

    Args:
        parameters: what to train.
        learning_rate: step size.
        weight_decay: share of each parameter subtracted per step, times the learning rate.
        epsilon: added to the root mean square of the gradients.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        learning_rate: float,
        weight_decay: float = 0.01,
        *,
        epsilon: float = 1e-8,
    ) -> None:
        self.parameters, self.n_steps = list(parameters), 0
        self.learning_rate, self.weight_decay, self.epsilon = learning_rate, weight_decay, epsilon
        self.means = [p * 0 for p in self.parameters]
        self.squares = [p * 0 for p in self.parameters]

    def step(self, grads: Sequence[Tensor], learning_rate_scale: float = 1.0) -> None:
        """Take one step down the gradients, at a share of the learning rate."""
        self.n_steps += 1
        rate = self.learning_rate * learning_rate_scale
        mean_weight, square_weight = 1 - _BETAS[0] ** self.n_steps, 1 - _BETAS[1] ** self.n_steps
        for i, grad in enumerate(grads):
            self.means[i] += (1 - _BETAS[0]) * (grad - self.means[i])
            self.squares[i] += (1 - _BETAS[1]) * (grad * grad - self.squares[i])
            self.parameters[i] *= 1 - rate * self.weight_decay
            self.parameters[i] -= (
                rate * (self.means[i] / mean_weight) / ((self.squares[i] / square_weight) ** 0.5 + self.epsilon)
            )

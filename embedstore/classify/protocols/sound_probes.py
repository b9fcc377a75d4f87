"""The small networks that the benchmarks of sound train on frozen vectors, and how each is searched.

HEAR (Turian et al. 2022, "HEAR: Holistic Evaluation of Audio Representations", section 4, and the published program
hear-eval-kit): a perceptron with one or two hidden layers, eight of sixteen settings drawn at random. SUPERB (Yang et
al. 2021, "SUPERB: Speech processing Universal PERformance Benchmark", sections 3 and 4): one linear map of the mean
over the frames, whose learning rate is searched from 1e-1 to 1e-7.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.arrays import FloatArray, IntArray

HIDDEN = 1024  # units of a hidden layer
HEAR_DROPOUT = 0.1
HEAR_LAYERS, HEAR_RATES = (1, 2), (3.2e-3, 1e-3, 3.2e-4, 1e-4)
INITS = {"xavier_uniform": nn.init.xavier_uniform_, "xavier_normal": nn.init.xavier_normal_}
GRID_POINTS = 8
SUPERB_RATES = tuple(10.0**-n for n in range(1, 8))
SEED = 42  # of both the drawn settings and the training in hear-eval-kit


@dataclass(frozen=True)
class ProbeSettings:
    """The settings of one network that the protocol tries.

    Attributes:
        hidden_layers: layers of 1,024 units before the last, each with batch normalization, dropout and ReLU.
        learning_rate: the learning rate of Adam.
        init: how the weights of layers begin; ``default`` is that of PyTorch.
        batch_size: rows per step.
        check_every: epochs between two looks at the validation rows.
        patience: looks without a better accuracy before training stops.
        max_epochs: most epochs.
    """

    hidden_layers: int
    learning_rate: float
    init: str
    batch_size: int
    check_every: int
    patience: int
    max_epochs: int

    @property
    def dropout(self) -> float:
        """Share of hidden units dropped in training."""
        return HEAR_DROPOUT if self.hidden_layers else 0.0

    def describe(self) -> str:
        """Return what distinguishes it from the others of its protocol."""
        if not self.hidden_layers:
            return f"learning rate {self.learning_rate:g}"
        layers = f"{self.hidden_layers} hidden layer{'s' * (self.hidden_layers > 1)}"
        return f"{layers}, learning rate {self.learning_rate:g}, {self.init}"


@dataclass(frozen=True)
class TrainedProbe:
    """A network after training.

    Attributes:
        settings: how it was trained.
        accuracy: on the validation rows, of its best epoch.
        weights: the weights of each layer ``(inputs, outputs)``, float32; batch normalization is part of them.
        biases: the biases of each layer.
        epochs: the number of epochs that were trained.
    """

    settings: ProbeSettings
    accuracy: float
    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    epochs: int


@dataclass(frozen=True)
class ProbeRows:
    """Rows to train on or to select with.

    Attributes:
        X: float32 ``(N, D)``.
        y: int64 ``(N,)``, numbers of classes; -1 for one that is not trained.
    """

    X: NDArray[np.float32]
    y: IntArray

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both as tensors."""
        return torch.from_numpy(np.ascontiguousarray(self.X, np.float32)), torch.from_numpy(self.y)


def hear_settings() -> list[ProbeSettings]:
    """Return the eight settings of HEAR: the grid in the order of its names, shuffled with seed 42, and cut."""
    grid = [
        ProbeSettings(layers, rate, init, batch_size=1024, check_every=3, patience=20, max_epochs=500)
        for layers, init, rate in product(HEAR_LAYERS, INITS, HEAR_RATES)
    ]
    random.Random(SEED).shuffle(grid)  # noqa: S311 - the draw of the published program
    return grid[:GRID_POINTS]


def superb_settings() -> list[ProbeSettings]:
    """Return one linear probe for each learning rate of SUPERB."""
    return [
        ProbeSettings(0, rate, "default", batch_size=32, check_every=1, patience=20, max_epochs=200)
        for rate in SUPERB_RATES
    ]


def train_probe(settings: ProbeSettings, train: ProbeRows, choice: ProbeRows, classes: int) -> TrainedProbe:
    """Train a network, and keep the epoch with the best accuracy on the rows that select; of equal ones the first.

    Args:
        settings: the settings of the training.
        train: the rows to train on.
        choice: the rows that select.
        classes: number of classes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        network = build_network(settings, train.X.shape[1], classes)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        (X, y), (X_choice, y_choice) = train.tensors(), choice.tensors()
        best, best_state, best_epoch = -1.0, network.state_dict(), 0
        for epoch in range(1, settings.max_epochs + 1):
            _train_epoch(network, optimizer, X, y, settings.batch_size)
            if epoch % settings.check_every:
                continue
            accuracy = _accuracy(network, X_choice, y_choice)
            if accuracy > best:
                best, best_epoch = accuracy, epoch
                best_state = {name: value.clone() for name, value in network.state_dict().items()}
            if epoch - best_epoch >= settings.patience * settings.check_every:
                break
        network.load_state_dict(best_state)
        weights, biases = folded_layers(network)
    return TrainedProbe(settings, best, weights, biases, epoch)


def build_network(settings: ProbeSettings, dim: int, classes: int) -> nn.Sequential:
    """Return the network with its initial weights.

    Args:
        settings: number of hidden layers, and how weights begin.
        dim: the length of the vectors.
        classes: number of classes.
    """
    modules: list[nn.Module] = []
    for number in range(settings.hidden_layers):
        modules += [_linear(settings, HIDDEN if number else dim, HIDDEN, is_first=not number)]
        modules += [nn.BatchNorm1d(HIDDEN), nn.Dropout(settings.dropout), nn.ReLU()]
    modules += [_linear(settings, HIDDEN if modules else dim, classes, is_first=not modules)]
    return nn.Sequential(*modules)


def folded_layers(network: nn.Sequential) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...]]:
    """Return weights ``(inputs, outputs)`` and biases of the layers, each with the batch normalization after it."""
    weights, biases = list[FloatArray](), list[FloatArray]()
    for module in network:
        if isinstance(module, nn.Linear):
            weights.append(module.weight.detach().numpy().T.astype(np.float64))
            biases.append(module.bias.detach().numpy().astype(np.float64))
        elif isinstance(module, nn.BatchNorm1d):
            scale = (module.weight / torch.sqrt(_values(module.running_var) + module.eps)).detach().numpy()
            weights[-1] = weights[-1] * scale
            mean, shift = _values(module.running_mean).numpy(), module.bias.detach().numpy()
            biases[-1] = (biases[-1] - mean) * scale + shift
    return tuple(w.astype(np.float32) for w in weights), tuple(b.astype(np.float32) for b in biases)


def best_probe(probes: Sequence[TrainedProbe]) -> int:
    """Return the place of the best probe; of equal ones the first."""
    return max(range(len(probes)), key=lambda n: (probes[n].accuracy, -n))


def _linear(settings: ProbeSettings, inputs: int, outputs: int, *, is_first: bool) -> nn.Linear:
    """Return a layer; Glorot's initialization has the gain of what was before it."""
    layer = nn.Linear(inputs, outputs)
    if settings.init in INITS:
        INITS[settings.init](layer.weight, gain=nn.init.calculate_gain("linear" if is_first else "relu"))
    return layer


def _train_epoch(network: nn.Module, optimizer: Any, X: torch.Tensor, y: torch.Tensor, batch_size: int) -> None:
    """Train on every row once, in a random order; batch normalization cannot train on one row alone."""
    network.train()
    for rows in torch.split(torch.randperm(len(X)), batch_size):
        if len(rows) < 2:
            continue
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(X[rows]), y[rows])
        torch.autograd.backward(loss)
        optimizer.step()


def _accuracy(network: nn.Module, X: torch.Tensor, y: torch.Tensor) -> float:
    """Return the share of rows whose class has the highest score."""
    network.eval()
    with torch.inference_mode():
        return float((network(X).argmax(dim=1) == y).double().mean())


def _values(buffer: torch.Tensor | None) -> torch.Tensor:
    """Return a buffer of a batch normalization, a zero where it has none."""
    return torch.zeros(1) if buffer is None else buffer

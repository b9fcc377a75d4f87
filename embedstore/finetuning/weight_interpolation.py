"""The weights that a run keeps: the best epoch, or a mixture of it with the old network; validation selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.finetuning.history import FinetuneScore
from embedstore.finetuning.model import FinetuneModel
from embedstore.finetuning.settings import FinetuneSettings, WeightAverage
from embedstore.finetuning.train import TrainedNetwork

ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))  # 0 is the old network, 1 the new (Wortsman et al. 2022)

HeadWeights = tuple[NDArray[np.float32], NDArray[np.float32]]
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SelectedWeights:
    """The weights that a run keeps.

    Attributes:
        weights: tensors of the network that differ from the old ones.
        head: weights ``(K, D)`` and biases ``(K,)``.
        best_epoch: number of the selected epoch.
        alpha: weight of the new network in the mixture, None without one.
        val_score: validation score of these weights.
        mixtures: ``(alpha, score)`` of each mixture that was tried.
    """

    weights: State
    head: HeadWeights
    best_epoch: int
    alpha: float | None
    val_score: FinetuneScore
    mixtures: tuple[tuple[float, FinetuneScore], ...] = ()


def select_weights(trained: TrainedNetwork, alphas: Sequence[float] | None = None) -> SelectedWeights:
    """Return the best epoch, or its best mixture with the old network, by validation; the network then has it.

    Args:
        trained: the network after training.
        alphas: mixtures to try; None takes those of the settings.
    """
    network, history = trained.network, trained.history
    if alphas is None:
        alphas = _alphas(network.settings)
    network.load_trainable_state(trained.best_weights)
    network.merge_adapters()
    new = network.changed_weights()
    best = history.best_epoch
    selected = SelectedWeights(new, network.head.unscaled_weights(), best, None, history.epochs[best].val_score)
    if not alphas or not new:
        return selected
    ends = _Ends(new, trained.initial_head, {n: p.detach().cpu().clone() for n, p in network.head.named_parameters()})
    mixtures: list[tuple[float, FinetuneScore]] = []
    for alpha in alphas:
        _mix(network, ends, alpha)
        mixtures.append((alpha, trained.validator.score()))
    metric = network.settings.selection_metric
    alpha, score = max(mixtures, key=lambda p: (p[1].sort_key(metric), p[0]))
    _mix(network, ends, alpha)
    weights = network.changed_weights() if alpha else {}
    head = network.head.unscaled_weights()
    return replace(selected, weights=weights, head=head, alpha=alpha, val_score=score, mixtures=tuple(mixtures))


def _alphas(settings: FinetuneSettings) -> Sequence[float]:
    """Return the mixtures to try; none where the new weights are kept alone."""
    if settings.wise_alpha is not None:
        return (settings.wise_alpha,)
    return ALPHAS if settings.weight_average is WeightAverage.WISE else ()


@dataclass(frozen=True)
class _Ends:
    """The two ends of the interpolation; the network's old weights are its ``initial_state``."""

    new: State
    old_head: State
    new_head: State


@torch.no_grad()
def _mix(network: FinetuneModel, ends: _Ends, alpha: float) -> None:
    """Set network and head to ``(1 - alpha) old + alpha new``; both ends are exact."""
    state = network.model.module.state_dict()
    head = dict(network.head.named_parameters())
    for name, value in ends.new.items():
        state[name].copy_(_interpolate(network.initial_state[name].cpu(), value, alpha))
    for name, value in ends.new_head.items():
        head[name].copy_(_interpolate(ends.old_head[name], value, alpha))


def _interpolate(old: torch.Tensor, new: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return a point between two tensors; integer counters are taken from one end."""
    if alpha in (0, 1) or not old.is_floating_point():
        return new if alpha else old
    return torch.lerp(old, new, alpha)

"""Which weights a run ends with: the best epoch, or a mixture of it with the old network; validation decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.finetuning.history import FinetuneScore
from embedstore.finetuning.model import FinetuneModel
from embedstore.finetuning.settings import FinetuneSettings, WeightAverage
from embedstore.finetuning.train import Trainer

ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))  # 0 is the old network, 1 the new (Wortsman et al. 2022)


@dataclass(frozen=True)
class SelectedWeights:
    """The weights that a run ends with.

    Attributes:
        weights: tensors of the network that differ from the old ones. head: weights ``(K, D)`` and biases ``(K,)``.
        epoch: the best. alpha: share of the new weights, None without WiSE-FT. val: their score.
        line: ``(alpha, score)`` of each mixture tried.
    """

    weights: dict[str, torch.Tensor]
    head: tuple[NDArray[np.float32], NDArray[np.float32]]
    epoch: int
    alpha: float | None
    val: FinetuneScore
    line: tuple[tuple[float, FinetuneScore], ...] = ()


def select_weights(
    trainer: Trainer, initial_head_state: dict[str, torch.Tensor], alphas: Sequence[float] | None = None
) -> SelectedWeights:
    """The best epoch, or the best mixture of it with the old network; by validation alone.

    Args:
        trainer: after its run. start: the head's parameters before it.
        alphas: mixtures to try; None takes those that the settings name.
    """
    if alphas is None:
        alphas = _alphas(trainer.settings)
    tuning, h = trainer.finetune_model, trainer.history
    tuning.load_trainable_state(trainer.best_state)
    tuning.merge_adapters()
    new = tuning.changed_weights()
    best = SelectedWeights(new, trainer.head.unscaled_weights(), h.best, None, h.epochs[h.best].val)
    if not alphas or not new:
        return best
    new_head = {n: p.detach().cpu().clone() for n, p in trainer.head.named_parameters()}
    line: list[tuple[float, FinetuneScore]] = []
    for alpha in alphas:
        _mix(tuning, new, initial_head_state, new_head, alpha)
        line.append((alpha, trainer.validate()))
    metric = trainer.settings.metric
    alpha, score = max(line, key=lambda p: (p[1].sort_key(metric), p[0]))
    _mix(tuning, new, initial_head_state, new_head, alpha)
    weights = tuning.changed_weights() if alpha else {}
    return replace(
        best, weights=weights, head=trainer.head.unscaled_weights(), alpha=alpha, val=score, line=tuple(line)
    )


def _alphas(settings: FinetuneSettings) -> Sequence[float]:
    """The mixtures that a run may end with; none where the new weights stay alone."""
    if settings.alpha is not None:
        return (settings.alpha,)
    return ALPHAS if settings.average is WeightAverage.WISE else ()


@torch.no_grad()
def _mix(
    tuning: FinetuneModel,
    new: dict[str, torch.Tensor],
    old_head: dict[str, torch.Tensor],
    new_head: dict[str, torch.Tensor],
    alpha: float,
) -> None:
    """Put the mixture ``(1 - alpha) old + alpha new`` into the network and its head; the ends are exact."""
    there = tuning.model.module.state_dict()
    head = dict(tuning.model.head.named_parameters())
    for name, value in new.items():
        there[name].copy_(_between(tuning.initial_state[name].cpu(), value, alpha))
    for name, value in new_head.items():
        head[name].copy_(_between(old_head[name], value, alpha))


def _between(old: torch.Tensor, new: torch.Tensor, alpha: float) -> torch.Tensor:
    """A point on the line; counters are taken whole."""
    if alpha in (0, 1) or not old.is_floating_point():
        return new if alpha else old
    return torch.lerp(old, new, alpha)

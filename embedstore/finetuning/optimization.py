"""One optimizer step in micro-batches, the loss, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from embedstore.devices import describe_memory, is_out_of_memory
from embedstore.errors import FinetuneError
from embedstore.finetuning.accelerator import fixed_seed
from embedstore.finetuning.model import FinetuneModel
from embedstore.finetuning.ranks import Ranks

if TYPE_CHECKING:
    from accelerate import Accelerator

MAX_GRAD_NORM = 1.0  # gradient norm to clip to, as in timm's fine-tuning recipes
EMA_DECAY = 0.99  # of the averaged weights, less in the first steps: min(EMA_DECAY, (1 + t) / (10 + t))
DIVERGENCE_FACTOR = 3.0  # times the loss of guessing: a run does not recover from there at a falling rate
DIVERGENCE_STEPS = 5  # steps whose mean loss must exceed it

BatchMixer = Callable[[Any, torch.Tensor], tuple[Any, torch.Tensor]]


class OptimizerStep:
    """AdamW with a cosine schedule, over as many micro-batches as memory allows.

    Args:
        network: the network to be trained.
        accelerator: the accelerator of this process.
        loss_weights: float32 ``(K,)``, weight of each class in the loss.
        total_steps: steps of the whole run.
    """

    def __init__(
        self, network: FinetuneModel, accelerator: Accelerator, loss_weights: NDArray[np.float32], total_steps: int
    ) -> None:
        from timm.scheduler.cosine_lr import CosineLRScheduler

        settings = network.settings
        self.network, self.settings, self.accelerator = network, settings, accelerator
        self.loss_weights = torch.from_numpy(loss_weights).to(network.device)
        self.micro_batch_size = settings.micro_batch_size or min(
            settings.batch_size, network.backbone.training_items or settings.batch_size
        )
        self._optimizer = torch.optim.AdamW(network.parameter_groups())
        self._parameter_names = [n for g in self._optimizer.param_groups for n in g["names"]]
        warmup = min(total_steps - 1, round(settings.warmup_ratio * total_steps))
        self.schedule = CosineLRScheduler(
            self._optimizer, max(2, total_steps - warmup), warmup_t=warmup, warmup_prefix=True, t_in_epochs=False
        )
        # mixed precision only: gradients are summed below, not by a wrapper that exchanges them in every backward pass
        self._model = accelerator.prepare_model(network.model, device_placement=False, evaluation_mode=True)
        self._accelerated = accelerator.prepare_optimizer(self._optimizer, device_placement=False)
        self._ranks = Ranks(accelerator, network.device)
        self._ranks.copy_from_first(network.trainable_state().values())

    @property
    def learning_rate(self) -> float:
        """Current learning rate of the first parameter group."""
        return float(self._optimizer.param_groups[0]["lr"])

    def run(self, batch: Any, labels: torch.Tensor, mix: BatchMixer, seed: tuple[int, ...]) -> float:
        """Update the weights on one batch, and return its loss, averaged over the processes.

        Args:
            batch: the B items of the loader.
            labels: class numbers ``(B,)``.
            mix: mixes the batch.
            seed: the random seed of this step.

        Raises:
            FinetuneError: if not even one item fits into memory.
        """
        while True:
            loss = self._accumulate_or_none(batch, labels, mix, seed)
            count = len(batch)
            failed, total, items = self._ranks.sum([loss is None, count * (loss or 0.0), count])
            if not failed:
                break
            self._halve_micro_batch(math.ceil(items / self._ranks.count))
        self._update(count / items, is_finite=math.isfinite(total))
        return total / items

    def _accumulate_or_none(
        self, batch: Any, labels: torch.Tensor, mix: BatchMixer, seed: tuple[int, ...]
    ) -> float | None:
        """Return the loss of this process and leave the gradients, or return None if memory ran out."""
        device = self.network.device
        try:
            with fixed_seed(*seed, device=device):
                return self._accumulate(batch, labels.to(device), mix)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _accumulate(self, batch: Any, labels: torch.Tensor, mix: BatchMixer) -> float:
        """Accumulate gradients over the micro-batches and return the loss; the host waits for the device once."""
        self._accelerated.zero_grad()
        inputs, targets = mix(self.network.backbone.network_input(batch), labels)
        total, size = torch.zeros((), device=labels.device), self.micro_batch_size
        for begin in range(0, len(inputs), size):
            part = slice(begin, begin + size)
            logits = self._model(inputs[part])
            loss = weighted_loss(logits, targets[part], self.loss_weights, self.settings.label_smoothing)
            loss = loss * (len(targets[part]) / len(inputs))
            self.accelerator.backward(loss)
            total += loss.detach()
        return float(total)

    def _halve_micro_batch(self, items: int) -> None:
        """Halve the micro-batch, in every process at once: one of them ran out of memory.

        Args:
            items: most items that a process has.

        Raises:
            FinetuneError: if it is one item already.
        """
        device = self.network.device
        if self.micro_batch_size == 1:
            memory = f"the memory of {device}{describe_memory(str(device))}"
            raise FinetuneError(
                f"not even one item fits into {memory}; train fewer layers (layers last-1) or use layers lora"
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()
        self.micro_batch_size = max(1, min(self.micro_batch_size, items) // 2)

    def _update(self, share: float, *, is_finite: bool) -> None:
        """Update the weights by the gradients of all processes, unless the loss is not finite.

        Args:
            share: the share of the items of the batch that this process has.
            is_finite: the loss of all processes together is.
        """
        parameters = list(self.network.trainable_parameters().values())
        self._ranks.sum_gradients(parameters, share)
        self._ranks.copy_from_first(self.network.batchnorm_buffers().values())
        if is_finite:
            self.accelerator.clip_grad_norm_(parameters, MAX_GRAD_NORM)
            self._accelerated.step()

    def state(self) -> dict[str, torch.Tensor]:
        """Return the optimizer state on the CPU by ``parameter/key``."""
        states = self._optimizer.state_dict()["state"]
        return {
            f"{self._parameter_names[i]}/{key}": value.detach().cpu()
            for i, values in states.items()
            for key, value in values.items()
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in state.items():
            parameter, _, key = name.rpartition("/")
            states.setdefault(self._parameter_names.index(parameter), {})[key] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": states})


class EmaState:
    """The exponential moving average of the trained weights.

    Args:
        network: whose weights are averaged, from now on.
    """

    def __init__(self, network: FinetuneModel) -> None:
        self.network = network
        self.weights = {n: t.clone() for n, t in network.trainable_state().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights of a step, counted from 0."""
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        for name, value in self.network.trainable_state().items():
            self.weights[name].lerp_(value, 1 - decay)


def class_weights(labels: NDArray[np.int64], class_count: int) -> NDArray[np.float32]:
    """Return float32 weights ``(K,)`` in inverse proportion to the class frequency; their mean over items is 1."""
    counts = np.bincount(labels, minlength=class_count)
    return (len(labels) / (class_count * np.maximum(counts, 1))).astype(np.float32)


def weighted_loss(
    logits: torch.Tensor, targets: torch.Tensor, loss_weights: torch.Tensor, label_smoothing: float
) -> torch.Tensor:
    """Return the mean cross-entropy, each item weighted by its class.

    Args:
        logits: ``(B, K)``.
        targets: class probabilities ``(B, K)``.
        loss_weights: ``(K,)``.
        label_smoothing: 0 to 1.
    """
    losses = nn.functional.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
    return (losses * (targets @ loss_weights)).mean()


def has_diverged(losses: Sequence[float], first_loss: float, class_count: int) -> bool:
    """Return whether the last loss is not finite, or the last steps are far worse than guessing and the first step.

    Args:
        losses: the losses of the steps of this epoch.
        first_loss: the loss of the first step of the run, whose learning rate was 0.
        class_count: number of classes.
    """
    recent = losses[-DIVERGENCE_STEPS:]
    limit = DIVERGENCE_FACTOR * max(math.log(class_count), first_loss)
    return not math.isfinite(losses[-1]) or (len(recent) == DIVERGENCE_STEPS and float(np.mean(recent)) > limit)

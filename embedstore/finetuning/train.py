"""The training loop: augmented epochs, a validation score and a resumable state after each of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.finetuning import resume_state
from embedstore.finetuning.accelerator import fixed_seed
from embedstore.finetuning.augment import build_batch_mixer
from embedstore.finetuning.history import NO_SCORE, Epoch, FinetuneScore, TrainingHistory, TrainingStep, next_history
from embedstore.finetuning.labeled import Batches, EpochBatchSampler, LabeledDataset, create_loader
from embedstore.finetuning.model import FinetuneModel
from embedstore.finetuning.optimization import EmaState, OptimizerStep, class_weights, has_diverged
from embedstore.finetuning.settings import WeightAverage
from embedstore.finetuning.validation import Validator

if TYPE_CHECKING:
    from accelerate import Accelerator

TrainingProgress = Callable[[TrainingStep | Epoch], None]


@dataclass(frozen=True)
class TrainingInputs:
    """What one training reads and where it keeps its state.

    Attributes:
        network: the network to be trained.
        dataset: every row.
        train_rows: rows to train on.
        val_rows: rows that select the epoch.
        accelerator: the accelerator of this process.
        folder: the folder of the resumable state, None to keep none.
        progress: called with every :class:`TrainingStep` and :class:`Epoch`.
        final_epoch: last epoch, chosen beforehand; nothing is validated then. None lets validation select.
    """

    network: FinetuneModel
    dataset: LabeledDataset
    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    accelerator: Accelerator
    folder: Path | None = None
    progress: TrainingProgress = lambda _: None
    final_epoch: int | None = None


@dataclass(frozen=True)
class TrainedNetwork:
    """A network after training, and what selects among its weights.

    Attributes:
        network: the network with the weights of the last epoch.
        history: the history of the epochs.
        best_weights: candidate weights of the best epoch, on the CPU.
        initial_head: parameters of the head before training, on the CPU.
        validator: scores the network as it is.
    """

    network: FinetuneModel
    history: TrainingHistory
    best_weights: dict[str, torch.Tensor]
    initial_head: dict[str, torch.Tensor]
    validator: Validator


def train(inputs: TrainingInputs) -> TrainedNetwork:
    """Train to the end, from the stored state where there is one.

    Args:
        inputs: the network, the rows and the place of the state.

    Raises:
        StoreIOError: if the state cannot be written.
        StoreDamaged: if the stored state differs from what was written.
        FinetuneError: if not even one item fits into memory.
    """
    initial_head = {n: p.detach().cpu().clone() for n, p in inputs.network.head.named_parameters()}
    trainer = Trainer(inputs)
    trainer.run()
    return TrainedNetwork(inputs.network, trainer.history, trainer.best_weights, initial_head, trainer.validator)


class Trainer:
    """The state of one training: optimizer, average, history and best weights.

    Args:
        inputs: the network, the rows and the place of the state.
    """

    def __init__(self, inputs: TrainingInputs) -> None:
        network, settings, accelerator = inputs.network, inputs.network.settings, inputs.accelerator
        self.inputs, self.network, self.settings = inputs, network, settings
        self.validator = Validator(network, inputs.dataset, inputs.val_rows, accelerator)
        self.sampler = EpochBatchSampler(
            inputs.train_rows,
            settings.batch_size,
            settings.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        self.class_count = len(network.head.bias)
        labels = inputs.dataset.class_indices(inputs.train_rows)
        weights = class_weights(labels, self.class_count)
        self.optimizer = OptimizerStep(
            network,
            accelerator,
            weights if settings.class_weights else np.ones_like(weights),
            max(1, len(self.sampler) * settings.epochs),
        )
        self.average = EmaState(network) if settings.weight_average is WeightAverage.EMA else None
        self.history = TrainingHistory(
            micro_batch_size=self.optimizer.micro_batch_size, threads=torch.get_num_threads()
        )
        self.best_weights = network.copy_trainable_state()

    def run(self) -> None:
        """Run the epochs that are left."""
        resumed = self._resume()
        self.inputs.accelerator.wait_for_everyone()  # the first process replaces the state that the others have read
        if not resumed:
            self._end_epoch(Epoch(0, None, 0.0, self._validate(), 0.0))
        batches = create_loader(self.inputs.dataset, self.sampler, self.settings.num_workers)
        while not self.history.finished:
            self._run_epoch(batches, self.history.epochs[-1].number + 1)

    def _run_epoch(self, batches: Batches, number: int) -> None:
        """Train for one epoch and score its candidate weights; stop the run if the loss diverges."""
        begin = time.perf_counter()
        self.sampler.epoch = number
        with fixed_seed(self.settings.seed, number, device=self.network.device):
            losses = self._train_epoch(batches, number)
        if self._has_diverged(losses):
            reason = f"diverged in epoch {number}: the training loss reached {losses[-1]:.3g}"
            micro = self.optimizer.micro_batch_size
            self.history = replace(self.history, stop_reason=reason, finished=True, micro_batch_size=micro)
            self._save()
            return
        rate, score = self.optimizer.learning_rate, self._score_candidate()
        self._end_epoch(Epoch(number, float(np.mean(losses)), rate, score, time.perf_counter() - begin))

    def _train_epoch(self, batches: Batches, number: int) -> list[float]:
        """Return the losses of one pass, which ends early if they diverge."""
        self.network.set_train_mode()
        mix = build_batch_mixer(self.settings.augment, self.class_count)
        losses: list[float] = []
        steps = len(self.sampler)
        for i, (batch, labels) in enumerate(batches):
            losses.append(self.optimizer.run(batch, labels, mix, (self.settings.seed, number, i)))
            if self.history.first_loss is None:
                self.history = replace(self.history, first_loss=losses[0])
            if self._has_diverged(losses):
                break
            done = (number - 1) * steps + i
            self.optimizer.schedule.step_update(done + 1)
            if self.average:
                self.average.update(done)
            self.inputs.progress(TrainingStep(number, i + 1, steps, losses[-1]))
        return losses

    def _has_diverged(self, losses: list[float]) -> bool:
        return has_diverged(losses, self.history.first_loss or 0.0, self.class_count)

    def _validate(self) -> FinetuneScore:
        return NO_SCORE if self.inputs.final_epoch is not None else self.validator.score()

    def _score_candidate(self) -> FinetuneScore:
        """Return the score of this epoch's candidate: the weights, or their moving average."""
        if not self.average:
            return self._validate()
        current = self.network.copy_trainable_state()
        self.network.load_trainable_state(self.average.weights)
        score = self._validate()
        self.network.load_trainable_state(current)
        return score

    def _end_epoch(self, epoch: Epoch) -> None:
        """Add an epoch to the history, keep its weights if it is the best, and save the state."""
        history = replace(self.history, micro_batch_size=self.optimizer.micro_batch_size)
        self.history = next_history(history, epoch, self.settings, self.inputs.final_epoch)
        if self.history.best_epoch == epoch.number and math.isfinite(epoch.val_score.loss):
            candidate = self.average.weights if self.average else self.network.trainable_state()
            self.best_weights = {n: t.to("cpu", copy=True) for n, t in candidate.items()}
        self._save()
        self.inputs.progress(epoch)

    def _save(self) -> None:
        """Save everything that the next epoch starts from, in the first process."""
        if self.inputs.folder is None or not self.inputs.accelerator.is_main_process:
            return
        weights = self.network.copy_trainable_state()
        average = {n: t.cpu() for n, t in self.average.weights.items()} if self.average else {}
        state = resume_state.ResumeState(self.history, weights, average, self.optimizer.state(), self.best_weights)
        resume_state.save(self.inputs.folder, state)

    def _resume(self) -> bool:
        """Restore the stored state; return False where there is none."""
        state = resume_state.load(self.inputs.folder) if self.inputs.folder else None
        if state is None:
            return False
        self.network.load_trainable_state(state.weights)
        if self.average:
            self.average.weights = {n: t.to(self.network.device) for n, t in state.average.items()}
        self.best_weights, self.history = state.best_weights, state.history
        self.optimizer.micro_batch_size = state.history.micro_batch_size
        self.optimizer.load_state(state.optimizer)
        epoch = state.history.epochs[-1].number
        if epoch:
            self.optimizer.schedule.step_update(epoch * len(self.sampler))
        return True

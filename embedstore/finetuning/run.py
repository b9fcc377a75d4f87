"""One fine-tuning run: labeled features and a freshly loaded backbone in, the weights of a tuned network out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.backbones.trainable import TrainableBackbone
from embedstore.classify.data.features import Features
from embedstore.errors import LabelError
from embedstore.finetuning import task
from embedstore.finetuning.accelerator import fixed_threads
from embedstore.finetuning.history import TrainingStep, TrainingSummary
from embedstore.finetuning.labeled import LabeledDataset
from embedstore.finetuning.model import FinetuneModel
from embedstore.finetuning.resume_state import stored_threads
from embedstore.finetuning.settings import FinetuneSettings
from embedstore.finetuning.task import FinetuneSplit
from embedstore.finetuning.train import TrainedNetwork, TrainingInputs, TrainingProgress, train
from embedstore.finetuning.weight_interpolation import SelectedWeights, select_weights

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class FinetuneJob:
    """What a run learns from, and with which settings.

    Attributes:
        data: labeled features of the parent space.
        split: rows of the features for training, validation and testing.
        files: path and content hash by item.
        settings: the settings of the run.
        folder: the folder of the resumable state, None to keep none.
    """

    data: Features
    split: FinetuneSplit
    files: Mapping[int, tuple[str, str]]
    settings: FinetuneSettings
    folder: Path | None = None

    @property
    def classes(self) -> list[str]:
        """Class names of the training rows, sorted."""
        return sorted(set(self.data.y[self.split.train].astype(str).tolist()))

    def dataset(self, backbone: TrainableBackbone) -> LabeledDataset:
        """Return every row as this backbone reads it.

        Raises:
            FinetuneError: if the settings augment items that are no images.
        """
        return task.make_dataset(self.data, self.files, self.classes, backbone, self.settings)


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a run.

    Attributes:
        weights: the weights of the whole tuned network, by name, on the CPU.
        head: weights ``(K, D)`` and biases ``(K,)`` for the raw features.
        summary: facts about the run.
        held_out_accuracy: accuracy of network and head on the held-out rows, None if it was not requested.
    """

    weights: dict[str, torch.Tensor]
    head: tuple[NDArray[np.float32], NDArray[np.float32]]
    summary: TrainingSummary
    held_out_accuracy: float | None = None


def run_job(
    job: FinetuneJob,
    load_backbone: Callable[[], TrainableBackbone],
    accelerator: Accelerator,
    progress: TrainingProgress = lambda _: None,
    *,
    score_held_out: bool = False,
) -> TrainingResult:
    """Train, select among the weights by validation, and train again on all labels if ``refit`` is set.

    Args:
        job: what to learn.
        load_backbone: returns a freshly loaded backbone at each call; its network is changed.
        accelerator: the accelerator of this process.
        progress: called with every step and epoch.
        score_held_out: score the result on the held-out rows.

    Raises:
        LabelError: if no training or validation item can be read, or the labels do not support the head.
        FinetuneError: if the network has no such layers, or one item does not fit into memory.
        NoTextTower: if ``head_init`` is text and the network has no text encoder.
        StoreIOError: if the state cannot be written.
        StoreDamaged: if a stored state differs from what was written.
    """
    begin = time.perf_counter()
    with fixed_threads(stored_threads(job.folder) if job.folder else 0):
        inputs = _training_inputs(job, load_backbone(), accelerator, progress)
        outcome = _train_and_select(job, inputs, load_backbone)
        seconds = time.perf_counter() - begin
        network, selected = outcome.final.network, outcome.selected
        weights = {n: t.cpu() for n, t in (network.initial_state | selected.weights).items()}
        accuracy = outcome.final.validator.accuracy(job.split.held_out) if score_held_out else None
    return TrainingResult(weights, selected.head, _summary(job, inputs, outcome, seconds), accuracy)


@dataclass(frozen=True)
class _Outcome:
    """The training that selected the epoch, the training whose weights are kept (a refit is another), the weights."""

    first: TrainedNetwork
    final: TrainedNetwork
    selected: SelectedWeights
    refit_rows: int = 0


def _training_inputs(
    job: FinetuneJob, backbone: TrainableBackbone, accelerator: Accelerator, progress: TrainingProgress
) -> TrainingInputs:
    """Build the network and the dataset, and leave out the rows whose item cannot be read."""
    dataset = job.dataset(backbone)
    train_rows, val_rows = (task.readable_rows(dataset, rows) for rows in (job.split.train, job.split.val))
    if not len(train_rows) or not len(val_rows):
        raise LabelError("none of the training or validation items can be read any more; embed the source again")
    network = _build_network(job, backbone, train_rows)
    return TrainingInputs(network, dataset, train_rows, val_rows, accelerator, job.folder, progress)


def _train_and_select(
    job: FinetuneJob, inputs: TrainingInputs, load_backbone: Callable[[], TrainableBackbone]
) -> _Outcome:
    """Train, select the weights, and with ``refit`` train again on all labels up to the selected epoch."""
    first = train(inputs)
    selected = select_weights(first)
    if not job.settings.refit or not selected.best_epoch:
        return _Outcome(first, first, selected)
    rows = np.sort(np.concatenate([inputs.train_rows, inputs.val_rows]))
    network = _build_network(job, load_backbone(), rows)
    final, refitted = _refit(replace(inputs, network=network, train_rows=rows), selected)
    return _Outcome(first, final, refitted, len(rows))


def _summary(job: FinetuneJob, inputs: TrainingInputs, outcome: _Outcome, seconds: float) -> TrainingSummary:
    """Collect the facts about a run."""
    trainings = [outcome.first, outcome.final] if outcome.refit_rows else [outcome.first]
    train_images, val_images = len(inputs.train_rows), len(inputs.val_rows)
    network, selected = inputs.network, outcome.selected
    return TrainingSummary(
        classes=tuple(job.classes),
        best_epoch=selected.best_epoch,
        wise_alpha=selected.alpha,
        val_score=selected.val_score,
        mixtures=selected.mixtures,
        history=outcome.first.history,
        train_images=train_images,
        val_images=val_images,
        unreadable=len(job.split.train) + len(job.split.val) - train_images - val_images,
        refit_rows=outcome.refit_rows,
        blocks=len(network.blocks),
        tuned_blocks=len(network.trainable_blocks),
        trainable_parameters=network.trainable_count,
        learning_rate=network.learning_rate,
        seconds=max(seconds, sum(e.seconds for t in trainings for e in t.history.epochs)),
    )


def _build_network(job: FinetuneJob, backbone: TrainableBackbone, rows: NDArray[np.int64]) -> FinetuneModel:
    """Return the network to train, with a head initialized from the training rows."""
    head = task.initial_head(job.data, rows, job.classes, job.settings, backbone)
    return FinetuneModel(backbone, head, job.settings)


def _refit(inputs: TrainingInputs, selected: SelectedWeights) -> tuple[TrainedNetwork, SelectedWeights]:
    """Repeat the training on more rows, up to the selected epoch and mixture, whose validation score is kept."""

    def report_steps(event: object) -> None:
        if isinstance(event, TrainingStep):  # epochs of a refit have no score to report
            inputs.progress(event)

    folder = inputs.folder and inputs.folder / "again"
    trained = train(replace(inputs, folder=folder, progress=report_steps, final_epoch=selected.best_epoch))
    refitted = select_weights(trained, alphas=() if selected.alpha is None else (selected.alpha,))
    return trained, replace(
        refitted,
        best_epoch=selected.best_epoch,
        val_score=selected.val_score,
        mixtures=selected.mixtures,
    )

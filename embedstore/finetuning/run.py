"""From labelled features and a freshly loaded backbone to a tuned network, in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from embedstore.backbones.base import Backbone
from embedstore.classify.data.features import Features
from embedstore.errors import LabelError
from embedstore.finetuning import augment, task
from embedstore.finetuning.dataset import LabeledImageDataset
from embedstore.finetuning.history import Epoch, TrainingHistory, TrainingStep
from embedstore.finetuning.model import FinetuneModel
from embedstore.finetuning.settings import FinetuneSettings
from embedstore.finetuning.task import FinetuneSplit
from embedstore.finetuning.train import Trainer
from embedstore.finetuning.weight_interpolation import SelectedWeights, select_weights
from embedstore.storage import durable_files

if TYPE_CHECKING:
    from accelerate import Accelerator

SHEET_IMAGES, SHEET_VARIANTS = 6, 7  # images of the contact sheet, and how often each is varied


@dataclass(frozen=True)
class FinetuneJob:
    """What a run needs beside its settings.

    Attributes:
        data: labelled features of the parent space. parts: its rows. files: path and content digest by item.
        settings: of the run. folder: of its state, None to keep none.
    """

    data: Features
    split: FinetuneSplit
    files: Mapping[int, tuple[str, str]]
    settings: FinetuneSettings
    folder: Path | None = None

    @property
    def classes(self) -> list[str]:
        """Those of the training rows, in order."""
        return sorted(set(self.data.y[self.split.train].astype(str).tolist()))


@dataclass(frozen=True)
class TrainingResult:
    """What came of a run.

    Attributes:
        chosen: the weights. history: of the epochs. classes: in the order of the head.
        train, val: rows used. unread: rows left out because their file is gone or changed.
        blocks: of the network; tuned: how many of them learned. parameters: numbers that learned.
        rate: of the last block. seconds: of the work, epochs before a kill included.
        trainer: for asking the network about further rows.
        refitted: rows that the kept weights learned from when they were trained once more; 0 where they were not.
    """

    selection: SelectedWeights
    history: TrainingHistory
    classes: tuple[str, ...]
    train: int
    val: int
    unread: int
    blocks: int
    tuned: int
    parameters: int
    rate: float
    seconds: float
    trainer: Trainer
    refitted: int = 0

    def accuracy(self, rows: NDArray[np.int64]) -> float:
        """Share of some rows that the tuned network with its own head gets right; its own kind of judging."""
        said = self.trainer.predict_logits(rows).argmax(1)
        y = np.array([self.trainer.dataset.samples[r].class_index for r in rows.tolist()])
        return float((said == y).mean())


def run_job(
    job: FinetuneJob,
    load_backbone: Callable[[], Backbone],
    accelerator: Accelerator,
    progress: Callable[[TrainingStep | Epoch], None] = lambda _: None,
) -> TrainingResult:
    """Train, choose among the weights by validation, train once more where that is asked for.

    Args:
        job: what to learn. load: the backbone, afresh at each call; its network is changed. engine: accelerate's.
        tell: progress.

    Raises:
        LabelError, FinetuneError, NoTextTower, StoreIOError: as their names say.
    """
    begin = time.perf_counter()
    backbone = load_backbone()
    made = job_dataset(job, backbone)
    train, val = (task.readable_rows(made, rows) for rows in (job.split.train, job.split.val))
    if not len(train) or not len(val):
        raise LabelError("none of the training or validation images can be read any more; embed the source again")
    trainer, start = _prepared(job, backbone, made, (train, val), accelerator, job.folder, progress)
    tuning = trainer.finetune_model
    count, rate, history = (
        sum(p.numel() for p in tuning.trainable_parameters().values()),
        tuning.learning_rate,
        trainer.run(),
    )
    chosen = select_weights(trainer, start)
    both = np.sort(np.concatenate([train, val])) if job.settings.refit and chosen.epoch else train[:0]
    if len(both):
        trainer, chosen = _again(job, load_backbone(), made, (both, val), accelerator, chosen, progress)
    epochs = [*history.epochs, *(trainer.history.epochs if len(both) else ())]
    return TrainingResult(
        selection=chosen,
        history=history,
        classes=tuple(job.classes),
        train=len(train),
        val=len(val),
        unread=len(job.split.train) + len(job.split.val) - len(train) - len(val),
        blocks=len(tuning.blocks),
        tuned=len(tuning.trainable_blocks),
        parameters=count,
        rate=rate,
        seconds=max(time.perf_counter() - begin, sum(e.seconds for e in epochs)),
        trainer=trainer,
        refitted=len(both),
    )


def _prepared(
    job: FinetuneJob,
    backbone: Backbone,
    made: LabeledImageDataset,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    engine: Accelerator,
    folder: Path | None,
    tell: Callable[[TrainingStep | Epoch], None],
    *,
    until: int | None = None,
) -> tuple[Trainer, dict[str, torch.Tensor]]:
    """A trainer before its first step, and its head's parameters then."""
    head = task.initial_head(job.data, rows[0], job.classes, job.settings, backbone)
    start = {n: p.detach().clone() for n, p in head.named_parameters()}
    return Trainer(
        FinetuneModel(backbone, head, job.settings), made, rows, engine, folder, tell, final_epoch=until
    ), start


def _again(
    job: FinetuneJob,
    backbone: Backbone,
    made: LabeledImageDataset,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    engine: Accelerator,
    chosen: SelectedWeights,
    tell: Callable[[TrainingStep | Epoch], None],
) -> tuple[Trainer, SelectedWeights]:
    """The same training on more rows, up to the chosen epoch and mixture; its score stays that of the choice."""
    folder = job.folder and job.folder / "again"
    steps = _steps(tell)
    trainer, start = _prepared(job, backbone, made, rows, engine, folder, steps, until=chosen.epoch)
    trainer.run()
    found = select_weights(trainer, start, alphas=() if chosen.alpha is None else (chosen.alpha,))
    return trainer, replace(found, epoch=chosen.epoch, val=chosen.val, line=chosen.line)


def _steps(tell: Callable[[TrainingStep | Epoch], None]) -> Callable[[TrainingStep | Epoch], None]:
    """Passes steps on and no epochs: nothing judges them."""
    return lambda at: tell(at) if isinstance(at, TrainingStep) else None


def job_dataset(job: FinetuneJob, backbone: Backbone) -> LabeledImageDataset:
    """The rows as images for this backbone."""
    p = backbone.space.preprocess
    assert p is not None  # noqa: S101 - a backbone's space has preprocessing
    return task.make_dataset(job.data, job.files, job.classes, p, job.settings)


def save_augmentation_sheet(job: FinetuneJob, dataset: LabeledImageDataset, path: Path) -> None:
    """Show how training images are varied, before any training."""
    train = job.split.train
    rows = [int(r) for r in train[np.linspace(0, len(train) - 1, min(SHEET_IMAGES, len(train))).astype(int)]]
    shown = []
    for row in rows:
        if dataset.is_readable(row):
            plain = _picture(torch.from_numpy(dataset.evaluation_pixels([row])[0]))
            varied = [_picture(dataset[(row, 1000 * (row + job.settings.seed) + n)][0]) for n in range(SHEET_VARIANTS)]
            shown.append((str(job.data.y[row]), plain, varied))
    if shown:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_files.atomic_write(path) as file:
            augment.contact_sheet(shown).save(file, "PNG")


def _picture(pixels: torch.Tensor) -> Image.Image:
    """uint8 ``(3, H, W)`` as an image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())

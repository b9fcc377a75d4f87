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
from embedstore.finetuning.dataset import Pictures
from embedstore.finetuning.history import Epoch, History, Step
from embedstore.finetuning.model import Tuning
from embedstore.finetuning.settings import Settings
from embedstore.finetuning.task import Parts
from embedstore.finetuning.train import Trainer
from embedstore.finetuning.weight_interpolation import Chosen, choose

if TYPE_CHECKING:
    from accelerate import Accelerator

SHOWN, VARIANTS = 6, 7  # images of the contact sheet, and how often each is varied


@dataclass(frozen=True)
class Job:
    """What a run needs beside its settings.

    Attributes:
        data: labelled features of the parent space. parts: its rows. files: path and content digest by item.
        settings: of the run. folder: of its state, None to keep none.
    """

    data: Features
    parts: Parts
    files: Mapping[int, tuple[str, str]]
    settings: Settings
    folder: Path | None = None

    @property
    def classes(self) -> list[str]:
        """Those of the training rows, in order."""
        return sorted(set(self.data.y[self.parts.train].astype(str).tolist()))


@dataclass(frozen=True)
class Trained:
    """What came of a run.

    Attributes:
        chosen: the weights. history: of the epochs. classes: in the order of the head.
        train, val: rows used. unread: rows left out because their file is gone or changed.
        blocks: of the network; tuned: how many of them learned. parameters: numbers that learned.
        rate: of the last block. seconds: of the work, epochs before a kill included.
        trainer: for asking the network about further rows.
        refitted: rows that the kept weights learned from when they were trained once more; 0 where they were not.
    """

    chosen: Chosen
    history: History
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
        said = self.trainer.logits(rows).argmax(1)
        y = np.array([self.trainer.pictures.samples[r].y for r in rows.tolist()])
        return float((said == y).mean())


def run(
    job: Job, load: Callable[[], Backbone], engine: Accelerator, tell: Callable[[Step | Epoch], None] = lambda _: None
) -> Trained:
    """Train, choose among the weights by validation, train once more where that is asked for.

    Args:
        job: what to learn. load: the backbone, afresh at each call; its network is changed. engine: accelerate's.
        tell: progress.

    Raises:
        LabelError, BadTuning, NoTextTower, StoreFailed: as their names say.
    """
    begin = time.perf_counter()
    backbone = load()
    made = images_of(job, backbone)
    train, val = (task.readable(made, rows) for rows in (job.parts.train, job.parts.val))
    if not len(train) or not len(val):
        raise LabelError("none of the training or validation images can be read any more; embed the source again")
    trainer, start = _prepared(job, backbone, made, (train, val), engine, job.folder, tell)
    tuning = trainer.tuning
    count, rate, history = sum(p.numel() for p in tuning.trained().values()), tuning.rate, trainer.run()
    chosen = choose(trainer, start)
    both = np.sort(np.concatenate([train, val])) if job.settings.refit and chosen.epoch else train[:0]
    if len(both):
        trainer, chosen = _again(job, load(), made, (both, val), engine, chosen, tell)
    epochs = [*history.epochs, *(trainer.history.epochs if len(both) else ())]
    return Trained(
        chosen=chosen,
        history=history,
        classes=tuple(job.classes),
        train=len(train),
        val=len(val),
        unread=len(job.parts.train) + len(job.parts.val) - len(train) - len(val),
        blocks=len(tuning.blocks),
        tuned=len(tuning.tuned),
        parameters=count,
        rate=rate,
        seconds=max(time.perf_counter() - begin, sum(e.seconds for e in epochs)),
        trainer=trainer,
        refitted=len(both),
    )


def _prepared(
    job: Job,
    backbone: Backbone,
    made: Pictures,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    engine: Accelerator,
    folder: Path | None,
    tell: Callable[[Step | Epoch], None],
    *,
    until: int | None = None,
) -> tuple[Trainer, dict[str, torch.Tensor]]:
    """A trainer before its first step, and its head's parameters then."""
    head = task.first_head(job.data, rows[0], job.classes, job.settings, backbone)
    start = {n: p.detach().clone() for n, p in head.named_parameters()}
    return Trainer(Tuning(backbone, head, job.settings), made, rows, engine, folder, tell, until=until), start


def _again(
    job: Job,
    backbone: Backbone,
    made: Pictures,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    engine: Accelerator,
    chosen: Chosen,
    tell: Callable[[Step | Epoch], None],
) -> tuple[Trainer, Chosen]:
    """The same training on more rows, up to the chosen epoch and mixture; its score stays that of the choice."""
    folder = job.folder and job.folder / "again"
    steps = _steps(tell)
    trainer, start = _prepared(job, backbone, made, rows, engine, folder, steps, until=chosen.epoch)
    trainer.run()
    found = choose(trainer, start, alphas=() if chosen.alpha is None else (chosen.alpha,))
    return trainer, replace(found, epoch=chosen.epoch, val=chosen.val, line=chosen.line)


def _steps(tell: Callable[[Step | Epoch], None]) -> Callable[[Step | Epoch], None]:
    """Passes steps on and no epochs: nothing judges them."""
    return lambda at: tell(at) if isinstance(at, Step) else None


def images_of(job: Job, backbone: Backbone) -> Pictures:
    """The rows as images for this backbone."""
    p = backbone.space.preprocess
    assert p is not None  # noqa: S101 - a backbone's space has preprocessing
    return task.pictures(job.data, job.files, job.classes, p, job.settings)


def sheet(job: Job, made: Pictures, path: Path) -> None:
    """Show how training images are varied, before any training."""
    train = job.parts.train
    rows = [int(r) for r in train[np.linspace(0, len(train) - 1, min(SHOWN, len(train))).astype(int)]]
    shown = []
    for row in rows:
        if made.readable(row):
            plain = _picture(torch.from_numpy(made.plain([row])[0]))
            varied = [_picture(made[(row, 1000 * (row + job.settings.seed) + n)][0]) for n in range(VARIANTS)]
            shown.append((str(job.data.y[row]), plain, varied))
    if shown:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        augment.contact_sheet(shown).save(temporary, "PNG")
        temporary.replace(path)


def _picture(pixels: torch.Tensor) -> Image.Image:
    """uint8 ``(3, H, W)`` as an image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())

"""The record of a training run: steps, epochs, validation scores, and the rule that selects an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedstore.finetuning.settings import FinetuneSettings, SelectionMetric


@dataclass(frozen=True)
class FinetuneScore:
    """A validation score.

    Attributes:
        accuracy: top-1 accuracy.
        mean_recall: recall, averaged over the classes.
        loss: mean log-loss in nats.
    """

    accuracy: float
    mean_recall: float
    loss: float

    def sort_key(self, metric: SelectionMetric) -> tuple[float, float]:
        """Return a key that is higher for a better score; the loss breaks ties."""
        if metric is SelectionMetric.LOSS:
            return -self.loss, self.accuracy
        return (self.accuracy if metric is SelectionMetric.ACCURACY else self.mean_recall), -self.loss

    def to_json(self) -> dict[str, float]:
        """Return plain values under the stored keys."""
        return {"accuracy": self.accuracy, "recall": self.mean_recall, "loss": self.loss}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FinetuneScore:
        """Return the score that :meth:`to_json` wrote; other keys are ignored."""
        return cls(values["accuracy"], values["recall"], values["loss"])


NO_SCORE = FinetuneScore(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images; number 0 is the network before training.

    Attributes:
        number: from 0.
        train_loss: mean training loss, None before the first pass.
        learning_rate: the learning rate of the last block at the end of the epoch.
        val_score: score of the candidate weights (with EMA, of the averaged ones).
        seconds: wall time.
    """

    number: int
    train_loss: float | None
    learning_rate: float
    val_score: FinetuneScore
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the stored keys."""
        values = {"number": self.number, "loss": self.train_loss, "rate": self.learning_rate}
        return values | {"val": self.val_score.to_json(), "seconds": self.seconds}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Epoch:
        """Return the epoch that :meth:`to_json` wrote."""
        score = FinetuneScore.from_json(values["val"])
        return cls(values["number"], values["loss"], values["rate"], score, values["seconds"])


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Progress of a run after one optimizer step.

    Attributes:
        epoch: number of the current epoch, from 1.
        step: steps done in this epoch.
        steps: steps per epoch.
        loss: training loss of the step.
    """

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class AugmentationSheet:
    """Progress of a run before training: the augmented training images were drawn.

    Attributes:
        path: the path of the PNG file.
    """

    path: Path


@dataclass(frozen=True)
class TrainingHistory:
    """The state of a run after its latest epoch.

    Attributes:
        epochs: the epochs in order, number 0 first.
        best_epoch: number of the selected epoch.
        stop_reason: why training ended before the last epoch, or "".
        micro_batch_size: images in memory at once.
        first_loss: training loss of the first step.
        finished: whether training is over.
        threads: the number of threads of an operation on the CPU, on which the last bits of a sum depend; 0 of a run
            that did not record them.
    """

    epochs: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    stop_reason: str = ""
    micro_batch_size: int = 0
    first_loss: float | None = None
    finished: bool = False
    threads: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the stored keys."""
        return {
            "epochs": [e.to_json() for e in self.epochs],
            "best": self.best_epoch,
            "stopped": self.stop_reason,
            "micro": self.micro_batch_size,
            "begun": self.first_loss,
            "done": self.finished,
            "threads": self.threads,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainingHistory:
        """Return the history that :meth:`to_json` wrote."""
        return cls(
            epochs=tuple(Epoch.from_json(e) for e in values["epochs"]),
            best_epoch=values["best"],
            stop_reason=values["stopped"],
            micro_batch_size=values["micro"],
            first_loss=values["begun"],
            finished=values["done"],
            threads=values.get("threads", 0),
        )


def next_history(
    history: TrainingHistory, epoch: Epoch, settings: FinetuneSettings, final_epoch: int | None = None
) -> TrainingHistory:
    """Return the history with one more epoch: whether it is the best one, and whether training is over.

    Epoch 0, the old network, is no candidate once an epoch is done: a backbone may have met the validation images in
    its own training, and would be selected for that. The comparison on held-out items judges it.

    Args:
        history: before the epoch.
        epoch: the epoch that has just ended.
        settings: the settings of the run.
        final_epoch: last epoch of a run without validation; every epoch is then better than the one before.
    """
    metric, finite = settings.selection_metric, math.isfinite(epoch.val_score.loss)
    best, reason = history.best_epoch, ""
    epochs = (*history.epochs, epoch)
    if finite and (
        final_epoch or epoch.number <= 1 or epoch.val_score.sort_key(metric) > epochs[best].val_score.sort_key(metric)
    ):
        best = epoch.number
    if not finite:
        reason = f"diverged in epoch {epoch.number}: the validation loss is not finite"
    elif epoch.number - best >= settings.patience and epoch.number < settings.epochs:
        reason = f"no better validation score in {settings.patience} epochs"
    finished = bool(reason) or epoch.number >= (final_epoch or settings.epochs)
    return replace(history, epochs=epochs, best_epoch=best, stop_reason=reason, finished=finished)


@dataclass(frozen=True)
class TrainingSummary:
    """The facts about a finished run that ``checkpoint.json`` stores.

    Attributes:
        classes: class names in the order of the head.
        best_epoch: number of the selected epoch.
        wise_alpha: weight of the new network in the kept weights, None without a mixture.
        val_score: validation score of the kept weights.
        mixtures: ``(alpha, score)`` of each mixture that was tried.
        history: the history of the epochs.
        train_images: images that were trained on.
        val_images: images that selected the epoch.
        unreadable: images left out because their file is missing or has changed.
        refit_rows: images that the kept weights learned from when they were trained again; 0 without a refit.
        blocks: blocks of the network.
        tuned_blocks: blocks that were trained.
        trainable_parameters: numbers that were trained.
        learning_rate: the learning rate of the last block.
        seconds: wall time, with the epochs before an interruption.
    """

    classes: tuple[str, ...]
    best_epoch: int
    wise_alpha: float | None
    val_score: FinetuneScore
    mixtures: tuple[tuple[float, FinetuneScore], ...]
    history: TrainingHistory
    train_images: int
    val_images: int
    unreadable: int
    refit_rows: int
    blocks: int
    tuned_blocks: int
    trainable_parameters: int
    learning_rate: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys of ``checkpoint.json``."""
        return {
            "classes": list(self.classes),
            "epoch": self.best_epoch,
            "alpha": self.wise_alpha,
            "val_score": self.val_score.to_json(),
            "mixtures": [{"alpha": a, **s.to_json()} for a, s in self.mixtures],
            "history": self.history.to_json(),
            "train": self.train_images,
            "val": self.val_images,
            "unread": self.unreadable,
            "refitted": self.refit_rows,
            "blocks": self.blocks,
            "tuned_blocks": self.tuned_blocks,
            "parameters": self.trainable_parameters,
            "rate": self.learning_rate,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainingSummary:
        """Return the summary that :meth:`to_json` wrote; other keys are ignored."""
        return cls(
            classes=tuple(values["classes"]),
            best_epoch=values["epoch"],
            wise_alpha=values["alpha"],
            val_score=FinetuneScore.from_json(values["val_score"]),
            mixtures=tuple((m["alpha"], FinetuneScore.from_json(m)) for m in values["mixtures"]),
            history=TrainingHistory.from_json(values["history"]),
            train_images=values["train"],
            val_images=values["val"],
            unreadable=values["unread"],
            refit_rows=values["refitted"],
            blocks=values["blocks"],
            tuned_blocks=values["tuned_blocks"],
            trainable_parameters=values["parameters"],
            learning_rate=values["rate"],
            seconds=values["seconds"],
        )

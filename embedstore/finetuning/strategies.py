"""Compare one network trained from scratch, as a frozen probe, with its last layers, and whole, over the labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.loading import training_precision
from embedstore.backbones.trainable import TrainableBackbone
from embedstore.classify.data.features import Features
from embedstore.finetuning.accelerator import create_accelerator
from embedstore.finetuning.run import FinetuneJob, run_job
from embedstore.finetuning.settings import FinetuneSettings, HeadInit, WeightAverage
from embedstore.finetuning.task import hold_out_validation
from embedstore.tables import Record, Table

SCRATCH_LEARNING_RATE = 1e-3  # AdamW's usual rate, for every layer; BatchNorm statistics are updated
_PASSES_OF_ALL_LAYERS = 3.0  # forward, and backward, which costs about twice as much
_PASSES_OF_LAST_LAYERS = 1.5
SCRATCH_EPOCH_FACTOR = 3  # times the epochs of tuning: a random network has everything to learn


class TrainingRegime(StrEnum):
    """How the network is trained."""

    SCRATCH = "from scratch"
    FROZEN = "frozen probe"
    LAST = "last layers"
    ALL = "all layers"


@dataclass(frozen=True)
class StrategyTraining:
    """One training regime on one number of labels per class, None for all labels."""

    regime: TrainingRegime
    labels_per_class: int | None


@dataclass(frozen=True)
class StrategyResult:
    """One training regime on one number of labels.

    Attributes:
        regime: how the network was trained.
        labels_per_class: None for all labels.
        train_images: labeled images used, those that select the epoch included.
        accuracy: the accuracy of the network with its own head on the held-out items.
        seconds: the duration of training.
    """

    regime: TrainingRegime
    labels_per_class: int | None
    train_images: int
    accuracy: float
    seconds: float

    @property
    def training(self) -> StrategyTraining:
        """The training that gave it."""
        return StrategyTraining(self.regime, self.labels_per_class)

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the stored keys."""
        values = {"way": self.regime.value, "labels": self.labels_per_class, "train": self.train_images}
        return values | {"accuracy": self.accuracy, "seconds": self.seconds}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> StrategyResult:
        """Return the result that :meth:`to_json` describes."""
        regime = TrainingRegime(values["way"])
        return cls(regime, values["labels"], int(values["train"]), float(values["accuracy"]), float(values["seconds"]))


@dataclass(frozen=True)
class StrategyOutlook:
    """What a comparison is going to train.

    Attributes:
        seconds: estimated for each training that is not done yet, in their order.
        done: results that an interrupted run of the same comparison left.
    """

    seconds: dict[StrategyTraining, float]
    done: tuple[StrategyResult, ...]

    def remaining(self, results: Sequence[StrategyResult]) -> float:
        """Return how many seconds are left, as the trainings so far took in proportion to their estimates."""
        finished = {r.training: r.seconds for r in results if r.training in self.seconds}
        estimated = sum(self.seconds[training] for training in finished)
        left = sum(self.seconds.values()) - estimated
        return left * sum(finished.values()) / estimated if estimated else left


@dataclass(frozen=True)
class StrategyComparison(Table):
    """The results of all regimes over the number of labels.

    Attributes:
        label: the column.
        split: name of the held-out split.
        held_out: items that every result is judged on.
        results: by number of labels, then by regime.
    """

    label: str
    split: str
    held_out: int
    results: tuple[StrategyResult, ...]

    def rows(self) -> list[tuple[str, int, dict[str, float]]]:
        """Return ``(labels per class, images, accuracy by regime)``, the fewest labels first."""
        out: dict[int | None, tuple[str, int, dict[str, float]]] = {}
        for r in self.results:
            labels = "all" if r.labels_per_class is None else str(r.labels_per_class)
            out.setdefault(r.labels_per_class, (labels, r.train_images, {}))[2][r.regime.value] = r.accuracy
        return list(out.values())

    def records(self) -> list[Record]:
        """Return one mapping per result; ``labels`` is None for all labels."""
        return [r.to_json() for r in self.results]

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the stored keys."""
        results = [r.to_json() for r in self.results]
        return {"label": self.label, "split": self.split, "held_out": self.held_out, "cells": results}


@dataclass(frozen=True)
class StrategyPlan:
    """What a comparison trains.

    Attributes:
        job: labeled features and files; rows are drawn from its training and validation rows together.
        load_backbone: returns the network afresh; with True at random weights.
        sample_rows: ``(features, rows, labels per class, seed)`` to rows.
        labels_per_class: numbers of labels to draw; all labels are added.
        last_layers: layers of the regime "last layers".
    """

    job: FinetuneJob
    load_backbone: Callable[[bool], TrainableBackbone]
    sample_rows: Callable[[Features, NDArray[np.int64], int, int], NDArray[np.int64]]
    labels_per_class: Sequence[int]
    last_layers: str


class KeptResults(Protocol):
    """The results of a comparison that outlive an interruption."""

    def read(self) -> list[StrategyResult]:
        """Return those of an earlier run of the same comparison."""

    def write(self, results: Sequence[StrategyResult]) -> None:
        """Keep all results so far."""


def compare_strategies(
    plan: StrategyPlan,
    label: str,
    kept: KeptResults,
    seconds_per_image: float,
    progress: Callable[[StrategyOutlook | StrategyResult], None] = lambda _: None,
) -> StrategyComparison:
    """Train every regime on every number of labels, and judge each on the held-out items.

    Args:
        plan: the rows, the network and the numbers of labels.
        label: the column.
        kept: results of an earlier run, and where new ones are kept.
        seconds_per_image: the time that the network needs for one image.
        progress: called with the outlook, then with each new result.

    Raises:
        LabelError: if a number of labels leaves nothing to select the epoch with.
    """
    rows = _rows_by_count(plan)
    results = {r.training: r for r in kept.read()}
    trainings = [StrategyTraining(regime, count) for count in rows for regime in TrainingRegime]
    todo = [t for t in trainings if t not in results]
    estimates = {t: _image_passes(plan, t.regime, len(rows[t.labels_per_class])) * seconds_per_image for t in todo}
    progress(StrategyOutlook(estimates, tuple(results[t] for t in trainings if t in results)))
    for training in todo:
        count = training.labels_per_class
        results[training] = _train_regime(plan, training.regime, count, rows[count])
        kept.write(list(results.values()))
        progress(results[training])
    split = plan.job.split
    return StrategyComparison(label, split.held_out_split, len(split.held_out), tuple(results[t] for t in trainings))


def _rows_by_count(plan: StrategyPlan) -> dict[int | None, NDArray[np.int64]]:
    """Return the rows of each number of labels per class, the fewest first, then all."""
    job = plan.job
    every = np.sort(np.concatenate([job.split.train, job.split.val]))
    largest = int(np.unique(job.data.y[every].astype(str), return_counts=True)[1].max())
    counts = [n for n in sorted(set(plan.labels_per_class)) if 0 < n < largest]
    drawn: dict[int | None, NDArray[np.int64]] = {
        n: plan.sample_rows(job.data, every, n, job.settings.seed) for n in counts
    }
    return drawn | {None: every}


def _image_passes(plan: StrategyPlan, regime: TrainingRegime, images: int) -> float:
    """Return about how many times an image goes through the network in one training, early stops left out."""
    epochs = _regime_settings(regime, plan.job.settings, plan.last_layers).epochs
    per_epoch = _PASSES_OF_LAST_LAYERS if regime is TrainingRegime.LAST else _PASSES_OF_ALL_LAYERS
    return images * max(1.0, epochs * per_epoch) + len(plan.job.split.held_out)


def _train_regime(
    plan: StrategyPlan, regime: TrainingRegime, labels_per_class: int | None, rows: NDArray[np.int64]
) -> StrategyResult:
    """Train on some rows; a fifth of them selects the epoch, except for the probe, whose C is cross-validated."""
    begin = time.perf_counter()
    job, scratch, frozen = plan.job, regime is TrainingRegime.SCRATCH, regime is TrainingRegime.FROZEN
    train, val = (rows, rows[:1]) if frozen else hold_out_validation(job.data, rows, seed=job.settings.seed)
    settings = _regime_settings(regime, job.settings, plan.last_layers)
    cell = replace(job, settings=settings, split=replace(job.split, train=train, val=val), folder=None)
    loaded = [plan.load_backbone(scratch)]
    accelerator = create_accelerator(loaded[0].device, training_precision(settings.precision, loaded[0]))
    result = run_job(
        cell, lambda: loaded.pop() if loaded else plan.load_backbone(scratch), accelerator, score_held_out=True
    )
    seconds = round(time.perf_counter() - begin, 2)
    return StrategyResult(regime, labels_per_class, len(rows), result.held_out_accuracy or 0.0, seconds)


def _regime_settings(regime: TrainingRegime, settings: FinetuneSettings, last_layers: str) -> FinetuneSettings:
    """Return the settings of one regime."""
    if regime is TrainingRegime.FROZEN:
        return replace(settings, layers="head", epochs=0)
    if regime is not TrainingRegime.SCRATCH:
        return replace(settings, layers=last_layers if regime is TrainingRegime.LAST else "all")
    wise = settings.weight_average is WeightAverage.WISE  # needs an old network that can classify
    return replace(
        settings,
        layers="all",
        head_init=HeadInit.RANDOM,
        weight_average=WeightAverage.EMA if wise else settings.weight_average,
        wise_alpha=None,
        lr=SCRATCH_LEARNING_RATE,
        layer_decay=1.0,
        update_batchnorm=True,
        epochs=SCRATCH_EPOCH_FACTOR * settings.epochs,
        patience=SCRATCH_EPOCH_FACTOR * max(settings.epochs, 1),
    )

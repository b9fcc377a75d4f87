"""Compare one network trained from scratch, as a frozen probe, with its last layers, and whole, over the labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

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
SCRATCH_EPOCH_FACTOR = 3  # times the epochs of tuning: a random network has everything to learn


class TrainingRegime(StrEnum):
    """How the network is trained."""

    SCRATCH = "from scratch"
    FROZEN = "frozen probe"
    LAST = "last layers"
    ALL = "all layers"


@dataclass(frozen=True)
class StrategyResult:
    """One training regime on one number of labels.

    Attributes:
        regime: how the network was trained.
        labels_per_class: None for all labels.
        train_images: labeled images used, those that select the epoch included.
        accuracy: of the network with its own head on the held-out items.
        seconds: of training.
    """

    regime: TrainingRegime
    labels_per_class: int | None
    train_images: int
    accuracy: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the stored keys."""
        values = {"way": self.regime.value, "labels": self.labels_per_class, "train": self.train_images}
        return values | {"accuracy": self.accuracy, "seconds": self.seconds}


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


def compare_strategies(
    plan: StrategyPlan, label: str, progress: Callable[[StrategyResult], None] = lambda _: None
) -> StrategyComparison:
    """Train every regime on every number of labels, and judge each on the held-out items.

    Args:
        plan: the rows, the network and the numbers of labels.
        label: the column.
        progress: called with each result.

    Raises:
        LabelError: if a number of labels leaves nothing to select the epoch with.
    """
    job = plan.job
    every = np.sort(np.concatenate([job.split.train, job.split.val]))
    largest = int(np.unique(job.data.y[every].astype(str), return_counts=True)[1].max())
    results = []
    for count in [*(n for n in sorted(set(plan.labels_per_class)) if 0 < n < largest), None]:
        rows = every if count is None else plan.sample_rows(job.data, every, count, job.settings.seed)
        for regime in TrainingRegime:
            results.append(_train_regime(plan, regime, count, rows))
            progress(results[-1])
    return StrategyComparison(label, job.split.held_out_split, len(job.split.held_out), tuple(results))


def _train_regime(
    plan: StrategyPlan, regime: TrainingRegime, labels_per_class: int | None, rows: NDArray[np.int64]
) -> StrategyResult:
    """Train on some rows; a fifth of them selects the epoch, except for the probe, whose C is cross-validated."""
    begin = time.perf_counter()
    job, scratch, frozen = plan.job, regime is TrainingRegime.SCRATCH, regime is TrainingRegime.FROZEN
    train, val = (rows, rows[:1]) if frozen else hold_out_validation(job.data, rows, seed=job.settings.seed)
    settings = _regime_settings(regime, job.settings, plan.last_layers)
    cell = replace(job, settings=settings, split=replace(job.split, train=train, val=val), folder=None)
    network = plan.load_backbone(scratch)
    accelerator = create_accelerator(network.device, training_precision(settings.precision, network))
    result = run_job(cell, lambda: plan.load_backbone(scratch), accelerator, score_held_out=True)
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

"""From scratch, frozen probe, last layers, all layers: the same network on growing numbers of labels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.base import Backbone
from embedstore.classify.data.features import Features
from embedstore.errors import LabelError
from embedstore.finetuning.accelerator import create_accelerator
from embedstore.finetuning.run import FinetuneJob, run_job
from embedstore.finetuning.settings import FinetuneSettings, HeadInit, WeightAverage
from embedstore.finetuning.task import hold_out_validation
from embedstore.storage import durable_files

SCRATCH_LEARNING_RATE = 1e-3  # AdamW's usual rate; every layer alike, statistics of BatchNorm follow
SCRATCH_EPOCH_FACTOR = 3  # times those of tuning: nothing is known at the start


class TrainingRegime(StrEnum):
    """How the network is used."""

    SCRATCH = "from scratch"
    FROZEN = "frozen probe"
    LAST = "last layers"
    ALL = "all layers"


@dataclass(frozen=True)
class StrategyResult:
    """One way on one number of labels.

    Attributes:
        labels: a class, None for all. train: images, those that choose the epoch among them. accuracy: of the network
            with its own head on the held-out items. seconds: of training.
    """

    way: TrainingRegime
    labels: int | None
    train: int
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class StrategyComparison:
    """The table.

    Attributes:
        cells: by number of labels, then by way. held: items that judged every cell; split: of which side.
    """

    label: str
    split: str
    held: int
    cells: tuple[StrategyResult, ...]

    def rows(self) -> list[tuple[str, int, dict[str, float]]]:
        """``(labels a class, images, accuracy by way)``, the fewest first."""
        out: dict[int | None, tuple[str, int, dict[str, float]]] = {}
        for c in self.cells:
            row = out.setdefault(c.labels, ("all" if c.labels is None else str(c.labels), c.train, {}))
            row[2][c.way.value] = c.accuracy
        return list(out.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        cells = [
            {"way": c.way.value, "labels": c.labels, "train": c.train, "accuracy": c.accuracy, "seconds": c.seconds}
            for c in self.cells
        ]
        return {"label": self.label, "split": self.split, "held_out": self.held, "cells": cells}


def compare_strategies(
    job: FinetuneJob,
    label: str,
    load_backbone: Callable[[bool], Backbone],
    sample_rows: Callable[[Features, NDArray[np.int64], int, int], NDArray[np.int64]],
    *,
    budgets: Sequence[int],
    last_layers: str,
    progress: Callable[[StrategyResult], None] = lambda _: None,
) -> StrategyComparison:
    """Train every cell and judge it on the held-out items.

    Args:
        job: the labelled features and files; its training and validation rows together are drawn from.
        label: the column. load: the network afresh; with True at random weights.
        draw: ``(features, rows, labels a class, seed)`` to rows. budgets: labels a class; all is added.
        last: which layers "last layers" means. tell: called with each cell.

    Raises:
        LabelError: no budget leaves something to choose by.
    """
    every = np.sort(np.concatenate([job.split.train, job.split.val]))
    most = int(np.unique(job.data.y[every].astype(str), return_counts=True)[1].max())
    cells = []
    for count in [*(b for b in sorted(set(budgets)) if 0 < b < most), None]:
        rows = every if count is None else sample_rows(job.data, every, count, job.settings.seed)
        for way in TrainingRegime:
            cells.append(_cell(job, way, count, rows, load_backbone, last_layers))
            progress(cells[-1])
    if not cells:
        raise LabelError("no labels to draw from")
    return StrategyComparison(label, job.split.split, len(job.split.held_out), tuple(cells))


def _cell(
    job: FinetuneJob,
    way: TrainingRegime,
    count: int | None,
    rows: NDArray[np.int64],
    load: Callable[[bool], Backbone],
    last: str,
) -> StrategyResult:
    """One way on some rows; a fifth of them chooses the epoch, except for the probe, whose C is cross-validated."""
    begin = time.perf_counter()
    s = job.settings
    scratch = way is TrainingRegime.SCRATCH
    ways: dict[TrainingRegime, FinetuneSettings] = {
        TrainingRegime.SCRATCH: replace(
            s, layers="all", start=HeadInit.RANDOM, average=_without_wise(s.average), alpha=None,
            lr=SCRATCH_LEARNING_RATE, decay=1.0, bn=True, epochs=SCRATCH_EPOCH_FACTOR * s.epochs,
            patience=SCRATCH_EPOCH_FACTOR * max(s.epochs, 1),
        ),
        TrainingRegime.FROZEN: replace(s, layers="head", epochs=0),
        TrainingRegime.LAST: replace(s, layers=last),
        TrainingRegime.ALL: replace(s, layers="all"),
    }  # fmt: skip
    train, val = (rows, rows[:1]) if way is TrainingRegime.FROZEN else hold_out_validation(job.data, rows, seed=s.seed)
    network = load(scratch)
    made = replace(job, settings=ways[way], split=replace(job.split, train=train, val=val), folder=None)
    trained = run_job(made, lambda: load(scratch), create_accelerator(network.device, network.precision))
    return StrategyResult(
        way, count, len(rows), trained.accuracy(job.split.held_out), round(time.perf_counter() - begin, 2)
    )


def _without_wise(average: WeightAverage) -> WeightAverage:
    """WISE needs a network that could classify before."""
    return WeightAverage.EMA if average is WeightAverage.WISE else average


def draw_plot(comparison: StrategyComparison, path: Path) -> None:
    """Accuracy over labels a class, one line a way, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = comparison.rows()
    for way in TrainingRegime:
        axes.plot(range(len(rows)), [r[2][way.value] for r in rows], "o-", label=way.value)
    axes.set_xticks(range(len(rows)), [f"{r[0]}\n({r[1]} images)" for r in rows])
    axes.set(xlabel="labels a class", ylabel=f"accuracy on {comparison.held} held-out items ({comparison.split})")
    axes.grid(alpha=0.3)
    axes.legend()
    with durable_files.atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)

"""Figures of fine-tuning as PNG: learning curves, the augmentation sheet and the comparison of strategies."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from embedstore import privacy
from embedstore.errors import MissingExtra
from embedstore.finetuning.augment import augmentation_sheet, pixels_to_image
from embedstore.finetuning.dataset import LabeledImageDataset
from embedstore.finetuning.history import TrainingHistory
from embedstore.storage import durable_files
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.finetuning.run import FinetuneJob
    from embedstore.finetuning.strategies import StrategyComparison

SHEET_IMAGES, SHEET_VARIANTS = 6, 7  # images of the augmentation sheet, and augmented variants of each


def require_matplotlib() -> None:
    """Check before the work that the drawing package is installed.

    Raises:
        MissingExtra: if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra(
            "the curves need the package matplotlib, which is not installed; run `pip install embedstore[finetune]`"
        )


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yield an empty matplotlib figure, and write it as PNG at the end."""
    privacy.use_temporary_matplotlib_folder()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    with durable_files.atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def draw_curves(history: TrainingHistory, path: Path) -> None:
    """Draw training and validation loss, and validation accuracy and recall, with the best epoch marked."""
    numbers = [e.number for e in history.epochs]
    scores = [e.val_score for e in history.epochs]
    trained = [(e.number, e.train_loss) for e in history.epochs if e.train_loss is not None]
    with _figure(path, 9, 3.4) as figure:
        losses, metrics = figure.subplots(1, 2)
        losses.plot(
            [n for n, _ in trained], [_finite(v) for _, v in trained], "o-", ms=3, label="training (as augmented)"
        )
        losses.plot(numbers, [_finite(s.loss) for s in scores], "s-", ms=3, label="validation")
        losses.set(xlabel="epoch", ylabel="loss, nats")
        metrics.plot(numbers, [s.accuracy for s in scores], "s-", ms=3, color="C1", label="accuracy")
        metrics.plot(numbers, [s.mean_recall for s in scores], "^:", ms=3, color="C2", label="mean recall")
        metrics.set(xlabel="epoch", ylabel="on validation items")
        for axes in (losses, metrics):
            axes.axvline(history.best_epoch, color="0.6", lw=1, ls="--", label=f"best: epoch {history.best_epoch}")
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8, loc="center right")
            axes.xaxis.get_major_locator().set_params(integer=True)


def draw_comparison(comparison: StrategyComparison, path: Path) -> None:
    """Draw accuracy over labels per class, one line per training regime."""
    rows = comparison.rows()
    with _figure(path, 6.4, 4) as figure:
        axes = figure.subplots()
        for regime in rows[0][2]:
            axes.plot(range(len(rows)), [r[2][regime] for r in rows], "o-", label=regime)
        axes.set_xticks(range(len(rows)), [f"{labels}\n({counted(images, 'image')})" for labels, images, _ in rows])
        held_out = f"{counted(comparison.held_out, 'held-out item')} ({comparison.split})"
        axes.set(xlabel="labels per class", ylabel=f"accuracy on {held_out}")
        axes.grid(alpha=0.3)
        axes.legend()


def draw_augmentation(job: FinetuneJob, dataset: LabeledImageDataset, path: Path) -> None:
    """Draw some training images as evaluation sees them and augmented, before any training."""
    train = job.split.train
    chosen = train[np.linspace(0, len(train) - 1, min(SHEET_IMAGES, len(train))).astype(int)]
    rows = []
    for row in (r for r in chosen.tolist() if dataset.is_readable(r)):
        plain = pixels_to_image(torch.from_numpy(dataset.evaluation_pixels([row])[0]))
        seeds = (1000 * (row + job.settings.seed) + n for n in range(SHEET_VARIANTS))
        rows.append((str(job.data.y[row]), plain, [pixels_to_image(dataset[(row, seed)][0]) for seed in seeds]))
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_files.atomic_write(path) as file:
            augmentation_sheet(rows).save(file, "PNG")


def _finite(loss: float) -> float:
    """Return a loss that a figure can show."""
    return loss if math.isfinite(loss) else math.nan

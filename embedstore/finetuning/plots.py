"""A run's curves as PNG."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

from embedstore.errors import MissingExtra
from embedstore.finetuning.history import TrainingHistory
from embedstore.storage import durable_files


def require_matplotlib() -> None:
    """Say before the work that the drawing package is missing.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra(
            "curves are drawn by matplotlib, which is not installed; run `pip install embedstore[finetune]`"
        )


def draw_curves(history: TrainingHistory, path: Path) -> None:
    """Training and validation loss on the left, validation accuracy and recall on the right; the best epoch marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, figures = figure.subplots(1, 2)
    numbers = [e.number for e in history.epochs]
    trained = [(e.number, e.loss) for e in history.epochs if e.loss is not None and math.isfinite(e.loss)]
    losses.plot([n for n, _ in trained], [v for _, v in trained], "o-", ms=3, label="training (varied images)")
    losses.plot(numbers, [_shown(e.val.loss) for e in history.epochs], "s-", ms=3, label="validation")
    losses.set(xlabel="epoch", ylabel="loss, nats")
    figures.plot(numbers, [e.val.accuracy for e in history.epochs], "s-", ms=3, color="C1", label="accuracy")
    figures.plot(numbers, [e.val.recall for e in history.epochs], "^:", ms=3, color="C2", label="mean recall")
    figures.set(xlabel="epoch", ylabel="on validation images")
    for axes in (losses, figures):
        axes.axvline(history.best, color="0.6", lw=1, ls="--", label=f"best: epoch {history.best}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="center right")
        axes.xaxis.get_major_locator().set_params(integer=True)
    with durable_files.atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _shown(loss: float) -> float:
    """A loss that a drawing can hold."""
    return loss if math.isfinite(loss) else math.nan

"""A progress bar on stderr for whoever watches; silence where nobody does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from embedstore.finetuning.history import Epoch, TrainingStep
from embedstore.pipeline.run import EmbedProgress


@contextmanager
def embedding_progress(*, show: bool | None = None) -> Iterator[Callable[[EmbedProgress], None]]:
    """A callback that draws what a run reports.

    Args:
        show: None shows the bar only where stderr is a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as drawn:
        task = drawn.add_task("scanning", total=None, speed="", failed="")

        def show_it(p: EmbedProgress) -> None:
            if not p.total:
                drawn.update(task, completed=p.done)
                return
            speed = drawn.tasks[0].finished_speed or drawn.tasks[0].speed
            drawn.update(
                task,
                description="embedding",
                total=p.total,
                completed=p.done,
                speed=f"{speed:.0f} images/s" if speed else "",
                failed=f"{p.failed} failed" if p.failed else "",
            )

        yield show_it


@contextmanager
def training_progress(epochs: int, *, show: bool | None = None) -> Iterator[Callable[[TrainingStep | Epoch], None]]:
    """A callback that draws a training run: a bar of its steps, and a line for every epoch.

    Args:
        epochs: at most. show: None shows it only where stderr is a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn())
    with Bar(*columns, console=console) as drawn:
        task = drawn.add_task("frozen", total=None, loss="")

        def show_it(at: TrainingStep | Epoch) -> None:
            if isinstance(at, TrainingStep):
                done = (at.epoch - 1) * at.steps + at.step
                words = f"epoch {at.epoch} of {epochs}"
                drawn.update(task, description=words, completed=done, total=epochs * at.steps, loss=f"{at.loss:.3f}")
                return
            loss = "" if at.train_loss is None else f"training loss {at.train_loss:.4f}, "
            val = f"validation loss {at.val_score.loss:.4f}, accuracy {at.val_score.accuracy:.4f}, recall {at.val_score.mean_recall:.4f}"
            drawn.console.print(f"epoch {at.number}: {loss}{val}, {at.seconds:.1f} s", highlight=False)

        yield show_it

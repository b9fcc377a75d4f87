"""A progress bar on stderr for whoever watches; silence where nobody does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from embedstore.finetuning.history import AugmentationSheet, Epoch, TrainingStep
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


TrainingProgress = Callable[[AugmentationSheet | TrainingStep | Epoch], None]


@contextmanager
def training_progress(epochs: int, progress: bool | TrainingProgress | None = None) -> Iterator[TrainingProgress]:
    """Yield a function that draws the progress of a fine-tuning run.

    Args:
        epochs: largest number of epochs.
        progress: True or False shows the bar or not; None shows it where stderr is a terminal. A function is yielded
            as it is.
    """
    if callable(progress):
        yield progress
        return
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("frozen", total=None, loss="")

        def draw(event: AugmentationSheet | TrainingStep | Epoch) -> None:
            if isinstance(event, TrainingStep):
                done = (event.epoch - 1) * event.steps + event.step
                text = f"epoch {event.epoch} of {epochs}"
                bar.update(task, description=text, completed=done, total=epochs * event.steps, loss=f"{event.loss:.3f}")
            elif isinstance(event, Epoch):
                bar.console.print(_epoch_line(event), highlight=False)
            else:
                bar.console.print(f"augmented training images: {event.path}", highlight=False)

        yield draw


def _epoch_line(epoch: Epoch) -> str:
    """Describe an epoch in one line."""
    loss = "" if epoch.train_loss is None else f"training loss {epoch.train_loss:.4f}, "
    score = epoch.val_score
    val = f"validation loss {score.loss:.4f}, accuracy {score.accuracy:.4f}, recall {score.mean_recall:.4f}"
    return f"epoch {epoch.number}: {loss}{val}, {epoch.seconds:.1f} s"

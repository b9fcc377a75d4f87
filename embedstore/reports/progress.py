"""Progress of long work, for whoever watches: a bar on stderr, the user's own callback, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from embedstore.finetuning.history import AugmentationSheet, Epoch, TrainingStep
from embedstore.reports.terminal_text import raw_stream, visible
from embedstore.wording import per_second

if TYPE_CHECKING:
    from embedstore.pipeline.run import EmbedProgress
    from embedstore.storage.integrity.report import CheckProgress

# None draws on a terminal only; True and False always and never; a function is called with each event.
Progress: TypeAlias = bool | Callable[[Any], None] | None
TrainingProgress: TypeAlias = Callable[[AugmentationSheet | TrainingStep | Epoch], None]


@contextmanager
def embedding_progress(progress: Progress) -> Iterator[Callable[[EmbedProgress], None]]:
    """Yield what an embedding run reports to: a bar with speed, time left and failures."""
    if (callback := _callback(progress)) is not None:
        yield callback
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    with _bar(*columns) as bar:
        task = bar.add_task("scanning", total=None, speed="", failed="")

        def show(p: EmbedProgress) -> None:
            if not p.total:
                bar.update(task, completed=p.done)
                return
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(
                task,
                description="embedding",
                total=p.total,
                completed=p.done,
                speed=per_second(speed, p.modality.plural) if speed else "",
                failed=f"{p.failed} failed" if p.failed else "",
            )

        yield show


@contextmanager
def training_progress(epochs: int, progress: Progress) -> Iterator[TrainingProgress]:
    """Yield what a training run reports to: a bar of its steps, and one line per epoch.

    Args:
        epochs: the most epochs that the run may have.
        progress: see :data:`Progress`.
    """
    if (callback := _callback(progress)) is not None:
        yield callback
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    with _bar(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn()
    ) as bar:
        task = bar.add_task("frozen", total=None, loss="")

        def show(event: AugmentationSheet | TrainingStep | Epoch) -> None:
            if isinstance(event, TrainingStep):
                done = (event.epoch - 1) * event.steps + event.step
                text = f"epoch {event.epoch} of {epochs}"
                bar.update(task, description=text, completed=done, total=epochs * event.steps, loss=f"{event.loss:.3f}")
            elif isinstance(event, Epoch):
                bar.console.print(_epoch_line(event), highlight=False)
            else:
                path = visible(str(event.path))
                bar.console.print(f"augmented training images: {path}", highlight=False, markup=False)

        yield show


def _epoch_line(epoch: Epoch) -> str:
    """Describe an epoch in one line."""
    loss = "" if epoch.train_loss is None else f"training loss {epoch.train_loss:.4f}, "
    score = epoch.val_score
    val = f"validation loss {score.loss:.4f}, accuracy {score.accuracy:.4f}, recall {score.mean_recall:.4f}"
    return f"epoch {epoch.number}: {loss}{val}, {epoch.seconds:.1f} s"


@contextmanager
def check_progress(progress: Progress) -> Iterator[Callable[[CheckProgress], None]]:
    """Yield what a check or a copy reports to: a bar of files or images with the time left."""
    if (callback := _callback(progress)) is not None:
        yield callback
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    with _bar(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) as bar:
        tasks: dict[str, Any] = {}

        def show(p: CheckProgress) -> None:
            if p.unit not in tasks:
                tasks[p.unit] = bar.add_task(p.unit, total=p.total)
            bar.update(tasks[p.unit], completed=p.done, total=p.total)

        yield show


@contextmanager
def message_progress(progress: Progress) -> Iterator[Callable[[str], None]]:
    """Yield what work of a few long steps reports to: one line per step on stderr."""
    callback = _callback(progress)
    yield callback if callback is not None else lambda message: print(visible(message), file=sys.stderr, flush=True)


def _callback(progress: Progress) -> Callable[[Any], None] | None:
    """Return the function to call, or None where a bar is to be drawn."""
    if callable(progress):
        return progress
    draw = sys.stderr.isatty() if progress is None else progress
    return None if draw else lambda _: None


def _bar(*columns: Any) -> Any:
    """Return a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    return Bar(*columns, console=Console(file=raw_stream(sys.stderr)))

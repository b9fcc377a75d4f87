"""A progress bar on stderr for whoever watches; silence where nobody does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from embedstore.embed.run import Progress


@contextmanager
def bar(*, show: bool | None = None) -> Iterator[Callable[[Progress], None]]:
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

        def show_it(p: Progress) -> None:
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

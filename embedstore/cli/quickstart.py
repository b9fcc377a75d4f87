"""The verb that runs the whole workflow once, on images that need no download."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore.cli import console, render
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.quickstart.run import QuickstartStep

MAX_PRINTED_HITS = 5  # of each search; the contact sheets have all


@app.command(rich_help_panel=Panel.PUT_IN)
def quickstart(
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Your own image folder; by default bundled data: generated scenes and scanned digits.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="The folder for the store and the reports.")
    ] = Path("quickstart"),
    as_json: o.Json = False,
) -> None:
    """Run the whole workflow once, without a download: embed, index, search by text, probe, compare, map."""
    from embedstore.quickstart import run as q

    steps = []
    for step in q.run(output, images):
        steps.append(step)
        if not as_json:
            _print(step)
    if as_json:
        console.print_json([_plain(s) for s in steps])
        return
    evaluations = [s for s in steps if hasattr(s.result, "report")]
    if evaluations:
        console.print_line()
        console.print_line(
            f"three classifiers on the same {counted(evaluations[0].result.n_held_out, 'held-out item')}"
        )
        console.print_table(
            ("method", "accuracy", "95% interval", "training items", "seconds"), [_row(s) for s in evaluations]
        )
    else:
        console.print_note("the folder has no two labels (sub-folders) with two images each: nothing to probe")
    console.print_line()
    console.print_line("look at")
    for file in (f for s in steps for f in s.files):
        console.print_line(f"  {file}")
    console.print_line()
    console.print_lines(q.NEXT_STEPS)


def _print(step: QuickstartStep) -> None:
    """Print the result of a step in the way of its verb."""
    from embedstore.reports.results import Hits

    console.print_line()
    console.print_line(f"$ {step.command}")
    result = step.result
    if isinstance(result, Hits):
        render.print_hits(replace(result, hits=result.hits[:MAX_PRINTED_HITS]))
    elif hasattr(result, "report"):
        from embedstore.reports import evaluation_text

        console.print_line(evaluation_text.evaluation_summary(result))
    elif hasattr(result, "title"):
        console.print_line(f"{result.title}, {result.seconds:.1f} s")
    elif hasattr(result, "summary"):
        console.print_line(result.summary())
    else:
        console.print_facts(list(result.to_json().items()))


def _row(step: QuickstartStep) -> tuple[Any, ...]:
    """Return one row of the comparison."""
    e = step.result
    score = e.scores["accuracy"]
    return (e.head, score.value, f"[{score.low:.3f}, {score.high:.3f}]", e.n_train, round(step.seconds, 2))


def _plain(step: QuickstartStep) -> dict[str, Any]:
    """Return a step as plain values."""
    facts = step.result.to_json()
    if hasattr(step.result, "title"):
        facts = {"title": step.result.title}
    return {"command": step.command, "seconds": round(step.seconds, 3), "files": list(step.files), "result": facts}

"""The first command a person types: every verb once, on pictures that are there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore.cli import console, render
from embedstore.cli import options as o
from embedstore.cli.put_in import app

if TYPE_CHECKING:
    from embedstore.quickstart.run import QuickstartStep

SHOWN = 5  # hits printed of each search; the contact sheets have all


@app.command()
def quickstart(
    images: Annotated[
        Path | None, typer.Argument(help="Your own image folder; by default drawn scenes and scanned digits.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("quickstart"),
    as_json: o.Json = False,
) -> None:
    """The main job in one command: embed, index, search in words, probe, compare, look. Nothing is downloaded."""
    from embedstore.quickstart import run as q

    steps = []
    for step in q.run(folder, images):
        steps.append(step)
        if not as_json:
            _print(step)
    if as_json:
        console.print_json([_plain(s) for s in steps])
        return
    judged = [s for s in steps if hasattr(s.result, "report")]
    if judged:
        print(f"\nthree ways to the label, on the same {judged[0].result.held} held-out items")
        console.print_table(("method", "accuracy", "95% interval", "trained on", "seconds"), [_row(s) for s in judged])
    else:
        console.print_note("the folder has no two labels (sub-folders) with two images each: nothing to probe")
    print("\nlook at")
    for file in (f for s in steps for f in s.files):
        print(f"  {file}")
    print(f"\n{q.NEXT_STEPS}")


def _print(step: QuickstartStep) -> None:
    """A step as the verb itself prints it."""
    from embedstore.reports.results import Hits

    print(f"\n$ {step.command}")
    result = step.result
    if isinstance(result, Hits):
        render.print_hits(replace(result, hits=result.hits[:SHOWN]))
    elif hasattr(result, "report"):
        from embedstore.reports import evaluation_text

        print(evaluation_text.evaluation_summary(result))
    elif hasattr(result, "title"):
        print(f"{result.title}, {result.seconds:.1f} s")
    elif hasattr(result, "summary"):
        print(result.summary())
    else:
        console.print_facts(list(result.to_json().items()))


def _row(step: QuickstartStep) -> tuple[Any, ...]:
    """One line of the comparison."""
    e = step.result
    score = e.scores["accuracy"]
    return (e.head, score.value, f"[{score.low:.3f}, {score.high:.3f}]", e.train, round(step.seconds, 2))


def _plain(step: QuickstartStep) -> dict[str, Any]:
    """A step for a script."""
    found = step.result.to_json()
    if hasattr(step.result, "title"):
        found = {"title": step.result.title}
    return {"command": step.command, "seconds": round(step.seconds, 3), "files": list(step.files), "result": found}

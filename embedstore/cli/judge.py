"""Verbs that classify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import embedstore as es
from embedstore.cli import options as o
from embedstore.cli import printing
from embedstore.cli.app import app


@app.command()
def probe(
    store: o.StorePath,
    label: o.Label = "label",
    where: o.Where = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """Logistic regression on frozen features, C by cross-validation, judged on held-out items."""
    printing.print_evaluation(es.open(store).probe(label, where=where, space=space), as_json)


@app.command()
def knn(
    store: o.StorePath,
    label: o.Label = "label",
    k: Annotated[int, typer.Option("-k", help="Neighbours.")] = 5,
    where: o.Where = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """K nearest neighbours by cosine, weighted, judged on held-out items."""
    printing.print_evaluation(es.open(store).knn(label, k=k, where=where, space=space), as_json)


@app.command("zero-shot")
def zero_shot(
    store: o.StorePath,
    label: o.Label = "label",
    classes: Annotated[str | None, typer.Option(help="Class names with commas between; by default the labels.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON: {class: prompt or [prompts]}.")] = None,
    templates: Annotated[str, typer.Option(help="Sentences around a name: photo, name, simple, imagenet.")] = "photo",
    where: o.Where = None,
    space: o.SpaceName = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Classify by words alone, judged against a label."""
    opened = es.open(store, device=device, precision=precision)
    named: Any = [c.strip() for c in classes.split(",") if c.strip()] if classes else opened.labels(label, where=where)
    if prompts:
        named = _prompts(prompts)
    judged = opened.zero_shot(named, templates=templates, space=space).evaluate(label, where=where)
    printing.print_evaluation(judged, as_json)


def _prompts(path: Path) -> dict[str, Any]:
    """A prompt file."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise typer.BadParameter(f"{path} is not a JSON file of prompts by class: {e}") from e
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} is not a JSON object of prompts by class")
    return found

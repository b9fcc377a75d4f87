"""Options that several verbs share, and how their text becomes values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore import timing


def _timed(wanted: bool) -> None:
    if wanted:
        timing.request_report()


StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The store's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
SpaceName = Annotated[str | None, typer.Option("--space", help="Space, by name or key; by default the current one.")]
Where = Annotated[
    str | None, typer.Option("--where", help="Only items that match, in SQL: \"split = 'val' and year >= 2020\".")
]
Label = Annotated[str, typer.Argument(help="A column of the items.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Decoder = Annotated[str, typer.Option(help="auto, pillow, quick, device, hardware: what makes pixels of files.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16.")]
Runtime = Annotated[
    str, typer.Option(help="auto, eager, onnx, compile: what runs the network; vectors are the same in all.")
]
Weights = Annotated[Path | None, typer.Option(help="A local weights file (.safetensors, or .pth read as data only).")]
BackboneArg = Annotated[list[str], typer.Option("--backbone-arg", metavar="K=V", help="Argument of the architecture.")]
PreprocessOverride = Annotated[
    list[str], typer.Option("--preprocess", metavar="K=V", help="Override: mean, std, size, resize, interpolation, …")
]
Layer = Annotated[str | None, typer.Option(help="Where features are taken, e.g. before-projection, final, 3.")]
Pool = Annotated[str | None, typer.Option(help="How they are pooled: avg, max, token.")]
RandomInit = Annotated[bool, typer.Option("--random-init", help="Random weights, on purpose; recorded in the space.")]
AllowCode = Annotated[
    list[str],
    typer.Option("--allow-code", metavar="MODULE:FACTORY", help="Your own network that the store may import."),
]
Timing = Annotated[bool, typer.Option("--timing", callback=_timed, help="Say where the time went, on stderr.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait for another writer.")]


def parse_query_part(text: str) -> tuple[str | int | Path, float]:
    """``snow``, ``item:17``, ``image:a.jpg``, each with ``*WEIGHT`` behind if wanted: a query and its weight."""
    body, star, number = text.rpartition("*")
    weight = 1.0
    if star:
        try:
            weight = float(number)
        except ValueError:
            body = text
    what = body.strip() if star else text
    if what.startswith("item:"):
        if not what[5:].isdecimal():
            raise typer.BadParameter(f"expected item:ID with a number, not {what!r}")
        return int(what[5:]), weight
    return (Path(what[6:]) if what.startswith("image:") else what), weight


def parse_assignments(assignments: Sequence[str], option: str, *, allow_lists: bool = False) -> dict[str, Any]:
    """``K=V`` texts as a mapping; V is a JSON value where it parses as one (with ``lists`` also a list), else text."""
    out: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected K=V, not {text!r}", param_hint=option)
        out[name.strip()] = _value(value, lists=allow_lists)
    return out


def parse_integers(text: str, option: str) -> list[int]:
    """Whole numbers with commas between."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as e:
        raise typer.BadParameter(f"expected whole numbers such as 1,2,4, not {text!r}", param_hint=option) from e


def _value(text: str, *, lists: bool) -> Any:
    """A number, true, false or null, or a list where these may be; otherwise the text itself."""
    try:
        value = json.loads(text.lower() if text.lower() in ("true", "false", "none", "null") else text)
    except ValueError:
        return None if text.lower() == "none" else text
    known = isinstance(value, str | int | float | bool) or value is None or (lists and isinstance(value, list))
    return value if known else text

"""Options that several verbs share, and how their text becomes values."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore import timing
from embedstore.cli import console
from embedstore.errors import OutputError
from embedstore.storage import durable_files
from embedstore.storage.disk_errors import output_errors


def _request_timing(wanted: bool) -> None:
    if wanted:
        timing.request_report()


StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The folder of the store.")]
Inbox = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A folder of a bucket (s3://… or gs://…) where workers find their parts and put their results; by default "
        "the folder of the store.",
    ),
]
NewStorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A new folder; nothing is overwritten.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
SpaceName = Annotated[
    str | None, typer.Option("--space", metavar="NAME", help="A space by name or key; by default the default space.")
]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Use only items that match, e.g. \"split = 'val' and year >= 2020\"."),
]
Label = Annotated[str, typer.Argument(metavar="LABEL", help="The label: a column of the items.")]
Device = Annotated[str, typer.Option(help="The device of the backbone: auto, cpu, cuda, cuda:1 or mps.")]
Decoder = Annotated[str, typer.Option(help="What decodes images: auto, pillow, exact, quick, device or hardware.")]
Precision = Annotated[str, typer.Option(help="The precision of the backbone: auto, fp32, fp16 or bf16.")]
Runtime = Annotated[
    str,
    typer.Option(help="What executes the backbone: auto, eager, onnx or compile. Vectors are the same in all."),
]
Weights = Annotated[Path | None, typer.Option(help="A local weights file: .safetensors, or .pth (read as data only).")]
BackboneArg = Annotated[
    list[str], typer.Option("--backbone-arg", metavar="K=V", help="Pass an argument to the architecture. Repeatable.")
]
PreprocessOverride = Annotated[
    list[str],
    typer.Option(
        "--preprocess", metavar="K=V", help="Override the preprocessing: mean, std, size, resize, … Repeatable."
    ),
]
Layer = Annotated[
    str | None, typer.Option(help="Take features at this layer: before-projection, final, 3. By default the last one.")
]
Pool = Annotated[str | None, typer.Option(help="Pool features by avg, max or token. By default as the backbone does.")]
RandomInit = Annotated[
    bool, typer.Option("--random-init", help="Use random weights, on purpose; recorded in the space.")
]
AllowCode = Annotated[
    list[str],
    typer.Option(
        "--allow-code",
        metavar="MODULE:FACTORY",
        help="Allow this Python function to be imported and run as the network. Repeatable.",
    ),
]
Timing = Annotated[
    bool, typer.Option("--timing", callback=_request_timing, help="Print where the time went to stderr.")
]
Wait = Annotated[float, typer.Option(metavar="SECONDS", help="Wait this long for another process that is writing.")]
SaveWait = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", help="Wait this long for another process, to save the head.")
]
Seed = Annotated[int, typer.Option(help="Random seed for splits, folds and heads.")]
Items = Annotated[list[int], typer.Option("--item", metavar="ID", help="Use this item. Repeatable.")]
Root = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="The folder that relative uris start from; by default the table's own folder."),
]
TextColumn = Annotated[
    str | None,
    typer.Option(help="The column of the table whose texts are the items, one per row; for a backbone of texts."),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="The encoding of a text file, e.g. cp1252; by default UTF-8, or what a byte-order mark says."),
]

TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class OptionGroup:
    """Options that are one parameter of a verb."""

    def to_kwargs(self) -> dict[str, Any]:
        """Return the options as keyword arguments of a method."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def output_option(text: str, *suffixes: str) -> Any:
    """Return the option -o/--output of a verb, which refuses what cannot be written before the verb begins its work.

    Args:
        text: the help of the option.
        *suffixes: the suffixes that the verb can write.
    """

    def check(paths: Sequence[Path] | Path) -> Sequence[Path] | Path:
        for path in [paths] if isinstance(paths, Path) else paths:
            if path.suffix.lower() not in suffixes:
                raise typer.BadParameter(f"{path} must end in {' or '.join(suffixes)}")
            if path.is_dir():
                raise typer.BadParameter(f"{path} is a folder; name a file")
            require_writable(path)
        return paths

    return typer.Option("-o", "--output", metavar="FILE", callback=check, help=text)


def require_writable(path: Path) -> None:
    """Check that a file can be created, or missing folders for it, without creating anything.

    Raises:
        OutputError: if the path cannot exist, something on the way is no folder, or the folder may not be written to.
    """
    try:
        with suppress(FileNotFoundError):
            os.lstat(path)
        folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    except (OSError, ValueError) as e:
        raise OutputError(f"cannot write {path}: {getattr(e, 'strerror', None) or e}") from e
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise OutputError(f"cannot write {path}: {folder} may not be written to")


Evaluations = Annotated[
    list[Path], output_option("Write the report (.html) or the confusion matrix (.png). Repeatable.", ".html", ".png")
]
ContactSheets = Annotated[list[Path], output_option("Write a contact sheet (.html). Repeatable.", ".html")]


def write_outputs(paths: Sequence[Path], writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write each file with the writer of its suffix; make missing parent folders, and print a note per file.

    Raises:
        OutputError: if a file cannot be written.
    """
    for path in paths:
        with output_errors(path):
            writers[path.suffix.lower()](path)
        console.print_note(f"wrote {path}")


def text_writer(make: Callable[[], str]) -> Callable[[Path], object]:
    """Return a writer of UTF-8 text that is made when it is needed."""
    return lambda path: durable_files.write_output(path, make().encode())


def parse_query_part(text: str) -> tuple[str | int | Path, float]:
    """Parse ``snow``, ``item:17`` or ``image:a.jpg``, each optionally with ``*WEIGHT``, as a query and its weight."""
    body, star, number = text.rpartition("*")
    weight = 1.0
    if star:
        try:
            weight = float(number)
        except ValueError:
            body = text
    query = body.strip() if star else text
    if query.startswith("item:"):
        if not query[5:].isdecimal():
            raise typer.BadParameter(f"expected item:ID with a number, not {query!r}")
        return int(query[5:]), weight
    return (Path(query[6:]) if query.startswith("image:") else query), weight


def parse_assignments(assignments: Sequence[str], option: str, *, allow_lists: bool = False) -> dict[str, Any]:
    """Parse ``K=V`` texts as a mapping; V is a JSON scalar (or list or object) if it parses as one, else text."""
    out: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected K=V, not {text!r}", param_hint=option)
        out[name.strip()] = _parse_value(value, allow_lists=allow_lists)
    return out


def parse_integers(text: str, option: str) -> list[int]:
    """Parse integers with commas between them."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as e:
        raise typer.BadParameter(f"expected integers such as 1,2,4, not {text!r}", param_hint=option) from e


def parse_names(text: str) -> list[str]:
    """Parse names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _parse_value(text: str, *, allow_lists: bool) -> Any:
    """Return a number, bool, None or (if allowed) a list or mapping; otherwise the text itself."""
    try:
        value = json.loads(text.lower() if text.lower() in ("true", "false", "none", "null") else text)
    except ValueError:
        return None if text.lower() == "none" else text
    known = (
        isinstance(value, str | int | float | bool) or value is None or (allow_lists and isinstance(value, list | dict))
    )
    return value if known else text

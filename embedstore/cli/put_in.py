"""The verbs. Each parses, makes one call, and prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import embedstore as es
from embedstore import timing
from embedstore.cli import console, render
from embedstore.cli import options as o

if TYPE_CHECKING:
    from embedstore.store import BackboneOptions

app = typer.Typer(
    help="Embed an image collection once; search it, probe it, label it from the cached features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"embedstore {es.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
    show_timing: o.Timing = False,
) -> None:
    """Embed an image collection once; search it, probe it, label it from the cached features."""


@app.command()
def create(
    store: o.StorePath,
    backbone: Annotated[
        str | None, typer.Option(help="timm/NAME, open_clip/ARCH:TAG, module:factory, or an alias such as clip.")
    ] = None,
    weights: o.Weights = None,
    backbone_arg: o.BackboneArg = [],
    preprocess: o.PreprocessOverride = [],
    layer: o.Layer = None,
    pool: o.Pool = None,
    random_init: o.RandomInit = False,
    seed: Annotated[int, typer.Option(help="Of random weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="Of the vectors on disk: float16 or float32.")] = "float16",
    name: Annotated[str | None, typer.Option(help="Of the space; by default the backbone's.")] = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    as_json: o.Json = False,
) -> None:
    """Make a store, with the space of a backbone unless none is named."""
    chosen = _backbone_options(weights, backbone_arg, preprocess, layer, pool, random_init, seed)
    if backbone is None and any(chosen.values()):
        raise typer.BadParameter("these options describe a backbone; name it with --backbone")
    how = {"device": device, "precision": precision, "runtime": runtime}
    made = es.create(store, backbone, dtype=dtype, name=name, **how, **chosen)
    if runtime == "onnx" and backbone:
        console.print_note("\n".join(made.export_towers()))
    render.print_info(made, as_json)


@app.command()
def embed(
    store: o.StorePath,
    source: Annotated[
        list[str] | None, typer.Argument(help="An image folder, files or globs, or a CSV/Parquet manifest with `uri`.")
    ] = None,
    label: Annotated[
        str, typer.Option(help="folder: the class is the parent folder's name; none: no class.")
    ] = "folder",
    space: o.SpaceName = None,
    backbone: Annotated[str | None, typer.Option(help="Embed into the space of this backbone, made if new.")] = None,
    weights: o.Weights = None,
    backbone_arg: o.BackboneArg = [],
    preprocess: o.PreprocessOverride = [],
    layer: o.Layer = None,
    pool: o.Pool = None,
    random_init: o.RandomInit = False,
    vectors: Annotated[Path | None, typer.Option(help="Precomputed vectors (.npy) instead of a source.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV/Parquet/JSON lines with one row a vector.")] = None,
    uri_column: Annotated[str | None, typer.Option(help="The table's column that names the images.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per forward.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Decoding threads; by default one per core.")] = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    decoder: o.Decoder = "auto",
    allow_code: o.AllowCode = [],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Embed what is new or changed; resumable, and bad images are counted and named."""
    if bool(source) == (vectors is not None):
        raise typer.BadParameter("name either a source of images or --vectors")
    how = {"device": device, "precision": precision, "runtime": runtime, "decoder": decoder}
    opened = es.open(store, **how, allow_code=allow_code)
    if vectors is not None:
        found = opened.add_vectors(vectors, table, uri_column=uri_column, space=space or "precomputed", wait=wait)
        result = found.to_json()
        console.print_json(result) if as_json else console.print_facts(list(result.items()))
        return
    if backbone:
        chosen = _backbone_options(weights, backbone_arg, preprocess, layer, pool, random_init, 0)
        space = opened.add_space(backbone, name=space, **chosen).name
    report = opened.embed(
        source or [],
        label=None if label == "none" else label,
        space=space,
        batch_size=batch_size,
        threads=threads,
        wait=wait,
    )
    if as_json:
        console.print_json(report.to_json())
    else:
        for notice in report.notices:
            if notice not in opened.notices:  # those were said at once
                console.print_note(notice)
        print(report.summary())
        if report.bottleneck:
            print(report.bottleneck)
        render.print_failures(opened, report.failures)


@app.command()
def info(store: o.StorePath, show_timing: o.Timing = False, as_json: o.Json = False) -> None:
    """What a store holds: items, contents, failures, spaces, indexes, heads, bytes."""
    with timing.time_step("opening the store"):
        opened = es.counting(store)
    with timing.time_step("counting"):
        render.print_info(opened, as_json)


@app.command()
def backbones(
    filter: Annotated[str, typer.Argument(help="Part of a name or family.")] = "",
    text: Annotated[bool, typer.Option("--text", help="Only those that understand words.")] = False,
    as_json: o.Json = False,
) -> None:
    """The known pre-trained backbones: family, parameters, dim, input size, licence; nothing is downloaded."""
    from embedstore.backbones import list_backbones

    facts = [f for f in list_backbones(filter) if f.supports_text or not text]
    if as_json:
        console.print_json([f.to_json() for f in facts])
        return
    rows = [
        (
            f.name,
            f.family,
            f"{f.parameters / 1e6:.1f} M" if f.parameters else "",
            f.dim,
            f.input_size,
            "yes" if f.supports_text else "",
            f.licence,
        )
        for f in facts
    ]
    console.print_table(("backbone", "family", "parameters", "dim", "input", "words", "licence"), rows)
    console.print_note(f"{len(facts)} backbones; any other timm or open_clip name works too")


def _backbone_options(
    weights: Path | None,
    backbone_arg: Sequence[str],
    preprocess: Sequence[str],
    layer: str | None,
    pool: str | None,
    random_init: bool,
    seed: int,
) -> BackboneOptions:
    """The options that describe a backbone."""
    return {
        "weights": weights,
        "backbone_args": o.parse_assignments(backbone_arg, "--backbone-arg"),
        "preprocess": o.parse_assignments(preprocess, "--preprocess"),
        "layer": layer,
        "pool": pool,
        "random_init": random_init,
        "seed": seed,
    }

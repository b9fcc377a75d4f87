"""Verbs that put images and vectors in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import embedstore as es
from embedstore.cli import console, render, render_evaluation
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.cli.option_groups import Head, with_option_groups
from embedstore.cli.source_options import SourceOptionGroup, TableOptionGroup
from embedstore.wording import counted


@app.command(rich_help_panel=Panel.PUT_IN)
def create(
    store: o.NewStorePath,
    backbone: Annotated[
        str | None,
        typer.Option(help="The backbone: timm/NAME, open_clip/ARCH:TAG, module:factory, or an alias such as clip."),
    ] = None,
    weights: o.Weights = None,
    backbone_arg: o.BackboneArg = [],
    preprocess: o.PreprocessOverride = [],
    layer: o.Layer = None,
    pool: o.Pool = None,
    random_init: o.RandomInit = False,
    seed: Annotated[int, typer.Option(help="Random seed of random weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="Store vectors as float16 or float32.")] = "float16",
    space_name: Annotated[
        str | None, typer.Option(help="The name of the space; by default a short name of the backbone.")
    ] = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    as_json: o.Json = False,
) -> None:
    """Create a store, and the space of a backbone if one is named.

    `embedstore create pets.store --backbone clip`
    """
    described = _backbone_options(weights, backbone_arg, preprocess, layer, pool, random_init, seed)
    if backbone is None and any(described.values()):
        raise typer.BadParameter("these options describe a backbone; name it with --backbone")
    created = es.create(
        store,
        backbone,
        dtype=dtype,
        space_name=space_name,
        device=device,
        precision=precision,
        runtime=runtime,
        **described,
    )
    if runtime == "onnx" and backbone:
        console.print_note("\n".join(created.export_towers()))
    render.print_info(created.info(), as_json)


@app.command(rich_help_panel=Panel.PUT_IN)
@with_option_groups
def embed(
    store: o.StorePath,
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="An image folder, files or globs, a CSV/TSV/Parquet/JSON manifest with a column uri, or Parquet files "
            "that hold the images. With --annotations, the folder of the photos.",
        ),
    ] = None,
    *,
    sources: SourceOptionGroup,
    space: o.SpaceName = None,
    backbone: Annotated[
        str | None, typer.Option(help="Embed into the space of this backbone, which is added if it is new.")
    ] = None,
    weights: o.Weights = None,
    backbone_arg: o.BackboneArg = [],
    preprocess: o.PreprocessOverride = [],
    layer: o.Layer = None,
    pool: o.Pool = None,
    random_init: o.RandomInit = False,
    vectors: Annotated[
        Path | None,
        typer.Option(help="Import these precomputed vectors (.npy or .parquet) instead of embedding a source."),
    ] = None,
    vector_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The column of vectors in the .parquet file; by default vector, or the only one of lists of floats.",
        ),
    ] = None,
    table: Annotated[Path | None, typer.Option(help="A CSV/TSV/Parquet/JSON table with one row per vector.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Store vectors of a new space as float16 or float32; by default float16, else as the space does."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per forward pass; by default the backbone's own.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads; by default one per core, if memory allows.")
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            help="In which order files are read: scan (as they are listed) or spread (every folder in turn, all dates)."
        ),
    ] = "scan",
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    decoder: o.Decoder = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="Where to embed: local (here), processes (here, one process per device) or ray (a cluster that sees "
            "the source and the store or --inbox)."
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The Ray cluster; by default Ray is started on this machine."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers of --engine; by default one per device, or on a cluster's CPUs per 4 cores."),
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores of a worker on the cluster; by default 4.")] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a worker on the cluster, also a fraction; by default 1 if any.")
    ] = None,
    inbox: o.Inbox = None,
    allow_code: o.AllowCode = [],
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running, and embed again when the source has changed and is quiet.")
    ] = False,
    poll: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="With --watch, list the source again after this time; by default 30 for buckets and network disks.",
        ),
    ] = None,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Embed what is new or changed; resumable. Images that fail are counted and listed.

    `embedstore embed pets.store photos/`
    """
    if bool(source or sources.annotations) == (vectors is not None):
        raise typer.BadParameter("name either a source of images or --vectors")
    opened = es.open(store, device=device, precision=precision, runtime=runtime, decoder=decoder, allow_code=allow_code)
    if poll is not None and not watch:
        raise typer.BadParameter("--poll is for --watch; without it the source is embedded once")
    if vector_column is not None and vectors is None:
        raise typer.BadParameter("--vector-column is for --vectors")
    if vectors is not None:
        if watch:
            raise typer.BadParameter("--watch is for a source of images, and not for --vectors")
        if sources.collect_rows:
            raise typer.BadParameter("--collect-rows is for a manifest; every vector has one row of its table")
        counts = opened.add_vectors(
            vectors,
            table,
            vector_column=vector_column,
            uri_column=sources.uri_column,
            root=sources.root,
            encoding=sources.encoding,
            space=space or "precomputed",
            dtype=dtype,
            wait=wait,
        )
        render.print_counts(counts, as_json)
        return
    if backbone:
        described = _backbone_options(weights, backbone_arg, preprocess, layer, pool, random_init, 0)
        space = opened.add_space(backbone, space_name=space, dtype=dtype or "float16", wait=wait, **described).name
    elif dtype:
        raise typer.BadParameter("--dtype describes a new space; add --vectors or --backbone")
    report = opened.embed(
        source or [],
        **sources.to_kwargs(),
        space=space,
        batch_size=batch_size,
        threads=threads,
        order=order,
        engine=engine,
        address=address,
        workers=workers,
        cpus=cpus,
        gpus=gpus,
        inbox=inbox,
        watcher=partial(render.print_watch_event, opened, as_json) if watch else None,
        poll=poll,
        wait=wait,
    )
    render.print_embed_report(opened, report, as_json)
    sys.stdout.flush()  # the report is complete; what follows serves the next command
    for sentence in opened.close():
        console.print_note(sentence)
    if report.failed_entirely:
        raise typer.Exit(1)


@app.command(rich_help_panel=Panel.PUT_IN)
def reembed(
    store: o.StorePath,
    space: o.SpaceName = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    allow_code: o.AllowCode = [],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Embed the images of the store that have no vector in a space yet; resumable."""
    report = es.open(store, device=device, precision=precision, allow_code=allow_code).reembed(space, wait=wait)
    console.print_json(report.to_json()) if as_json else console.print_line(report.summary())


@app.command("import", rich_help_panel=Panel.PUT_IN)
def import_(
    store: o.NewStorePath,
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `embedstore export STORE FOLDER` wrote.")],
    as_json: o.Json = False,
) -> None:
    """Make a store from an export: every table, every vector bit for bit, heads and checkpoints.

    `embedstore import pets2.store pets-export`
    """
    counts = es.import_store(store, source)
    if as_json:
        console.print_json(counts.to_json())
        return
    tables = counts.tables
    console.print_line(
        f"{counted(tables['items'], 'item')} and {counted(counts.vectors, 'vector')}, spaces: {tables['spaces']}, in "
        f"{store}"
    )


@app.command(rich_help_panel=Panel.PUT_IN)
@with_option_groups
def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A labeled folder, a manifest with the columns uri and label, or a table of texts."
        ),
    ],
    table: TableOptionGroup,
    output: Annotated[Path, o.output_option("Write the page (.html).", ".html")] = Path("report.html"),
    backbone: Annotated[
        str | None, typer.Option(help="The backbone of a new store: timm/NAME, open_clip/ARCH:TAG or an alias.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="The folder of the store; by default SOURCE.store next to the source.")
    ] = None,
    label: Annotated[
        str, typer.Option(help="The column to predict; by default label, of folders or the table.")
    ] = "label",
    head: Head = "logistic",
    weights: o.Weights = None,
    backbone_arg: o.BackboneArg = [],
    preprocess: o.PreprocessOverride = [],
    random_init: o.RandomInit = False,
    as_json: o.Json = False,
) -> None:
    """Make a report on a labeled folder in one command: embed what is new, probe, measure a learning curve.

    `embedstore report photos/ -o report.html --backbone timm/resnet50`

    `embedstore report reviews.csv --text-column text --label sentiment`
    """
    from embedstore.quickstart.folder_report import folder_report

    result = folder_report(
        source,
        output,
        backbone=backbone,
        store_path=store,
        label=label,
        table=table.to_kwargs(),
        head=head,
        progress=console.print_note,
        weights=weights,
        backbone_args=o.parse_assignments(backbone_arg, "--backbone-arg"),
        preprocess=o.parse_assignments(preprocess, "--preprocess"),
        random_init=random_init,
    )
    render_evaluation.print_evaluation(result.store, result.evaluation, [], as_json, curve=result.curve)


@app.command(rich_help_panel=Panel.PUT_IN)
def backbones(
    words: Annotated[str, typer.Argument(metavar="WORDS", help="Parts of a name or family.")] = "",
    text: Annotated[bool, typer.Option("--text", help="List only backbones with a text tower.")] = False,
    as_json: o.Json = False,
) -> None:
    """List the pre-trained backbones: family, parameters, dimension, input size, licence; downloads nothing."""
    from embedstore.backbones import list_backbones

    infos = [i for i in list_backbones(words) if i.supports_text or not text]
    if as_json:
        console.print_json([i.to_json() for i in infos])
        return
    rows = [
        (
            i.name,
            i.family,
            f"{i.parameters / 1e6:.1f} M" if i.parameters else "",
            i.dim,
            i.input_size,
            "yes" if i.supports_text else "",
            i.licence,
        )
        for i in infos
    ]
    console.print_table(("backbone", "family", "parameters", "dim", "input", "text", "licence"), rows)
    console.print_note(f"{len(infos)} backbones; any other name of timm, open_clip or hf/ works too")


def _backbone_options(
    weights: Path | None,
    backbone_arg: Sequence[str],
    preprocess: Sequence[str],
    layer: str | None,
    pool: str | None,
    random_init: bool,
    seed: int,
) -> dict[str, Any]:
    """Return the options that describe a backbone."""
    return {
        "weights": weights,
        "backbone_args": o.parse_assignments(backbone_arg, "--backbone-arg"),
        "preprocess": o.parse_assignments(preprocess, "--preprocess"),
        "layer": layer,
        "pool": pool,
        "random_init": random_init,
        "seed": seed,
    }

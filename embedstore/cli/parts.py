"""Verbs of embedding in parts on several machines."""

from __future__ import annotations

from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app


@app.command("plan-parts", rich_help_panel=Panel.PUT_IN)
def plan_parts(
    store: o.StorePath,
    source: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="What to embed, as for embed; every worker must see it."),
    ] = None,
    parts: Annotated[
        int | None, typer.Option(min=1, help="The number of parts; by default parts of 4,096 files.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a plan that has parts left; what they have is registered first.")
    ] = False,
    inbox: o.Inbox = None,
    annotations: Annotated[
        list[str], typer.Option(metavar="PATH", help="Embed the photos that annotations list. Repeatable.")
    ] = [],
    crops: Annotated[
        bool, typer.Option("--crops", help="Embed every box of the annotations in place of the photos.")
    ] = False,
    labels_from: Annotated[
        str, typer.Option(help="Where labels come from: folder (the parent folder's name) or none.")
    ] = "folder",
    splits_from: Annotated[
        str, typer.Option(help="Where splits come from: folder (one named train, val or test) or none.")
    ] = "folder",
    uri_column: Annotated[
        str | None, typer.Option(help="The column of the manifest that names the images; by default uri.")
    ] = None,
    root: o.Root = None,
    encoding: o.Encoding = None,
    collect_rows: Annotated[
        bool, typer.Option("--collect-rows", help="Make one item of several rows of an image.")
    ] = False,
    text_column: o.TextColumn = None,
    exclude: Annotated[
        list[str], typer.Option(metavar="GLOB", help="Skip files and folders of this name. Repeatable.")
    ] = [],
    hidden: Annotated[bool, typer.Option("--hidden", help="Embed hidden files and folders too.")] = False,
    raw_pairs: Annotated[
        str,
        typer.Option(help="What is embedded of a RAW file and a JPEG or HEIC file of the same name: photo or both."),
    ] = "photo",
    pages: Annotated[bool, typer.Option("--pages", help="Embed the pages of PDF files.")] = False,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Embed a frame of each video every so many seconds.")
    ] = None,
    key_frames: Annotated[bool, typer.Option("--key-frames", help="Embed the key frames of each video.")] = False,
    space: o.SpaceName = None,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Plan an embedding run as parts, for workers on several machines.

    `embedstore plan-parts pets.store photos/ --parts 400`
    """
    report = es.open(store).plan_parts(
        source or [],
        parts,
        replace=replace,
        inbox=inbox,
        annotations=annotations,
        crops=crops,
        labels_from=None if labels_from == "none" else labels_from,
        splits_from=None if splits_from == "none" else splits_from,
        uri_column=uri_column,
        root=root,
        encoding=encoding,
        collect_rows=collect_rows,
        text_column=text_column,
        exclude=exclude,
        hidden=hidden,
        raw_pairs=raw_pairs,
        pages=pages,
        every=every,
        key_frames=key_frames,
        space=space,
        wait=wait,
    )
    if as_json:
        console.print_json(report.to_json())
        return
    console.print_line(report.summary())
    if report.parts:
        where = "STORE" if inbox is None else report.address
        console.print_note(f"run `embedstore work {where} --part N/{report.parts}` for N from 1 to {report.parts}")


@app.command(rich_help_panel=Panel.PUT_IN)
def work(
    store: Annotated[
        str,
        typer.Argument(metavar="STORE", help="The folder of the store, or of the plan in a bucket (s3://…)."),
    ],
    part: Annotated[str, typer.Option(metavar="N/PARTS", help="The part to embed, for example 17/400.")],
    space: Annotated[
        str | None, typer.Option(help="The space of the plan; by default the only one with a plan.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per forward pass; by default the backbone's own.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads; by default one per core, if memory allows.")
    ] = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    decoder: o.Decoder = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """Embed one part of a plan on any machine that sees the store or the bucket; the catalog is not opened.

    `embedstore work pets.store --part 17/400`
    """
    report = es.work(
        store,
        part,
        space=space,
        device=device,
        precision=precision,
        runtime=runtime,
        decoder=decoder,
        allow_code=allow_code,
        batch_size=batch_size,
        threads=threads,
    )
    console.print_json(report.to_json()) if as_json else console.print_line(report.summary())


@app.command(rich_help_panel=Panel.PUT_IN)
def register(
    store: o.StorePath,
    space: Annotated[
        str | None, typer.Option(help="The space of the plan; by default the only one with a plan.")
    ] = None,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Take over what workers wrote; may run at any time and any number of times.

    `embedstore register pets.store`
    """
    report = es.open(store).register(space, wait=wait)
    if as_json:
        console.print_json(report.to_json())
        return
    for line in report.torn:
        console.print_note(line)
    console.print_line(report.summary())

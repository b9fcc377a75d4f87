"""Verbs of embedding in parts on several machines."""

from __future__ import annotations

from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.cli.option_groups import with_option_groups
from embedstore.cli.source_options import SourceOptionGroup


@app.command("plan-parts", rich_help_panel=Panel.PUT_IN)
@with_option_groups
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
        bool,
        typer.Option(
            "--replace", help="Replace a plan with unfinished parts; results of finished parts are registered first."
        ),
    ] = False,
    inbox: o.Inbox = None,
    *,
    sources: SourceOptionGroup,
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
        **sources.to_kwargs(),
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
    """Register the results of workers in the store. It may run at any time, as often as you like.

    `embedstore register pets.store`
    """
    report = es.open(store).register(space, wait=wait)
    if as_json:
        console.print_json(report.to_json())
        return
    for line in report.torn:
        console.print_note(line)
    console.print_line(report.summary())

"""Verbs that keep a store safe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.wording import counted


@app.command(rich_help_panel=Panel.KEEP_SAFE)
def verify(
    store: o.StorePath,
    images: Annotated[
        bool, typer.Option("--images", help="Also read every image and check that it is unchanged.")
    ] = False,
    untrusted: Annotated[
        bool,
        typer.Option(
            "--untrusted", help="Instead, list what is unsafe in a store from somebody else; the store is not opened."
        ),
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Compare every file of the store with its checksum; exit with status 1 if something is damaged."""
    if untrusted:
        _verify_untrusted(store, as_json)
    report = es.open(store).verify(check_images=images, progress=None)
    if as_json:
        console.print_json(report.to_json())
    else:
        for finding in [*report.damage, *report.unread]:
            console.print_line(str(finding))
        console.print_line(report.summary())
    raise typer.Exit(0 if report.ok else 1)


def _verify_untrusted(store: Path, as_json: bool) -> NoReturn:
    """Print what a store would have tried, and exit."""
    report = es.verify_untrusted(store)
    if as_json:
        console.print_json(report.to_json())
    else:
        for finding in report.findings:
            console.print_line(str(finding))
        console.print_line(report.summary())
    raise typer.Exit(0 if report.ok else 1)


@app.command(rich_help_panel=Panel.KEEP_SAFE)
def repair(
    store: o.StorePath,
    reembed: Annotated[bool, typer.Option(help="Embed lost vectors again if the backbone can be loaded.")] = True,
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Repair what `embedstore verify STORE` finds: rebuild what can be rebuilt, quarantine the rest, delete nothing."""
    report = es.repair_store(store, reembed=reembed, wait=wait, device=device, allow_code=allow_code)
    if as_json:
        console.print_json(report.to_json())
        return
    for line in [*report.actions, *report.unresolved]:
        console.print_line(line)
    lost, again = report.n_lost_vectors, report.n_reembedded
    console.print_line(
        f"{counted(lost, 'vector was', 'vectors were')} lost, {again:,} of them were embedded again" if lost else "done"
    )


@app.command(rich_help_panel=Panel.KEEP_SAFE)
def backup(
    store: o.StorePath,
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    hard_link: Annotated[
        bool, typer.Option("--hard-link", help="Make hard links instead of copies: instant, but on the same disk.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Copy a store, also while another process embeds into it; every vector is checked."""
    result = es.open(store).backup(target, hard_link=hard_link, progress=None)
    _print_copy(result, target, as_json)


@app.command(rich_help_panel=Panel.KEEP_SAFE)
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="The folder of a backup.")],
    store: o.NewStorePath,
    as_json: o.Json = False,
) -> None:
    """Make a store from a backup; every file is checked."""
    _print_copy(es.restore(source, store, progress=None), store, as_json)


@app.command(rich_help_panel=Panel.KEEP_SAFE)
def compact(store: o.StorePath, wait: o.Wait = 0.0, as_json: o.Json = False) -> None:
    """Merge small vector files, wipe vectors that no item needs, and build their indexes again."""
    result = es.open(store).compact(wait=wait, progress=console.print_note)
    console.print_result(result.to_json(), as_json)


def _print_copy(result: es.Backup, folder: Path, as_json: bool) -> None:
    """Print what a copy of a store has."""
    if as_json:
        console.print_json(result.to_json())
    else:
        console.print_line(f"{counted(result.shards, 'vector file')}, {console.format_bytes(result.bytes)}: {folder}")

"""Verbs that keep a store whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.put_in import app

if TYPE_CHECKING:
    from embedstore.storage.integrity.report import CheckProgress


@app.command()
def verify(
    store: o.StorePath,
    images: Annotated[bool, typer.Option("--images", help="Read every image again too, and compare.")] = False,
    as_json: o.Json = False,
) -> None:
    """Read every byte that matters and compare it with its checksum; exit status 1 on damage, which is named."""
    with _progress() as show:
        report = es.open(store).verify(check_images=images, progress=show)
    if as_json:
        console.print_json(report.to_json())
    else:
        for damage in report.damage:
            print(console.one_line(str(damage)))
        print(report.summary())
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def repair(
    store: o.StorePath,
    reembed: Annotated[bool, typer.Option(help="Embed lost vectors again where the backbone can be loaded.")] = True,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    allow_code: o.AllowCode = [],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Repair what verify names: correct what is provable, quarantine the rest, delete nothing."""
    from embedstore.operations.maintenance import repair_store

    result = repair_store(
        store,
        reembed=reembed,
        wait=wait,
        open_session=lambda: es.open(store, device=device, precision=precision, allow_code=allow_code),
    )
    if as_json:
        console.print_json(result.to_json())
        return
    for line in [*result.actions, *result.unresolved]:
        print(console.one_line(line))
    lost, again = result.n_lost_vectors, result.n_reembedded
    print(f"{lost:,} vectors were lost, {again:,} of them were embedded again" if lost else "done")


@app.command()
def backup(
    store: o.StorePath,
    target: Annotated[Path, typer.Argument(metavar="DEST", help="A new folder.")],
    hard_link: Annotated[
        bool, typer.Option("--hard-link", help="Make hard links instead of copies: instant, but on the same disk.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Copy a store, also while another process embeds into it; every vector is checked on the way."""
    with _progress() as show:
        done = es.open(store).backup(target, hard_link=hard_link, progress=show)
    console.print_json(done) if as_json else print(
        f"{done['shards']:,} vector files, {console.format_bytes(done['bytes'])}: {target}"
    )


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A backup's folder.")],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A new folder; nothing is written over.")],
    as_json: o.Json = False,
) -> None:
    """Make a store of a backup, checked on the way."""
    from embedstore.operations.maintenance import restore as restored

    with _progress() as show:
        done = restored(source, store, progress=show)
    console.print_json(done) if as_json else print(
        f"{done['shards']:,} vector files, {console.format_bytes(done['bytes'])}: {store}"
    )


@app.command("import")
def import_(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A new folder; nothing is written over.")],
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `embedstore export STORE FOLDER` wrote.")],
    as_json: o.Json = False,
) -> None:
    """Make a store of an export: every table, every vector bit for bit, heads and checkpoints.

    `embedstore import pets2.store pets-export`
    """
    from embedstore.operations.maintenance import import_store

    done = import_store(store, source)
    console.print_json(done) if as_json else print(
        f"{done['items']:,} items and {done['vectors']:,} vectors, spaces: {done['spaces']}, in {store}"
    )


@contextmanager
def _progress() -> Iterator[Callable[[CheckProgress], None]]:
    """A bar on stderr for whoever watches a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as drawn:
        task = drawn.add_task("checking", total=None)
        yield lambda c: drawn.update(task, description=c.unit, completed=c.done, total=c.total)

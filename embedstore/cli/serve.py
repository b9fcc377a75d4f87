"""The verb that opens the page of a store."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app


@app.command(rich_help_panel=Panel.SEARCH)
def serve(
    store: o.StorePath,
    host: Annotated[
        str, typer.Option(help="The address to listen at. Any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen at; 0 takes a free one.")] = 8642,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="EMBEDSTORE_TOKEN",
            help="The secret that a browser or program shows. By default a new one, printed with the address.",
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every change of the store.")] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the page in a browser.")] = False,
    replica: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Search by this replica, see `embedstore replicate`, and not in the store."),
    ] = None,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    allow_code: o.AllowCode = [],
) -> None:
    """Open the store as a page in the browser, and its API for programs; Ctrl-C ends it.

    `embedstore serve pets.store`
    """
    opened = es.open(store, device=device, precision=precision, runtime=runtime, allow_code=allow_code)
    opened.serve(
        host=host,
        port=port,
        token=token,
        read_only=read_only,
        open_browser=not no_open,
        replica=replica,
        announce=_announce,
    )


def _announce(line: str) -> None:
    """Print one line now: a program that started the server reads its address."""
    console.print_line(line)
    sys.stdout.flush()

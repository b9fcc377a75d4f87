"""The verb that gives a store to a language model as tools."""

from __future__ import annotations

from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app


@app.command(rich_help_panel=Panel.SEARCH)
def mcp(
    store: o.StorePath,
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer no tool that changes the store.")] = False,
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
) -> None:
    """Offer search, sql, show, label and probe as tools of the Model Context Protocol on stdin and stdout.

    `embedstore mcp pets.store`
    """
    es.open(store, device=device, allow_code=allow_code).serve_tools(read_only=read_only)

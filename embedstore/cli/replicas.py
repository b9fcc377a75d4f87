"""The verb of copies in vector databases."""

from __future__ import annotations

from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app


@app.command(rich_help_panel=Panel.SEARCH)
def replicate(
    store: o.StorePath,
    address: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ADDRESS",
            help="postgresql://USER@HOST:PORT/DATABASE, with the password in $PGPASSWORD or ~/.pgpass, or "
            "qdrant://HOST:PORT; several servers hold a part each. By default those of the last call.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The name of the replica and its table.")] = "embedstore",
    columns: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Columns to copy with the vectors; by default those of the last call."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare counts and sampled vectors with the store; write nothing.")
    ] = False,
    space: o.SpaceName = None,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Wait this long for another process that is writing a copy of the space."),
    ] = 0.0,
    as_json: o.Json = False,
) -> None:
    """Copy a space into PostgreSQL with pgvector or into Qdrant, or bring the copy up to date.

    `embedstore replicate pets.store postgresql://me@localhost/pets --columns label,split`
    """
    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    report = es.open(store).replicate(
        address or [], name=name, columns=names, space=space, check=check, wait=wait, progress=False
    )
    console.print_json(report.to_json()) if as_json else console.print_line(report.summary())
    raise typer.Exit(1 if report.problems else 0)

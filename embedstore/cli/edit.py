"""Verbs that change what is stored."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console, render
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.wording import counted

Space = Annotated[str, typer.Argument(metavar="SPACE", help="Name or key of a space.")]


@app.command(rich_help_panel=Panel.CHANGE)
def edit(
    store: o.StorePath,
    table: Annotated[
        Path | None,
        typer.Argument(metavar="TABLE", help="A CSV, TSV, Parquet or JSON table with item or uri, and columns to set."),
    ] = None,
    uri_column: Annotated[
        str | None, typer.Option(help="The column of the table that names the images; by default item, else uri.")
    ] = None,
    root: o.Root = None,
    encoding: o.Encoding = None,
    assignments: Annotated[
        list[str], typer.Option("--set", metavar="COLUMN=SQL", help="Set a column to an SQL expression. Repeatable.")
    ] = [],
    add_columns: Annotated[bool, typer.Option("--add-columns", help="Add columns that do not exist.")] = False,
    where: o.Where = None,
    item: o.Items = [],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Change labels and other columns, by expressions or from a table.

    `embedstore edit pets.store --set "label='bee'" --where "label = 'Bee'"`
    """
    if (table is None) == (not assignments):
        raise typer.BadParameter("give either a TABLE or --set COLUMN=SQL")
    opened = es.open(store)
    if table is not None:
        edited = opened.edit_from_table(table, key=uri_column, root=root, encoding=encoding, wait=wait)
        render.print_counts(edited, as_json)
        return
    columns = _parse_columns(assignments)
    result = opened.edit(columns, where, items=item or None, create_columns=add_columns, wait=wait)
    console.print_result(result.to_json(), as_json)


@app.command(rich_help_panel=Panel.CHANGE)
def rename(
    store: o.StorePath,
    old: Annotated[str, typer.Argument(metavar="OLD", help="A uri, or a folder that ends in /.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The new uri or folder.")],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Change the uri of an item, or of all items in a folder; files are not touched."""
    console.print_result(es.open(store).rename(old, new, wait=wait).to_json(), as_json)


@app.command("rename-space", rich_help_panel=Panel.CHANGE)
def rename_space(
    store: o.StorePath,
    old: Space,
    new: Annotated[str, typer.Argument(metavar="NAME", help="The new name.")],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Rename a space."""
    es.open(store).rename_space(old, new, wait=wait)
    console.print_result({"space": new}, as_json)


@app.command(rich_help_panel=Panel.CHANGE)
def delete(
    store: o.StorePath, where: o.Where = None, item: o.Items = [], wait: o.Wait = 0.0, as_json: o.Json = False
) -> None:
    """Delete items; their files are not touched, and a later scan of them adds them again.

    `embedstore delete pets.store --where "label = 'spam'"`
    """
    console.print_result(es.open(store).delete(where, items=item or None, wait=wait).to_json(), as_json)


@app.command(rich_help_panel=Panel.CHANGE)
def purge(
    store: o.StorePath, where: o.Where = None, item: o.Items = [], wait: o.Wait = 0.0, as_json: o.Json = False
) -> None:
    """Remove images for good, with every item of the same bytes; the next `embedstore compact` wipes their bytes.

    Vectors, predictions, failures and texts in the recorded runs go too, and saved heads with copies of the vectors.
    Backups, exports and the quarantine keep theirs.

    `embedstore purge pets.store --item 17`, then `embedstore compact pets.store`
    """
    result = es.open(store).purge(where, items=item or None, wait=wait)
    console.print_result(result.to_json(), as_json)
    console.print_note(
        f"run `embedstore compact {shlex.quote(str(store))}` to wipe the bytes; backups, exports and the folder "
        "quarantine keep theirs"
    )


@app.command("set-default", rich_help_panel=Panel.CHANGE)
def set_default(
    store: o.StorePath,
    space: Space,
    refit_heads: Annotated[
        bool, typer.Option("--refit-heads", help="First fit the saved heads of related spaces again in this space.")
    ] = False,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Make a space the default, which is used where none is named."""
    result = es.open(store).set_default(space, refit_heads=refit_heads, wait=wait)
    if as_json:
        console.print_json(result.to_json())
        return
    console.print_line(f"default space: {result.space}")
    for title, lines in (("refitted", result.refitted), ("skipped", result.skipped)):
        for line in lines:
            console.print_line(f"{title}: {line}")
    if result.without_vector:
        console.print_note(
            f"{counted(result.without_vector, 'image has', 'images have')} no vector in {result.space} yet, so "
            "searches there do not find "
            f"them: `embedstore reembed {shlex.quote(str(store))} --space {shlex.quote(result.space)}`"
        )


@app.command("drop-space", rich_help_panel=Panel.CHANGE)
def drop_space(store: o.StorePath, space: Space, wait: o.Wait = 0.0, as_json: o.Json = False) -> None:
    """Remove a space with its vectors, indexes and checkpoint; refused while heads depend on it."""
    result = es.open(store).drop_space(space, wait=wait)
    if as_json:
        console.print_json(result.to_json())
    else:
        console.print_line(
            f"dropped {space}: {counted(result.vectors, 'vector')}, {console.format_bytes(result.bytes)} freed"
        )


def _parse_columns(assignments: Sequence[str]) -> dict[str, str]:
    """Parse ``COLUMN=SQL`` texts."""
    columns = {}
    for text in assignments:
        column, equals, expression = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected COLUMN=SQL, not {text!r}", param_hint="--set")
        columns[column.strip()] = expression.strip()
    return columns

"""Verbs that change what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.put_in import app
from embedstore.tables import save_records

Items = Annotated[list[int], typer.Option("--item", help="An item's id; again for more.")]


@app.command()
def delete(
    store: o.StorePath, where: o.Where = None, item: Items = [], wait: o.Wait = 0.0, as_json: o.Json = False
) -> None:
    """Take items out of the store; their files are not touched, and a later scan of them adds them anew.

    `embedstore delete pets.store --where "label = 'spam'"`
    """
    _say(es.open(store).delete(where, items=item or None, wait=wait), as_json)


@app.command()
def forget(
    store: o.StorePath, where: o.Where = None, item: Items = [], wait: o.Wait = 0.0, as_json: o.Json = False
) -> None:
    """Take images out for good: every item with the same bytes, and with the next `compact` the vectors on disk."""
    _say(es.open(store).forget(where, items=item or None, wait=wait), as_json)


@app.command()
def edit(
    store: o.StorePath,
    table: Annotated[
        Path | None, typer.Argument(help="CSV, Parquet or JSON lines with item or uri, and columns.")
    ] = None,
    sets: Annotated[list[str], typer.Option("--set", metavar="COLUMN=EXPRESSION", help="An SQL expression.")] = [],
    new: Annotated[bool, typer.Option("--new", help="Make columns that do not exist.")] = False,
    where: o.Where = None,
    item: Items = [],
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Relabel: set columns of items to expressions, or from a table.

    `embedstore edit pets.store --set "label='bee'" --where "label = 'Bee'"`
    """
    if (table is None) == (not sets):
        raise typer.BadParameter("give either a TABLE or --set COLUMN=EXPRESSION")
    opened = es.open(store)
    if table is not None:
        _say(opened.edit_from(table, wait=wait), as_json)
        return
    assignments = {}
    for text in sets:
        column, equals, expression = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"expected COLUMN=EXPRESSION, not {text!r}", param_hint="--set")
        assignments[column.strip()] = expression.strip()
    _say(opened.edit(assignments, where, items=item or None, new=new, wait=wait), as_json)


@app.command()
def rename(
    store: o.StorePath,
    old: Annotated[str, typer.Argument(help="A uri, a folder of uris ending in /, or with --space a space.")],
    new: Annotated[str, typer.Argument(help="What to call it.")],
    space: Annotated[bool, typer.Option("--space", help="OLD and NEW are names of a space.")] = False,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Give an item, all items below a folder, or a space another name; files are not touched."""
    opened = es.open(store)
    if space:
        opened.rename_space(old, new, wait=wait)
        _say({"space": new}, as_json)
    else:
        _say(opened.rename(old, new, wait=wait), as_json)


@app.command()
def compact(store: o.StorePath, wait: o.Wait = 0.0, as_json: o.Json = False) -> None:
    """Merge small vector files, wipe vectors that no item needs, and build indexes over them again."""
    _say(es.open(store).compact(wait=wait, report=console.print_note), as_json)


@app.command()
def index(
    store: o.StorePath,
    recall: Annotated[float, typer.Option(help="Of the ten nearest, how many a search must find.")] = 0.95,
    max_memory: Annotated[str, typer.Option(help="Of the loaded index, e.g. 4GB.")] = "4GB",
    kind: Annotated[str | None, typer.Option(help="flat, hnsw or ivf; by default chosen.")] = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """Build an approximate index and measure its recall; searches go on meanwhile and use it from then on.

    `embedstore index pets.store --recall 0.95 --max-memory 4GB`
    """
    opened = es.open(store)
    _say(
        opened.index(recall=recall, max_memory=max_memory, kind=kind, space=space, report=console.print_note).to_json(),
        as_json,
    )


@app.command()
def duplicates(
    store: o.StorePath,
    threshold: Annotated[float, typer.Option(help="Least cosine similarity of a pair.")] = 0.95,
    keep: Annotated[str, typer.Option(help="Which item of a group stays: first or largest.")] = "first",
    across_splits: Annotated[bool, typer.Option("--across-splits", help="Only pairs in different splits.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all with all, whatever their number.")] = False,
    mark: Annotated[bool, typer.Option("--mark", help="Write columns duplicate_group, duplicate_keep.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the table as .csv, .parquet or .jsonl.")] = None,
    where: o.Where = None,
    space: o.SpaceName = None,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Groups of images that look alike, chains included, each with its weakest link; and pairs across splits.

    `embedstore duplicates pets.store --threshold 0.95 --mark`, then
    `embedstore delete pets.store --where "not duplicate_keep"`
    """
    found = es.open(store).duplicates(
        threshold, where=where, keep=keep, exact=exact or None, mark=mark, space=space, wait=wait
    )
    rows = [pair.to_json() for pair in found.cross_split_pairs] if across_splits else found.records()
    if out:
        save_records(rows, out)
        console.print_note(f"wrote {out}")
    if as_json:
        console.print_json(found.to_json())
    elif not out and rows:
        console.print_table(list(rows[0]), [list(r.values()) for r in rows])
    console.print_note(
        f"{len(found.items)} items in {found.group_count} groups, {len(found.cross_split_pairs)} pairs across splits; "
        f"{found.content_count} contents compared, recall {found.recall}"
    )


@app.command()
def cluster(
    store: o.StorePath,
    k: Annotated[int, typer.Option("-k", help="Clusters.")] = 20,
    where: o.Where = None,
    column: Annotated[str, typer.Option(help="Where the cluster's number goes.")] = "cluster",
    outlier: Annotated[str, typer.Option(help="Where the outlier score goes.")] = "outlier",
    space: o.SpaceName = None,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """K-means clusters and outlier scores as columns of the items.

    `embedstore cluster pets.store -k 50`, then
    `embedstore sql pets.store "select uri, outlier from items order by outlier desc limit 20"`
    """
    found = es.open(store).cluster(k, where=where, column=column, outlier=outlier, space=space, wait=wait)
    _say(found, as_json)


def _say(result: Mapping[str, object], as_json: bool) -> None:
    """A result as facts or as JSON."""
    console.print_json(result) if as_json else console.print_facts(list(result.items()))

"""Verbs that answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import options as o
from embedstore.cli import output
from embedstore.cli.app import app


@app.command()
def search(
    store: o.StorePath,
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Look for images like this one.")] = None,
    item: Annotated[int | None, typer.Option(help="Look for items like this one.")] = None,
    k: Annotated[int, typer.Option("-k", help="Hits wanted.")] = 10,
    where: o.Where = None,
    space: o.SpaceName = None,
    html: Annotated[Path | None, typer.Option(help="Write a contact sheet as one HTML page.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet as PNG.")] = None,
    paths: Annotated[bool, typer.Option("--paths", help="Print the paths only, for pipes.")] = False,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """The k nearest items to words, an image or an item; with --where, the k nearest that match."""
    if sum(q is not None for q in (text, image, item)) != 1:
        raise typer.BadParameter("ask with TEXT, --image FILE or --item ID: exactly one of them")
    opened = es.open(store, device=device, precision=precision, allow_code=allow_code)
    query = text if text is not None else item
    hits = opened.search(query, image=image, k=k, where=where, space=space)
    if html:
        html.write_text(hits.html(), encoding="utf-8")
        output.note(f"wrote {html}")
    if sheet:
        hits.png(sheet)
        output.note(f"wrote {sheet}")
    if as_json:
        output.as_json(hits.to_json())
    elif paths:
        for hit in hits:
            print(hit.uri)
    else:
        rows = [(h.rank, round(h.score, 4), h.item, h.label, h.split, h.uri) for h in hits]
        output.table(("rank", "score", "item", "label", "split", "uri"), rows)


@app.command()
def failures(store: o.StorePath, as_json: o.Json = False) -> None:
    """Every image that could not be embedded, with the reason."""
    rows = es.open(store).failures()
    output.as_json(rows.to_json()) if as_json else output.table(rows.names, rows.rows)


@app.command()
def sql(
    store: o.StorePath, query: Annotated[str, typer.Argument(help="A DuckDB query.")], as_json: o.Json = False
) -> None:
    """A read-only query over items, contents, spaces, failures, runs ….

    `embedstore sql pets.store "select label, count(*) from items group by 1"`
    """
    rows = es.open(store).sql(query)
    output.as_json(rows.to_json()) if as_json else output.table(rows.names, rows.rows)


@app.command()
def export(
    store: o.StorePath,
    path: Annotated[Path, typer.Argument(help="FILE.parquet, or FILE.npy with a Parquet beside it.")],
    where: o.Where = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """Write items and vectors to Parquet or .npy."""
    rows = es.open(store).export(path, where=where, space=space)
    output.as_json({"path": str(path), "rows": rows}) if as_json else print(f"wrote {rows} rows to {path}")

"""Verbs that answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import embedstore as es
from embedstore import timing
from embedstore.cli import console, render
from embedstore.cli import options as o
from embedstore.cli.put_in import app
from embedstore.reports.html_page import write_page
from embedstore.reports.results import Hits


@app.command()
def search(
    store: o.StorePath,
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Look for images like this one.")] = None,
    item: Annotated[int | None, typer.Option(help="Look for items like this one.")] = None,
    plus: Annotated[
        list[str], typer.Option(metavar="PART", help="Add a part: words, item:ID or image:FILE, …*0.5.")
    ] = [],
    minus: Annotated[list[str], typer.Option(metavar="PART", help="Take a part away, likewise.")] = [],
    like: Annotated[
        list[str], typer.Option(metavar="EXAMPLE", help="More like this: words, item:ID, image:FILE.")
    ] = [],
    unlike: Annotated[list[str], typer.Option(metavar="EXAMPLE", help="Less like that.")] = [],
    template: Annotated[
        str | None, typer.Option(help="Prompt for words: 'a photo of a {}', or photo, imagenet.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", help="Hits wanted [10; with --min-score all].")] = None,
    offset: Annotated[int, typer.Option(help="Hits to leave out at the front: the next page.")] = 0,
    min_score: Annotated[float | None, typer.Option(help="Least cosine similarity of a hit.")] = None,
    group_by: Annotated[
        str | None, typer.Option(help="One hit a value of this column; content: a hit an image.")
    ] = None,
    diversity: Annotated[float, typer.Option(help="0: by score alone; towards 1: hits unlike each other.")] = 0.0,
    exact: Annotated[bool, typer.Option("--exact", help="Never ask an approximate index.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say how it was found, at which cost.")] = False,
    where: o.Where = None,
    space: o.SpaceName = None,
    html: Annotated[Path | None, typer.Option(help="Write a contact sheet as one HTML page.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet as PNG.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the hits as .csv, .parquet or .jsonl.")] = None,
    paths: Annotated[bool, typer.Option("--paths", help="Print the paths only, for pipes.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object a hit.")] = False,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    allow_code: o.AllowCode = [],
    show_timing: o.Timing = False,
    as_json: o.Json = False,
) -> None:
    """The k nearest items to words, an image or an item; with --where, the k nearest that match.

    `embedstore search pets.store "a dog" --plus "snow*0.5" --minus leash --where "split = 'val'" --paths`
    """
    if sum(q is not None for q in (text, image, item)) > 1:
        raise typer.BadParameter("ask with TEXT, --image FILE or --item ID: one of them; add others with --plus")
    if text is None and image is None and item is None and not (plus or like):
        raise typer.BadParameter("nothing is asked: say TEXT, --image FILE, --item ID, --plus or --like")
    with timing.time_step("opening the store"):
        opened = es.asking(store, device=device, precision=precision, runtime=runtime, allow_code=allow_code)
    hits = opened.search(
        text if text is not None else item,
        image=image,
        plus=[o.parse_query_part(p) for p in plus],
        minus=[o.parse_query_part(p) for p in minus],
        like=[o.parse_query_part(p)[0] for p in like],
        unlike=[o.parse_query_part(p)[0] for p in unlike],
        template=template,
        k=10 if k is None and min_score is None else k,
        offset=offset,
        min_score=min_score,
        group_by=group_by,
        diversity=diversity,
        exact=exact,
        where=where,
        space=space,
    )
    for text_note in hits.notes:
        console.print_note(text_note)
    if explain:
        console.print_note("\n".join(f"{name}: {value}" for name, value in hits.plan.to_json().items()))
    _written(hits, html, sheet, out)
    if as_json:
        console.print_json(hits.to_json() | ({"plan": hits.plan.to_json()} if explain else {}))
    elif paths:
        for hit in hits:
            print(hit.uri)
    elif jsonl:
        console.print_json_lines(hits.records())
    else:
        render.print_hits(hits)
    sys.stdout.flush()  # the answer stands; what follows is for the next one
    with timing.time_step("keeping towers for the next search"):
        said = opened.keep_towers()
    if said:
        console.print_note("\n".join(said))


def _written(hits: Hits, html: Path | None, sheet: Path | None, out: Path | None) -> None:
    """The files that were asked for."""
    if html:
        write_page(html, hits.html())
    if sheet:
        hits.png(sheet)
    if out:
        hits.save(out)
    for path in (html, sheet, out):
        if path:
            console.print_note(f"wrote {path}")


@app.command("map")
def map_(
    store: o.StorePath,
    html: Annotated[Path | None, typer.Option(help="Write a page: move over a point to see its image.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write a picture.")] = None,
    colour: Annotated[str, typer.Option(help="The column that points are coloured by.")] = "label",
    most: Annotated[int, typer.Option(min=5, help="Of more items a random sample is shown.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the sample and the projection.")] = 0,
    where: o.Where = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """The collection in the plane (t-SNE): what the network finds alike lies together.

    `embedstore map pets.store --html map.html --where "split = 'train'"`
    """
    if not (html or png or as_json):
        raise typer.BadParameter("say where the map goes: --html FILE, --png FILE or --json")
    atlas = es.open(store).map(colour=colour, where=where, space=space, most=most, seed=seed)
    if html:
        write_page(html, atlas.html())
    if png:
        atlas.png(png)
    if as_json:
        console.print_json(atlas.to_json())
        return
    print(f"{atlas.title}, {atlas.seconds:.1f} s")
    for path in (html, png):
        if path:
            console.print_note(f"wrote {path}")


@app.command()
def failures(store: o.StorePath, as_json: o.Json = False) -> None:
    """Every image that could not be embedded, with the reason."""
    rows = es.counting(store).failures()
    console.print_json(rows.to_json()) if as_json else console.print_table(rows.column_names, rows.rows)


@app.command()
def sql(
    store: o.StorePath, query: Annotated[str, typer.Argument(help="A DuckDB query.")], as_json: o.Json = False
) -> None:
    """A read-only query over items, contents, spaces, failures, runs ….

    `embedstore sql pets.store "select label, count(*) from items group by 1"`
    """
    rows = es.counting(store).sql(query)
    console.print_json(rows.to_json()) if as_json else console.print_table(rows.column_names, rows.rows)


@app.command()
def export(
    store: o.StorePath,
    path: Annotated[
        Path,
        typer.Argument(help="FILE.parquet, FILE.npy with a Parquet beside it, or a new FOLDER for all there is."),
    ],
    where: o.Where = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """Write items and their vectors to Parquet or .npy; into a folder, everything: `embedstore import` takes it."""
    if not path.suffix:
        if where or space:
            raise typer.BadParameter("a folder gets everything; --where and --space go with FILE.parquet or FILE.npy")
        done = es.open(store).export_store(path)
        console.print_json({"path": str(path), **done}) if as_json else print(
            f"wrote {done['items']:,} items and {done['vectors']:,} vectors to {path}"
        )
        return
    rows = es.open(store).export(path, where=where, space=space)
    console.print_json({"path": str(path), "rows": rows}) if as_json else print(f"wrote {rows} rows to {path}")

"""Verbs that search, show and export."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

import embedstore as es
from embedstore import timing
from embedstore.cli import console, process_limits, render
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.cli.option_groups import NameOptionGroup, with_option_groups
from embedstore.storage.query_limits import QUERY_SECONDS, QueryLimits
from embedstore.wording import counted


@app.command(rich_help_panel=Panel.SEARCH)
@with_option_groups
def search(
    store: o.StorePath,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="Find images that match this text.")] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", "--file", metavar="FILE", help="Find items like this image, clip or file of text."),
    ] = None,
    item: Annotated[int | None, typer.Option(metavar="ID", help="Find items like this one.")] = None,
    plus: Annotated[
        list[str],
        typer.Option(
            metavar="PART", help="Add a part to the query: text, item:ID or image:FILE, optionally *0.5. Repeatable."
        ),
    ] = [],
    minus: Annotated[
        list[str],
        typer.Option(
            metavar="PART",
            help="Subtract a part from the query: text, item:ID or image:FILE, optionally *0.5. Repeatable.",
        ),
    ] = [],
    like: Annotated[
        list[str],
        typer.Option(metavar="EXAMPLE", help="Prefer items like this: text, item:ID, image:FILE. Repeatable."),
    ] = [],
    unlike: Annotated[
        list[str], typer.Option(metavar="EXAMPLE", help="Avoid items like this: text, item:ID, image:FILE. Repeatable.")
    ] = [],
    templates: Annotated[
        str | None, typer.Option(help="The prompt for text: 'a photo of a {}', or a set such as photo or imagenet.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", help="The number of hits. By default 10; with --min-score, all.")
    ] = None,
    offset: Annotated[int, typer.Option(help="Skip this many hits, to get the next page.")] = 0,
    min_score: Annotated[float | None, typer.Option(help="The least cosine similarity of a hit.")] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Return one hit per value of this column, or per content.")
    ] = None,
    diversity: Annotated[
        float, typer.Option(help="Diversity from 0 (rank by score alone) to 1 (hits differ as much as possible).")
    ] = 0.0,
    exact: Annotated[bool, typer.Option("--exact", help="Do not use an approximate index.")] = False,
    replica: Annotated[
        str | None, typer.Option(metavar="NAME", help="Search by this replica, see `embedstore replicate`.")
    ] = None,
    hybrid: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Also rank by the words of TEXT in this column (BM25) and join both rankings (reciprocal rank "
            "fusion).",
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the search plan and its estimated cost.")] = False,
    where: o.Where = None,
    space: o.SpaceName = None,
    output: Annotated[
        list[Path],
        o.output_option(
            "Write a contact sheet (.html or .png) or the hits (.csv, .parquet or .jsonl). Repeatable.",
            ".html",
            ".png",
            *o.TABLE_SUFFIXES,
        ),
    ] = [],
    names: NameOptionGroup = NameOptionGroup(),
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per hit.")] = False,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    allow_code: o.AllowCode = [],
    show_timing: o.Timing = False,
    as_json: o.Json = False,
) -> None:
    """Find the k items nearest to a text, an image or an item; with --where, the k nearest that match.

    `embedstore search pets.store "a dog" --plus "snow*0.5" --minus leash --where "split = 'val'" -o hits.html`
    """
    names.check()
    if sum(q is not None for q in (text, image, item)) > 1:
        raise typer.BadParameter("give one of TEXT, --image FILE or --item ID; add others with --plus")
    if text is None and image is None and item is None and not (plus or like):
        raise typer.BadParameter("the query is empty: give TEXT, --image FILE, --item ID, --plus or --like")
    with timing.time_step("open the store"):
        opened = es.open(store, device=device, precision=precision, runtime=runtime, allow_code=allow_code)
    hits = opened.search(
        text if text is not None else item,
        image=image,
        plus=[o.parse_query_part(p) for p in plus],
        minus=[o.parse_query_part(p) for p in minus],
        like=[o.parse_query_part(p)[0] for p in like],
        unlike=[o.parse_query_part(p)[0] for p in unlike],
        templates=templates,
        k=10 if k is None and min_score is None else k,
        offset=offset,
        min_score=min_score,
        group_by=group_by,
        diversity=diversity,
        exact=exact,
        replica=replica,
        hybrid=hybrid,
        where=where,
        space=space,
    )
    for note in hits.notes:
        console.print_note(note)
    if explain:
        for name, value in hits.plan.to_json().items():
            console.print_note(f"{name}: {value}")
    tables = dict.fromkeys(o.TABLE_SUFFIXES, hits.save)
    o.write_outputs(output, {".html": o.text_writer(hits.html), ".png": hits.png, **tables})
    if as_json:
        console.print_json(hits.to_json() | ({"plan": hits.plan.to_json()} if explain else {}))
    elif jsonl:
        console.print_json_lines(hits.records())
    elif not hits:
        console.print_note(_no_match(where, min_score, offset))
    elif not names.print_names(opened, [hit.item for hit in hits]):
        render.print_hits(hits)
    sys.stdout.flush()  # the answer is complete; what follows serves the next command
    with timing.time_step("export towers for the next search"):
        for sentence in opened.close():
            console.print_note(sentence)


def _no_match(where: str | None, min_score: float | None, offset: int) -> str:
    """Return the sentence for a search without a hit, with what excluded the items."""
    conditions = [
        f"--where {shlex.quote(where)}" if where else "",
        f"--min-score {min_score:g}" if min_score is not None else "",
        f"--offset {offset}" if offset else "",
    ]
    named = " and ".join(c for c in conditions if c)
    return f"no item matches {named}" if named else "no item matches: no item has a vector in this space"


@app.command("map", rich_help_panel=Panel.SEARCH)
def map_(
    store: o.StorePath,
    output: Annotated[
        list[Path],
        o.output_option(
            "Write a page that shows the image of a point (.html), or a plot (.png). Repeatable.", ".html", ".png"
        ),
    ] = [],
    color_by: Annotated[str, typer.Option(metavar="COLUMN", help="Color the points by this column.")] = "label",
    max_items: Annotated[
        int,
        typer.Option(
            min=5,
            help="The largest number of items to show; of more, a random sample is drawn. t-SNE places 5,000 items, "
            "and the others are placed near those.",
        ),
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Random seed of the sample and the projection.")] = 0,
    where: o.Where = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """Draw the items in a plane (t-SNE), so that items that are near in the space are near on the map.

    `embedstore map pets.store -o map.html --where "split = 'train'"`
    """
    if not (output or as_json):
        raise typer.BadParameter("name a file to write, -o map.html or -o map.png, or give --json")
    projected = es.open(store).map(color_by=color_by, where=where, space=space, max_items=max_items, seed=seed)
    o.write_outputs(output, {".html": o.text_writer(projected.html), ".png": projected.png})
    if as_json:
        console.print_json(projected.to_json())
    else:
        console.print_line(f"{projected.title}, {projected.seconds:.1f} s")


@app.command(rich_help_panel=Panel.SEARCH)
def index(
    store: o.StorePath,
    recall: Annotated[float, typer.Option(help="The least recall of the 10 nearest that is accepted.")] = 0.95,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="The memory that the index may take, loaded or while it is built, e.g. 8GB; by default 4GB, or half "
            "of the memory of this process where that is less.",
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of index: flat, hnsw or ivf; by default chosen.")] = None,
    space: o.SpaceName = None,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Build an approximate index and measure its recall; searches continue meanwhile and use it once it is ready.

    `embedstore index pets.store --recall 0.95 --max-memory 4GB`
    """
    built = es.open(store).build_index(
        recall=recall, max_memory=max_memory, kind=kind, space=space, wait=wait, progress=console.print_note
    )
    console.print_result(built.to_json(), as_json)


@app.command(rich_help_panel=Panel.SEARCH)
def info(store: o.StorePath, show_timing: o.Timing = False, as_json: o.Json = False) -> None:
    """Show what a store holds: items, contents, failures, spaces, indexes, heads, bytes."""
    with timing.time_step("open the store"):
        opened = es.open(store)
    with timing.time_step("count"):
        render.print_info(opened.info(), as_json)


@app.command(rich_help_panel=Panel.SEARCH)
@with_option_groups
def failures(store: o.StorePath, names: NameOptionGroup = NameOptionGroup(), as_json: o.Json = False) -> None:
    """List every image that could not be embedded, with the reason.

    `embedstore failures pets.store --paths -0 | xargs -0 file`
    """
    names.check()
    opened = es.open(store)
    rows = opened.failures()
    if as_json:
        console.print_json(rows.to_json())
    elif names.paths:
        console.print_paths(opened.failed_paths(), null=names.null)
    elif names.uris:
        console.print_uris((uri for uri, *_ in rows.rows), null=names.null)
    else:
        console.print_table(rows.column_names, rows.rows)


@app.command(rich_help_panel=Panel.SEARCH)
def sql(
    store: o.StorePath,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One DuckDB query that only reads.")],
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Stop the query after this time; writers of the store wait for it.")
    ] = QUERY_SECONDS,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Stop the query at this memory; by default 1GB, or a quarter of the memory of this process where that "
            "is less.",
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Run a query over items, contents, spaces, failures, runs and the other tables; pred.HEAD is a column of items.

    It reads these tables only: no files, no network, no settings.

    `embedstore sql pets.store "select label, count(*) from items group by 1"`
    """
    with process_limits.hard_limits(QueryLimits(timeout, memory)):
        rows = es.open(store).sql(query, timeout=timeout, memory=memory)
    console.print_json(rows.to_json()) if as_json else console.print_table(rows.column_names, rows.rows)


@app.command(rich_help_panel=Panel.SEARCH)
def export(
    store: o.StorePath,
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="FILE.parquet, .npy, .csv, .tar or .lance, or a new FOLDER."),
    ],
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Write parquet, npy, csv, webdataset, lance, huggingface or fiftyone; by default as the suffix says.",
        ),
    ] = None,
    vectors: Annotated[
        bool | None,
        typer.Option("--vectors/--no-vectors", help="Write the vectors; by default in every format but CSV."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Write vectors as float16 or float32; by default as the space stores them.")
    ] = None,
    where: o.Where = None,
    space: o.SpaceName = None,
    as_json: o.Json = False,
) -> None:
    """Write items and vectors for other tools, or the whole store to a folder for `embedstore import`.

    The suffix of a file says the format. A folder without --format is the whole store.

    `embedstore export pets.store pets/ --format huggingface`
    """
    opened = es.open(store)
    if path.suffix or file_format:
        report = opened.export(path, file_format=file_format, vectors=vectors, dtype=dtype, where=where, space=space)
        console.print_json(report.to_json()) if as_json else console.print_line(report.summary())
        return
    if where or space or dtype or vectors is not None:
        raise typer.BadParameter(
            "the whole store is written to a folder; these options need a file such as FILE.parquet, or --format"
        )
    counts = opened.export_store(path)
    if as_json:
        console.print_json({"path": str(path), **counts.to_json()})
    else:
        console.print_line(
            f"wrote {counted(counts.tables['items'], 'item')} and {counted(counts.vectors, 'vector')} to {path}"
        )

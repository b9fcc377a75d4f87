"""Verbs that use saved heads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console, render
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.cli.option_groups import with_option_groups
from embedstore.cli.source_options import TableOptionGroup
from embedstore.wording import counted

HeadName = Annotated[str, typer.Argument(metavar="HEAD", help="A head that was saved with --save.")]


@app.command(rich_help_panel=Panel.CLASSIFY)
def predict(
    store: o.StorePath,
    head: HeadName,
    where: o.Where = None,
    space: Annotated[
        str | None, typer.Option(metavar="NAME", help="The space that the head must belong to; by default its own.")
    ] = None,
    wait: o.Wait = 10.0,
    as_json: o.Json = False,
) -> None:
    """Predict the class or number of every matching item with a saved head, and write the table `predictions`.

    Afterwards every --where may use pred.HEAD and pred.HEAD.score; for a head that predicts numbers also pred.HEAD.low
    and pred.HEAD.high, the ends of the prediction interval.

    `embedstore predict pets.store species --where "pred.species is null"` predicts what is new or changed.
    """
    result = es.open(store).predict(head, where=where, space=space, wait=wait)
    if as_json:
        console.print_json(result.to_json())
        return
    console.print_line(f"{result.head}: {counted(result.items, 'item')} in {result.seconds:.2f} s")
    if result.labels:
        console.print_table(("class", "items"), list(result.labels.items())[:50])


@app.command(rich_help_panel=Panel.CLASSIFY)
def heads(
    store: o.StorePath,
    delete: Annotated[str | None, typer.Option(metavar="HEAD", help="Delete this head and its predictions.")] = None,
    wait: o.Wait = 10.0,
    as_json: o.Json = False,
) -> None:
    """List the saved heads."""
    opened = es.open(store)
    if delete:
        opened.delete_head(delete, wait=wait)
        console.print_note(f"deleted {delete}")
    spaces = {s.key: s.name for s in opened.spaces}
    rows = [
        {
            "head": h.name,
            "kind": h.kind,
            "label": h.label,
            "space": spaces.get(h.space_key, h.space_key),
            "classes": len(h.metadata["classes"]),
            "accuracy": h.metadata.get("accuracy"),
            "split": h.metadata.get("split"),
            "created": str(h.created)[:19],
        }
        for h in opened.heads
    ]
    if as_json:
        console.print_json(rows)
    else:
        names = ("head", "kind", "label", "space", "classes", "accuracy", "split", "created")
        console.print_table(names, [tuple(r.values()) for r in rows])


@app.command("export-head", rich_help_panel=Panel.CLASSIFY)
def export_head(
    store: o.StorePath,
    head: HeadName,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="FILE.npz (weights, intercepts, classes) or FILE.onnx.")],
    as_json: o.Json = False,
) -> None:
    """Write a head over vectors to a file, for use without the store: a linear one as .npz, most heads as .onnx."""
    es.open(store).export_head(head, path)
    console.print_json({"path": str(path)}) if as_json else console.print_line(f"wrote {path}")


@app.command("export-classifier", rich_help_panel=Panel.CLASSIFY)
def export_classifier(
    store: o.StorePath,
    head: HeadName,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="FILE.onnx.")],
    device: o.Device = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """Write preprocessing, backbone and head as one ONNX model, which classifies images without the store.

    Its input is uint8 (N, height, width, 3), RGB and upright, of any size. The classes are in its metadata.
    """
    result = es.open(store, device=device, allow_code=allow_code).export_classifier(head, path)
    if as_json:
        console.print_json(result.to_json())
        return
    console.print_line(
        f"wrote {path}: {result.bytes / 1e6:,.1f} MB, {counted(result.classes, 'class', 'classes')}; probabilities "
        f"of {counted(result.images, 'image')} differ by at most {result.max_difference:.1e}"
    )


@app.command(rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def classify(
    store: o.StorePath,
    head: HeadName,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="Files, folders, globs, archives or uris; a table of names, or of texts with --text-column; - reads a "
            "file from stdin.",
        ),
    ],
    table: TableOptionGroup,
    evidence: Annotated[
        int, typer.Option(metavar="N", help="Show the N labeled items that are nearest to each image.")
    ] = 3,
    space: Annotated[
        str | None, typer.Option(metavar="NAME", help="The space that the head must belong to; by default its own.")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Also embed the images as items, without a label.")] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --add: wait this long for another process that is writing.")
    ] = 0.0,
    output: Annotated[
        list[Path],
        o.output_option(
            "Write the images or texts with their evidence (.html) or a table (.csv, .parquet or .jsonl). Repeatable.",
            ".html",
            *o.TABLE_SUFFIXES,
        ),
    ] = [],
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    runtime: o.Runtime = "auto",
    allow_code: o.AllowCode = [],
    as_json: o.Json = False,
) -> None:
    """Classify new images, texts or clips with a saved head; nothing is stored unless --add is given.

    `embedstore classify pets.store species new-photos/ -o new.html`

    `embedstore classify reviews.store sentiment new.csv --text-column text -o judged.csv`
    """
    opened = es.open(store, device=device, precision=precision, runtime=runtime, allow_code=allow_code)
    from_stdin = "-" in images
    if from_stdin and (len(images) > 1 or add or table.are_given):
        raise typer.BadParameter("- reads one item, and goes with no other and without --add and the options of tables")
    result = opened.classify(
        [sys.stdin.buffer.read()] if from_stdin else images,
        head,
        evidence=evidence,
        space=space,
        progress=None,
        **table.to_kwargs(),
    )
    o.write_outputs(output, {".html": o.text_writer(result.html), **dict.fromkeys(o.TABLE_SUFFIXES, result.save)})
    if as_json:
        console.print_json(result.to_json())
    else:
        render.print_classified(result)
    if add:
        report = opened.embed(
            images, labels_from=None, splits_from=None, space=result.space, wait=wait, **table.to_kwargs()
        )
        console.print_note(
            f"{counted(report.scanned, result.singular)}: {counted(report.embedded, 'new item')}, "
            f"{counted(report.failures, 'failure')}"
        )
    for sentence in opened.close():
        console.print_note(sentence)
    if result.failures and len(result.failures) == len(result):
        raise typer.Exit(1)

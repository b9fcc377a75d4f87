"""The verb `duplicates`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.cli.item_texts import print_items, texts_of_items
from embedstore.cli.option_groups import NameOptionGroup, with_option_groups
from embedstore.tables import Record, save_records
from embedstore.wording import counted


@app.command(rich_help_panel=Panel.LABEL)
@with_option_groups
def duplicates(
    store: o.StorePath,
    threshold: Annotated[
        str, typer.Option(metavar="COSINE", help="The least cosine similarity of a pair, or auto: from the vectors.")
    ] = "auto",
    keep: Annotated[
        str,
        typer.Option(help="Which item of a group to keep: first, largest (file), resolution, oldest or train-first."),
    ] = "first",
    across_splits: Annotated[
        bool, typer.Option("--across-splits", help="Show only pairs of different splits.")
    ] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare all pairs; by default only up to 200,000 images.")
    ] = False,
    check_pixels: Annotated[
        bool,
        typer.Option(
            "--check-pixels",
            help="Decide by pixels: compare each image with its 20 nearest ones, also mirrored, shifted and "
            "cropped. Reads the images.",
        ),
    ] = False,
    write_columns: Annotated[
        bool, typer.Option("--write-columns", help="Write the group and whether to keep the item as columns.")
    ] = False,
    group_column: Annotated[str, typer.Option(help="The column for the group.")] = "duplicate_group",
    keep_column: Annotated[str, typer.Option(help="The column for whether to keep the item.")] = "duplicate_keep",
    where: o.Where = None,
    space: o.SpaceName = None,
    wait: o.Wait = 0.0,
    errors: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            help="Instead, make copies of N of your images and report which kinds of copy are missed.",
        ),
    ] = None,
    extra: Annotated[
        bool,
        typer.Option("--extra", help="Show and write only the extra items: all of each group but the one to keep."),
    ] = False,
    delete_extra: Annotated[
        bool,
        typer.Option("--delete-extra", help="Delete the extra items from the store; their files are not touched."),
    ] = False,
    output: Annotated[
        list[Path],
        o.output_option(
            "Write a table (.csv, .parquet or .jsonl) or a page of the images (.html). Repeatable.",
            *o.TABLE_SUFFIXES,
            ".html",
        ),
    ] = [],
    names: NameOptionGroup = NameOptionGroup(),
    as_json: o.Json = False,
) -> None:
    """Group images that look alike, with the item of each group to keep, and list pairs across splits.

    `embedstore duplicates pets.store -o copies.html` shows them. `--write-columns` marks what to keep,
    `--extra --paths` lists the other files, and `--delete-extra` removes the other items from the store.
    """
    names.check()
    if across_splits and (extra or delete_extra):
        raise typer.BadParameter("--across-splits lists pairs, which have no item to keep: leave --extra out")
    opened = es.open(store)
    if errors is not None:
        measured = opened.copy_errors(_parse_threshold(threshold), max_images=errors, where=where, space=space)
        _print_errors(measured, as_json)
        if measured.measured_threshold is not None:
            console.print_note(_measured(measured, store, where=where, space=space))
        return
    from embedstore.reports import duplicate_text

    groups = opened.duplicates(
        _parse_threshold(threshold),
        where=where,
        keep=keep,
        exact=exact or None,
        check_pixels=check_pixels,
        write_columns=write_columns,
        group_column=group_column,
        keep_column=keep_column,
        space=space,
        wait=wait,
    )
    rows = _rows(groups, across_splits=across_splits, extra=extra)
    _write(output, groups, rows, opened, across_splits=across_splits)
    items = list(dict.fromkeys(row[key] for row in rows for key in ("item", "other") if key in row))
    if as_json:
        console.print_json(groups.to_json())
    elif not names.print_names(opened, items) and not output and rows:
        _print_rows(opened, rows)
    console.print_note(duplicate_text.duplicate_summary(groups))
    if groups.only_equal:
        console.print_note(duplicate_text.ONLY_EQUAL_NOTE)
    if conflict := duplicate_text.label_conflict_note(groups):
        console.print_note(f"{conflict}: look at them with `-o copies.html` before you delete")
    if delete_extra and groups.extra:
        deleted = opened.delete(items=groups.extra, wait=wait)
        console.print_note(
            f"deleted {counted(deleted.items, 'item')} from the store; their files are as they were, and embedding "
            "them again "
            "adds them again"
        )


def _print_rows(opened: es.Store, rows: Sequence[Record]) -> None:
    """Print the rows; groups of texts with their texts."""
    texts = texts_of_items(opened, {r["item"]: r["uri"] for r in rows}) if "uri" in rows[0] else {}
    print_items(list(rows[0]), [list(r.values()) for r in rows], texts)


def _print_errors(measured: es.CopyErrors, as_json: bool) -> None:
    """Print the share of each kind of pair that counts as copies."""
    if as_json:
        console.print_json(measured.to_json())
        return
    console.print_line(
        f"of {counted(measured.images, 'image')}; cosine at least {measured.threshold:g}, or by their pixels"
    )
    console.print_table(
        ("pairs", "by", "count as copies", "95% interval"),
        [(s.kind, s.way, f"{s.counted} of {s.pairs}", f"{s.low:.1%} to {s.high:.1%}") for s in measured.shares],
    )


def _measured(measured: es.CopyErrors, store: Path, *, where: str | None, space: str | None) -> str:
    """Return what the measured cosine is, and the command that uses it."""
    words = ["embedstore", "duplicates", str(store), "--threshold", f"{measured.measured_threshold:g}"]
    options = {"--where": where, "--space": space}
    words += [word for option, value in options.items() if value is not None for word in (option, value)]
    found = next(s for s in measured.shares if s.way == "measured cosine" and not s.is_copy)
    other = "; different images reach it too, so let --check-pixels decide" if found.counted else ""
    return (
        f"measured cosine: {measured.measured_threshold:g}, which 95% of the copies of half of the images reach, crops "
        f"left out; its rows are of the other half{other}: `{shlex.join(words)}`"
    )


def _rows(groups: es.DuplicateGroups, *, across_splits: bool, extra: bool) -> list[Record]:
    """Return the rows to show."""
    if across_splits:
        return [pair.to_json() for pair in groups.cross_split_pairs]
    return [item.to_json() for item in groups.items if not (extra and item.keep)]


def _write(
    output: Sequence[Path],
    groups: es.DuplicateGroups,
    rows: Sequence[Record],
    opened: es.Store,
    *,
    across_splits: bool,
) -> None:
    """Write the tables and pages."""

    def page() -> str:
        from embedstore.reports.duplicate_page import duplicate_page
        from embedstore.reports.item_images import image_reader_by_uri

        uris = opened.item_uris([item.item for item in groups.items])
        title = f"Duplicates of {opened.path.name}"
        return duplicate_page(groups, title, image_reader_by_uri(uris), across_splits=across_splits)

    tables = dict.fromkeys(o.TABLE_SUFFIXES, lambda path: save_records(rows, path))
    o.write_outputs(output, {**tables, ".html": o.text_writer(page)})


def _parse_threshold(text: str) -> float | None:
    """Return the cosine, None for auto."""
    if text.strip().lower() == "auto":
        return None
    try:
        return float(text)
    except ValueError as e:
        raise typer.BadParameter(
            f"expected a cosine such as 0.95, or auto, not {text!r}", param_hint="--threshold"
        ) from e

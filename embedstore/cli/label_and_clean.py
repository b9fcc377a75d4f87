"""Verbs that help to label and to clean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.cli.item_texts import print_items, texts_of_items
from embedstore.cli.option_groups import (
    Folds,
    Head,
    NameOptionGroup,
    NearDuplicateOptionGroup,
    Separator,
    with_option_groups,
)
from embedstore.tables import save_records
from embedstore.types import Hit
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.classify.evaluation.label_errors import LabelErrorReport, LabelIssue


@app.command("label-errors", rich_help_panel=Panel.LABEL)
@with_option_groups
def label_errors(
    store: o.StorePath,
    copies: NearDuplicateOptionGroup,
    label: o.Label = "label",
    head: Head = "logistic",
    folds: Folds = 5,
    seed: o.Seed = 0,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 50,
    ranked_by: Annotated[
        str,
        typer.Option(
            help="The score that ranks the labels: self_confidence, normalized_margin, weighted_entropy or "
            "neighbors. neighbors also uses the labels of the 20 nearest items; it finds more errors and "
            "takes longer for many items."
        ),
    ] = "self_confidence",
    flagged_by: Annotated[
        str,
        typer.Option(help="What flags a label: confident_learning, prune_by_class, prune_by_noise_rate or both."),
    ] = "confident_learning",
    every_label: Annotated[
        bool, typer.Option("--all", help="Show the ranking of all labels, not only of the flagged ones.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Show this many of the most doubtful labels, flagged or not: --all --limit N."),
    ] = None,
    confirm: Annotated[
        str | None,
        typer.Option(metavar="ITEMS", help="Record that the labels of these items are right: ids such as 12,31."),
    ] = None,
    where: o.Where = None,
    space: o.SpaceName = None,
    separator: Separator = None,
    output: Annotated[
        list[Path],
        o.output_option(
            "Write a page on which wrong labels are ticked and saved as a table for `edit` (.html), or the list as a "
            "table (.csv, .parquet or .jsonl). Repeatable.",
            ".html",
            *o.TABLE_SUFFIXES,
        ),
    ] = [],
    names: NameOptionGroup = NameOptionGroup(),
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="With --confirm: wait this long for another process that is writing."),
    ] = 10.0,
    as_json: o.Json = False,
) -> None:
    """Find labels that are probably wrong, the most certain first (confident learning).

    With several labels per item, it finds labels that should not be there and labels that are missing.
    """
    names.check()
    opened = es.open(store)
    if confirm is not None:
        items = o.parse_integers(confirm, "--confirm")
        recorded = opened.confirm_labels(items, label, separator=separator, space=space, wait=wait)
        console.print_result(recorded.to_json(), as_json)
        return
    from embedstore.classify.evaluation.label_errors import issue_json

    report = opened.label_errors(
        label,
        head=head,
        folds=folds,
        seed=seed,
        where=where,
        space=space,
        separator=separator,
        ranked_by=ranked_by,
        flagged_by=flagged_by,
        **copies.to_kwargs(),
    )
    shown = report.ranking.top(top or limit) if every_label or top else report.issues[:limit]
    uris = opened.item_uris([i.item for i in shown])
    _write_label_errors(output, report, shown, uris)
    if as_json:
        facts = report.to_json()
        facts["suspects"] = [issue_json(i) | {"uri": uris.get(i.item)} for i in shown]
        console.print_json(facts | {"found": len(report.issues)})
        return
    if names.print_names(opened, [i.item for i in shown]):
        return
    from embedstore.reports.review_sheet import label_error_summary

    console.print_line(label_error_summary(report))
    if report.skipped_labels:
        skipped = ", ".join(report.skipped_labels[:20])
        console.print_note(f"not checked, because too few or too many items have them: {skipped}")
    for note in report.notes:
        console.print_note(note)
    if report.n_confirmed:
        console.print_note(
            f"{counted(report.n_confirmed, 'label was', 'labels were')} confirmed before and are not listed"
        )
    print_items(
        ("score", "flagged", "given", "suggested", "item", "uri"),
        [
            (
                round(i.score, 4),
                "yes" if i.flagged else "",
                i.given_label or "",
                i.suggested_label or "",
                i.item,
                uris.get(i.item),
            )
            for i in shown
        ],
        texts_of_items(opened, uris),
    )


def _write_label_errors(
    output: Sequence[Path], report: LabelErrorReport, shown: Sequence[LabelIssue], uris: dict[int, str]
) -> None:
    """Write doubtful labels as a page to review or as a table."""
    from embedstore.reports.item_images import image_reader_by_uri
    from embedstore.reports.review_sheet import label_error_summary, review_sheet_html

    read_images = image_reader_by_uri(uris)
    records = [asdict(issue) | {"uri": uris.get(issue.item)} for issue in shown]
    page = o.text_writer(
        lambda: review_sheet_html(shown, report.label, uris, read_images, summary=label_error_summary(report))
    )
    tables = dict.fromkeys(o.TABLE_SUFFIXES, lambda path: save_records(records, path))
    o.write_outputs(output, {".html": page, **tables})


_STRATEGIES = {
    "typical": "typical of what has no label",
    "uncertain": "those that the head is unsure of, spread out",
}


@app.command("suggest-labels", rich_help_panel=Panel.LABEL)
@with_option_groups
def suggest_labels(
    store: o.StorePath,
    label: o.Label = "label",
    k: Annotated[int, typer.Option("-k", min=1, help="The number of items to suggest.")] = 20,
    head: Head = "logistic",
    seed: o.Seed = 0,
    where: o.Where = None,
    space: o.SpaceName = None,
    separator: Separator = None,
    forecast: Annotated[
        bool,
        typer.Option("--forecast", help="Also estimate the accuracy with twice as many labels."),
    ] = False,
    output: o.ContactSheets = [],
    names: NameOptionGroup = NameOptionGroup(),
    as_json: o.Json = False,
) -> None:
    """Suggest what to label next: typical items first, then those that the head is unsure of and that differ.

    `embedstore suggest-labels pets.store species -k 50 -o next.html` works from no label on. `--forecast` says when
    more labels stop paying.
    """
    names.check()
    opened = es.open(store)
    result = opened.suggest_labels(label, k=k, head=head, seed=seed, where=where, space=space, separator=separator)
    expected = None
    if forecast:
        expected = opened.forecast_labels(label, head=head, seed=seed, space=space, separator=separator)
    uris = opened.item_uris([s.item for s in result.suggestions])
    cells = [
        (s.item, math.nan if s.confidence is None else s.confidence, f"{s.predicted}?" if s.predicted else "")
        for s in result.suggestions
    ]
    write_contact_sheets(output, cells, uris, f"to label next: {label}")
    if as_json:
        facts = result.to_json()
        facts["suggestions"] = [s | {"uri": uris.get(s["item"])} for s in facts["suggestions"]]
        if expected is not None:
            facts["forecast"] = expected.to_json()
        console.print_json(facts)
        return
    if names.print_names(opened, [s.item for s in result.suggestions]):
        return
    console.print_line(
        f"{len(result.suggestions)} of {counted(result.n_candidates, 'item')} without {label}: "
        f"{_STRATEGIES[result.strategy]} "
        f"({result.n_compared:,} compared, {result.seconds:.2f} s)"
    )
    if expected is not None:
        console.print_line(str(expected))
    if not result.n_candidates:
        console.print_note(f"every item that matches has a {label}; embed some without a label first")
        return
    print_items(
        ("margin", "confidence", "predicted", "item", "uri"),
        [
            (_shown(s.margin), _shown(s.confidence), s.predicted or "", s.item, uris.get(s.item))
            for s in result.suggestions
        ],
        texts_of_items(opened, uris),
    )


def _shown(value: float | None) -> float | str:
    """Return a number with four digits, nothing where there is none."""
    return "" if value is None else round(value, 4)


@app.command(rich_help_panel=Panel.LABEL)
def cluster(
    store: o.StorePath,
    n_clusters: Annotated[int, typer.Option("-k", help="The number of clusters.")] = 20,
    where: o.Where = None,
    cluster_column: Annotated[str, typer.Option(help="The column for the cluster.")] = "cluster",
    outlier_column: Annotated[str, typer.Option(help="The column for the outlier score.")] = "outlier",
    space: o.SpaceName = None,
    wait: o.Wait = 0.0,
    as_json: o.Json = False,
) -> None:
    """Write k-means clusters and outlier scores as columns of the items.

    `embedstore cluster pets.store -k 50`, then
    `embedstore sql pets.store "select uri, outlier from items order by outlier desc limit 20"`
    """
    result = es.open(store).cluster(
        n_clusters,
        where=where,
        cluster_column=cluster_column,
        outlier_column=outlier_column,
        space=space,
        wait=wait,
    )
    console.print_result(result.to_json(), as_json)


def write_contact_sheets(
    output: Sequence[Path], cells: Sequence[tuple[int, float, str]], uris: dict[int, str], title: str
) -> None:
    """Write contact sheets of items with a score and a text below each image."""
    from embedstore.reports.contact_sheet import contact_sheet_html
    from embedstore.reports.item_images import image_reader_by_uri

    hits = [Hit(i, score, item, uris.get(item, ""), text, None) for i, (item, score, text) in enumerate(cells, 1)]
    o.write_outputs(
        output, {".html": o.text_writer(lambda: contact_sheet_html(hits, title, image_reader_by_uri(uris)))}
    )

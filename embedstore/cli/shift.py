"""The verb that compares two sets of items."""

from __future__ import annotations

from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.cli.label_and_clean import write_contact_sheets
from embedstore.cli.option_groups import (
    ItemOptionGroup,
    NameOptionGroup,
    NearDuplicateOptionGroup,
    with_option_groups,
)
from embedstore.wording import counted


@app.command(rich_help_panel=Panel.CLASSIFY)
@with_option_groups
def shift(
    store: o.StorePath,
    which: ItemOptionGroup,
    copies: NearDuplicateOptionGroup,
    first: Annotated[
        str | None, typer.Option(metavar="SQL", help="A filter that selects the first set; by default the split train.")
    ] = None,
    second: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="A filter that selects the second set; by default the split test, else val."),
    ] = None,
    max_items: Annotated[
        int,
        typer.Option(help="The largest number of independent items of each set to compare; a larger set is sampled."),
    ] = 5000,
    seed: o.Seed = 0,
    limit: Annotated[int, typer.Option(min=1, help="The number of items of each set to list.")] = 10,
    output: o.ContactSheets = [],
    names: NameOptionGroup = NameOptionGroup(),
    as_json: o.Json = False,
) -> None:
    """Test whether two sets of items differ, such as train and test, or old items and new ones.

    A classifier tries to tell them apart from their vectors; the items that show the difference most are listed.

    `embedstore shift pets.store --first "added < '2026-11-01'" --second "added >= '2026-11-01'"`
    """
    names.check()
    opened = es.open(store)
    report = opened.shift(
        first, second, where=which.where, space=which.space, max_items=max_items, seed=seed, **copies.to_kwargs()
    )
    shown = [i for side in ("second", "first") for i in [i for i in report.items if i.side == side][:limit]]
    uris = opened.item_uris([i.item for i in shown])
    write_contact_sheets(output, [(i.item, i.score, i.side) for i in shown], uris, report.summary)
    if as_json:
        items = [{"item": i.item, "side": i.side, "score": i.score, "uri": uris.get(i.item)} for i in shown]
        console.print_json(report.to_json() | {"items": items})
    elif not names.print_names(opened, [i.item for i in shown]):
        console.print_line(report.summary)
        _print_figures(report)
        console.print_table(
            ("looks unlike its set", "score", "item", "uri"),
            [(i.side, round(i.score, 4), i.item, uris.get(i.item)) for i in shown],
        )
    _print_notes(report)


def _print_figures(report: es.ShiftReport) -> None:
    a = report.auroc
    console.print_line(
        f"AUROC {a.value:.3f} [{a.low:.3f}, {a.high:.3f}] in space {report.space}, {report.n_permutations} "
        f"permutations, {report.seconds:.2f} s"
    )
    console.print_table(
        ("set", "filter", "items", "compared"),
        [
            ("first", report.first, report.n_first, report.draws_first),
            ("second", report.second, report.n_second, report.draws_second),
        ],
    )


def _print_notes(report: es.ShiftReport) -> None:
    """Print what was left out."""
    if report.n_both:
        console.print_note(
            counted(
                report.n_both,
                "item matches both filters and was left out",
                "items match both filters and were left out",
            )
        )
    if report.n_shared:
        of_other_set = "of, or in a group with, items of the other set and"
        one, several = f"item is a copy {of_other_set} was", f"items are copies {of_other_set} were"
        console.print_note(f"{counted(report.n_shared, one, several)} left out")
    if report.sampled:
        console.print_note("of the independent items of a set, a random sample was compared; --max-items takes more")

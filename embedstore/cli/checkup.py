"""The verb `checkup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import embedstore as es
from embedstore.cli import console
from embedstore.cli import options as o
from embedstore.cli.app import Panel, app
from embedstore.wording import counted


@app.command(rich_help_panel=Panel.LABEL)
def checkup(
    store: o.StorePath,
    label: o.Label = "label",
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Start no further check after this time, e.g. 60s or 5m.")
    ] = "60s",
    where: o.Where = None,
    space: o.SpaceName = None,
    output: Annotated[list[Path], o.output_option("Write the findings as a page (.html). Repeatable.", ".html")] = [],
    as_json: o.Json = False,
) -> None:
    """Check a set of images: failures, copies, leaks, doubtful labels, telling columns, classes, poor pictures.

    The worst findings come first, each with the command that shows it, and the one that corrects it where one can.
    """
    opened = es.open(store)
    report = opened.checkup(label, budget=_parse_seconds(budget), where=where, space=space)

    def page() -> str:
        from embedstore.reports.checkup_page import SHOWN_ITEMS, checkup_page
        from embedstore.reports.item_images import image_reader_by_uri

        uris = opened.item_uris([item for finding in report.findings for item in finding.items[:SHOWN_ITEMS]])
        return checkup_page(report, f"Checkup of {store.name}", uris, image_reader_by_uri(uris))

    o.write_outputs(output, {".html": o.text_writer(page)})
    if as_json:
        console.print_json(report.to_json())
        return
    for finding in report.findings:
        console.print_line(f"{'!' * finding.severity:3} {finding.text}")
        console.print_line(f"    {finding.command}")
        if finding.cure:
            console.print_line(f"    then, if it is so: {finding.cure}")
    for check, extent in report.checks.items():
        console.print_note(f"{check}: {extent}")
    console.print_note(f"{counted(len(report.findings), 'finding')} in {report.seconds:.1f} s")


def _parse_seconds(text: str) -> float:
    """Return a time such as 60s, 5m or 90 in seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError as e:
        raise typer.BadParameter(f"expected a time such as 60s or 5m, not {text!r}", param_hint="--budget") from e
